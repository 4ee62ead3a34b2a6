import type { Captured } from "../src/capture/change.ts";
import { WalSource } from "../src/capture/wal/source.ts";
import type { Message } from "../src/message.ts";
import type { TestSignal } from "../src/test-signal.ts";
import { nowMs } from "./clock.ts";

/** When an event passed each step within Ancrage's process. */
export interface Passed {
  /** Its transaction's commit came over the replication session. */
  receivedAtMs: number;
  /** The loop is free for its batch, and asks whether its transaction is visible. */
  takenAtMs: number;
  /** It is visible. */
  capturedAtMs: number;
  /** It is built, and the batch is about to be written. */
  writingAtMs: number;
  /** PostgreSQL has answered the commit of its batch, and its request is written. */
  journaledAtMs: number;
  /** Messages in its batch. */
  batch: number;
}

export interface Trace {
  readonly signal: TestSignal;
  readonly passed: ReadonlyMap<number, Passed>;
}

/** Notes the time at the points in the flow that tests wait for. The key of a message is the number of its event. */
export function createTrace(): Trace {
  const received = new Map<number, number>();
  const passed = new Map<number, Passed>();
  let takenAtMs = 0;
  noteTake(() => (takenAtMs = nowMs()));
  const signal: TestSignal = (name, detail) => {
    const atMs = nowMs();
    if (name === "received") received.set(detail as number, atMs);
    else if (name === "captured") {
      for (const one of detail as readonly Captured[]) {
        if (one.kind !== "change") continue;
        const receivedAtMs = received.get(one.transaction.xid) ?? Number.NaN;
        passed.set(Number(one.key), { receivedAtMs, takenAtMs, capturedAtMs: atMs, writingAtMs: 0, journaledAtMs: 0, batch: 0 });
      }
    } else if (name === "journaling" || name === "journaled") {
      const { messages } = detail as { readonly messages: readonly Message[] };
      for (const { key } of messages) {
        const step = passed.get(Number(key));
        if (step === undefined) continue;
        if (name === "journaling") Object.assign(step, { writingAtMs: atMs, batch: messages.length });
        else step.journaledAtMs = atMs;
      }
    }
  };
  return { signal, passed };
}

/** No test waits for this one, so the flow has no point for it. */
function noteTake(note: () => void): void {
  const { take } = WalSource.prototype;
  WalSource.prototype.take = function (limit) {
    note();
    return take.call(this, limit);
  };
}
