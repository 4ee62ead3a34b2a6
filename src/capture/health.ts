/**
 * How the log is doing, as functions of values: how far capture is behind, how much of the log is kept for it, and how long until
 * PostgreSQL gives the slot up rather than its disk. A slot that fills a disk, and a lost one that loses changes in silence, are the
 * first complaints about every system of this kind.
 */

/** What the database says of the slot at one moment. */
export interface SlotFacts {
  readonly atMs: number;
  /** The end of the log. */
  readonly currentLsn: bigint;
  /** Up to where changes are journaled; undefined where the slot is gone, or was never read. */
  readonly confirmedLsn: bigint | undefined;
  /** From where the log is kept; undefined once it is lost. */
  readonly restartLsn: bigint | undefined;
  readonly isThere: boolean;
  readonly isActive: boolean;
  /** `pg_replication_slots.wal_status`. */
  readonly walStatus: string | undefined;
  /** From PostgreSQL 17 on. */
  readonly invalidationReason: string | undefined;
  /** What may still be written before the slot is lost; undefined without a bound. */
  readonly safeBytes: number | undefined;
  /** Transactions, also prepared ones, and what they hold back: the oldest that is visible to us. */
  readonly oldestTransaction: OldTransaction | undefined;
  /** What the tables of the outbox take with their indexes; undefined where the log is read. */
  readonly outboxBytes: number | undefined;
}

export interface OldTransaction {
  readonly ageS: number;
  /** Which, for people: by application and process, or by the name of a prepared one. */
  readonly who: string;
}

/**
 * - `missing`, `lost`: capture has ended. - `unreserved`: the next checkpoint ends it. - `extended`: beyond `max_wal_size`, and kept.
 * - `unused`: an outbox is read, and no slot.
 */
export type SlotState = "reserved" | "extended" | "unreserved" | "lost" | "missing" | "unused";

export interface SlotHealth {
  readonly state: SlotState;
  readonly invalidationReason: string | undefined;
  readonly isActive: boolean;
  /** Of the log that is not journaled. */
  readonly lagBytes: number;
  /** How old the oldest of that is. */
  readonly lagS: number;
  /** Of the log on disk for this slot: from the oldest transaction that was open at what is not journaled. */
  readonly keptBytes: number;
  readonly safeBytes: number | undefined;
  /** Until the bound is met if it goes on like this; undefined while it does not grow, or without a bound. */
  readonly secondsLeft: number | undefined;
  readonly oldestTransaction: OldTransaction | undefined;
  /** What the tables of the outbox take with their indexes; undefined where the log is read. */
  readonly outboxBytes: number | undefined;
}

/** The looks of the last minutes, oldest first. */
export type History = readonly SlotFacts[];

/** A rate is told by looks that are at most so far apart; what grew before says little of what grows now. */
const historyMs = 10 * 60_000;
/** @returns the looks to hand in with the next one */
export function remember(history: History, facts: SlotFacts): History {
  // What was not journaled at a look tells how old it is now, however long ago that was: the oldest such look stays.
  const confirmed = facts.confirmedLsn ?? 0n;
  const kept = history.filter((look) => look.currentLsn > confirmed || facts.atMs - look.atMs <= historyMs);
  return [...thinOut(kept, facts.atMs), facts];
}

/** A slot that stands for days must not fill the memory with looks: of the old ones one a minute is enough. */
function thinOut(history: History, nowMs: number): History {
  let lastMs = Number.NEGATIVE_INFINITY;
  const thinned = history.filter((look) => {
    const isKept = nowMs - look.atMs <= historyMs || look.atMs - lastMs >= 60_000;
    if (isKept) lastMs = look.atMs;
    return isKept;
  });
  return thinned.length <= mostLooks ? thinned : [thinned[0] as SlotFacts, ...thinned.slice(-mostLooks)];
}

const mostLooks = 1_000;

/**
 * @param history as `remember` returned it, with the present look at its end
 * @param leastRateMs below this a rate is a guess: PostgreSQL moves `restart_lsn` in steps
 */
export function computeHealth(history: History, leastRateMs = 20_000): SlotHealth | undefined {
  const now = history.at(-1);
  if (now === undefined) return undefined;
  const keptBytes = bytesBetween(now.restartLsn, now.currentLsn);
  return {
    state: stateOf(now),
    invalidationReason: now.invalidationReason,
    isActive: now.isActive,
    lagBytes: bytesBetween(now.confirmedLsn, now.currentLsn),
    lagS: computeLagS(history, now),
    keptBytes,
    safeBytes: now.safeBytes,
    secondsLeft: computeSecondsLeft(history, now, leastRateMs),
    oldestTransaction: now.oldestTransaction,
    outboxBytes: now.outboxBytes,
  };
}

function stateOf({ isThere, walStatus, restartLsn, invalidationReason, outboxBytes }: SlotFacts): SlotState {
  if (outboxBytes !== undefined) return "unused";
  if (!isThere) return "missing";
  if (walStatus === "lost" || invalidationReason !== undefined || restartLsn === undefined) return "lost";
  return walStatus === "unreserved" || walStatus === "extended" ? walStatus : "reserved";
}

