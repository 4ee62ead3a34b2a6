/**
 * Committed is not yet visible: PostgreSQL streams a commit before other sessions can see it, and with an absent synchronous
 * standby the change arrives while its writer still waits. A change leaves capture only when its transaction is visible.
 */

/** What `pg_current_snapshot()` says, with full (64-bit) transaction ids. */
export interface Snapshot {
  /** All before this one are over. */
  readonly xmin: bigint;
  /** This one, and all after it, had not begun. */
  readonly xmax: bigint;
  /** Those between that are in progress. */
  readonly inProgress: ReadonlySet<bigint>;
}

/** @param text such as `795:799:795,797` */
export function parseSnapshot(text: string): Snapshot {
  const match = /^(\d+):(\d+):([\d,]*)$/.exec(text);
  if (match === null) throw new RangeError(`expected a snapshot such as "795:799:795,797", got ${JSON.stringify(text)}`);
  const [, xmin = "", xmax = "", list = ""] = match;
  return { xmin: BigInt(xmin), xmax: BigInt(xmax), inProgress: new Set(list === "" ? [] : list.split(",").map(BigInt)) };
}

/** @param xid as the log has it: 32 bits, without its epoch */
export function isVisible(xid: number, snapshot: Snapshot): boolean {
  const full = widenXid(xid, snapshot.xmax);
  if (full < snapshot.xmin) return true;
  return full < snapshot.xmax && !snapshot.inProgress.has(full);
}

/** Gives an xid the epoch that puts it nearest to `reference`: two that are alive at once are less than 2^31 apart. */
export function widenXid(xid: number, reference: bigint): bigint {
  const candidate = (reference & ~0xffff_ffffn) | BigInt(xid >>> 0);
  if (candidate - reference > 0x7fff_ffffn) return candidate - 0x1_0000_0000n;
  if (reference - candidate > 0x8000_0000n) return candidate + 0x1_0000_0000n;
  return candidate;
}
