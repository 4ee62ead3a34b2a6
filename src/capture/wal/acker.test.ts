import fc from "fast-check";
import { expect, test } from "vitest";
import { idlePosition, initialAckState, nextAckState, type AckState } from "./acker.ts";

/** A server that sends transactions and keepalives, loses its connection, and a journal that is behind by a while. */
type Step = "begin" | "commit" | "keepalive" | "journal-one" | "journal-all" | "journal-idle" | "disconnect";

const anySteps = fc.array(
  fc.constantFrom<Step>("begin", "commit", "keepalive", "journal-one", "journal-all", "journal-idle", "disconnect"),
  {
    maxLength: 60,
  },
);

interface World {
  ack: AckState;
  /** How far the server has read its log on this connection. */
  sentLsn: bigint;
  /** Ends of whole transactions that were received and are not journaled. */
  outstanding: bigint[];
  /** The transaction that is being sent: what confirming past its end would lose. */
  open: bigint | undefined;
  journaledLsn: bigint;
}

function step(world: World, what: Step): void {
  switch (what) {
    case "begin":
      if (world.open !== undefined) return;
      world.open = world.sentLsn + 10n;
      world.ack = nextAckState(world.ack, { kind: "begin" });
      return;
    case "commit":
      if (world.open === undefined) return;
      world.sentLsn = world.open;
      world.outstanding.push(world.open);
      world.ack = nextAckState(world.ack, { kind: "commit", endLsn: world.open });
      world.open = undefined;
      return;
    case "keepalive":
      // Inside a transaction the server says how far it has read, which is past its commit: it sends only what is committed.
      if (world.open === undefined) world.sentLsn += 3n;
      world.ack = nextAckState(world.ack, { kind: "keepalive", lsn: world.open ?? world.sentLsn });
      return;
    case "journal-one":
    case "journal-all": {
      const done = world.outstanding.splice(0, what === "journal-one" ? 1 : Infinity).at(-1);
      if (done === undefined) return;
      world.journaledLsn = done;
      world.ack = nextAckState(world.ack, { kind: "journaled", lsn: done });
      return;
    }
    case "journal-idle": {
      const lsn = idlePosition(world.ack);
      if (lsn === undefined) return;
      world.journaledLsn = lsn;
      world.ack = nextAckState(world.ack, { kind: "journaled", lsn });
      return;
    }
    case "disconnect":
      world.ack = nextAckState(world.ack, { kind: "disconnected" });
      // The log is read again from the last whole transaction on; one that was in the middle begins again.
      world.sentLsn = world.ack.receivedLsn;
      world.open = undefined;
      return;
    default:
      what satisfies never;
  }
}

test("whatever the order of events, nothing is confirmed that is not journaled, and no idle position passes what is outstanding", () => {
  let idles = 0;
  fc.assert(
    fc.property(anySteps, (steps) => {
      const world: World = { ack: initialAckState(100n), sentLsn: 100n, outstanding: [], open: undefined, journaledLsn: 100n };
      for (const what of steps) {
        const before = world.ack.journaledLsn;
        step(world, what);
        expect(world.ack.journaledLsn).toBe(world.journaledLsn);
        expect(world.ack.journaledLsn).toBeGreaterThanOrEqual(before);
        const idle = idlePosition(world.ack);
        if (idle === undefined) continue;
        idles++;
        expect(world.outstanding).toEqual([]);
        expect(world.open).toBeUndefined();
        expect(idle).toBeGreaterThan(world.journaledLsn);
      }
    }),
    { numRuns: 2_000 },
  );
  // A rule that never gave an idle position would pass all of the above.
  expect(idles).toBeGreaterThan(1_000);
});

test("a keepalive of the old connection is forgotten: the new one sends again what stood before it", () => {
  const before = nextAckState(initialAckState(100n), { kind: "keepalive", lsn: 500n });
  expect(idlePosition(before)).toBe(500n);
  expect(idlePosition(nextAckState(before, { kind: "disconnected" }))).toBeUndefined();
});

test("a quiet table does not keep the log: once all is journaled, the keepalive's position counts", () => {
  let state = nextAckState(initialAckState(100n), { kind: "begin" });
  state = nextAckState(state, { kind: "commit", endLsn: 200n });
  state = nextAckState(state, { kind: "keepalive", lsn: 900n });
  expect(idlePosition(state)).toBeUndefined();
  expect(idlePosition(nextAckState(state, { kind: "journaled", lsn: 200n }))).toBe(900n);
});