/** The first look whose end of the log is not journaled yet says since when something waits. */
function computeLagS(history: History, now: SlotFacts): number {
  const confirmed = now.confirmedLsn;
  if (confirmed === undefined || confirmed >= now.currentLsn) return 0;
  const first = history.find((look) => look.currentLsn > confirmed);
  return first === undefined ? 0 : (now.atMs - first.atMs) / 1000;
}

function computeSecondsLeft(history: History, now: SlotFacts, leastRateMs: number): number | undefined {
  if (now.safeBytes === undefined || now.restartLsn === undefined) return undefined;
  if (now.safeBytes <= 0) return 0;
  const first = history.find((look) => look.restartLsn !== undefined && now.atMs - look.atMs <= historyMs);
  if (first === undefined || now.atMs - first.atMs < leastRateMs) return undefined;
  const grown = bytesBetween(now.restartLsn, now.currentLsn) - bytesBetween(first.restartLsn, first.currentLsn);
  if (grown <= 0) return undefined;
  return now.safeBytes / (grown / ((now.atMs - first.atMs) / 1000));
}

const bytesBetween = (from: bigint | undefined, to: bigint): number => (from === undefined || from > to ? 0 : Number(to - from));

/** What of it needs attention. */
export interface HealthProblem {
  readonly code:
    | "slot-lost"
    | "slot-near-its-bound"
    | "capture-behind"
    | "outbox-grows"
    | "vacuum-held-back"
    | "partition-identity"
    | "capture-unwatched";
  readonly message: string;
  readonly hint: string;
}

/** From where on something is a problem. */
export interface HealthLimits {
  readonly nearBoundS: number;
  readonly behindS: number;
  readonly behindBytes: number;
  readonly oldTransactionS: number;
  readonly largeOutboxBytes: number;
}

const usualLimits: HealthLimits = {
  nearBoundS: 3_600,
  behindS: 60,
  // An idle database that writes a checkpoint now and then is not behind.
  behindBytes: 16 * 1024 * 1024,
  oldTransactionS: 3_600,
  // Well above what it takes while it is read, also beside transactions that stay open (docs/decisions/0010).
  largeOutboxBytes: 64 * 1024 * 1024,
};

export function healthProblems(health: SlotHealth, given: Partial<HealthLimits> = {}): readonly HealthProblem[] {
  const { nearBoundS, behindS, behindBytes, oldTransactionS, largeOutboxBytes } = { ...usualLimits, ...given };
  const { state, secondsLeft, lagS, lagBytes, keptBytes, oldestTransaction, outboxBytes } = health;
  const problems: HealthProblem[] = [];
  if (state === "lost" || state === "missing") {
    problems.push({
      code: "slot-lost",
      message: `the replication slot is ${state}${health.invalidationReason === undefined ? "" : ` (${health.invalidationReason})`}.`,
      hint: 'Changes are not seen. Run "ancrage slot status", then "ancrage slot recreate".',
    });
  }
  if (state === "unreserved" || (secondsLeft !== undefined && secondsLeft < nearBoundS)) {
    const left = state === "unreserved" ? "with the next checkpoint" : `in about ${formatDuration(secondsLeft ?? 0)}`;
    problems.push({
      code: "slot-near-its-bound",
      message: `PostgreSQL keeps ${formatBytes(keptBytes)} of its log for the replication slot, and gives the slot up ${left}: changes that were not read are then lost.`,
      hint: "Find what holds capture up (the other problems, the log), or raise max_slot_wal_keep_size and reload, if the disk allows it.",
    });
  }
  if (lagS > behindS && lagBytes > behindBytes) {
    problems.push({
      code: "capture-behind",
      message: `capture is ${formatBytes(lagBytes)} and ${formatDuration(lagS)} behind the end of the log.`,
      hint: "A large transaction passes by itself. Else the journal refuses batches, payloads are slow, or the machine is too small.",
    });
  }
  if (outboxBytes !== undefined && outboxBytes > largeOutboxBytes) {
    problems.push({
      code: "outbox-grows",
      message: `the outbox takes ${formatBytes(outboxBytes)}: changes are written faster than they are read, or are not read.`,
      hint: "It is emptied as it is read. A large transaction passes by itself. Else capture has stopped, the journal refuses batches, payloads are slow, or the machine is too small.",
    });
  }
  if (oldestTransaction !== undefined && oldestTransaction.ageS > oldTransactionS) {
    problems.push({
      code: "vacuum-held-back",
      message: `${oldestTransaction.who} has been open for ${formatDuration(oldestTransaction.ageS)}: vacuum cleans up nothing that came after, and the log is kept from its beginning.`,
      hint: "End it (select pg_terminate_backend(<pid>), or rollback prepared '<name>'), and set idle_in_transaction_session_timeout.",
    });
  }
  return problems;
}

export function formatBytes(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit] ?? ""}`;
}

export function formatDuration(seconds: number): string {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3_600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}
