import type { Entry, EventName, State, Update } from "./model-log.ts";

/** What the test knows beside the log. */
export interface Facts {
  /** Attempts of the retry schedule. */
  readonly attempts: number;
  /** By message id, what its body says; what was never committed has none. */
  readonly notes: ReadonlyMap<string, number>;
}

/** A delivery, as the model has it. */
export interface ModelDelivery {
  readonly note: number;
  readonly sub: string;
  /** Whether it must be there; where its subscription may have been deleted or disabled already, it only may be. */
  isOwed: boolean;
  /** Where it may stand; one of them, but after a kill or while somebody ends it or begins it anew. */
  possible: readonly State[];
  /** Where its row may stand. */
  saved: readonly State[];
  /** What `saved` becomes if the batch under way is taken. */
  saving: readonly State[] | undefined;
  isSending: boolean;
  /** A cancellation is under way. */
  isCanceling: boolean;
  /** It was ended, or begun anew, from outside since its last attempt began: that one's outcome may come late. */
  isOvertaken: boolean;
  /** Its subscription was changed since its last attempt began: what that one is answered says nothing of it as it is now. */
  isOutdated: boolean;
  /** When its next attempt is due, and when that is by its row; undefined: nobody knows, or at once. */
  dueAtMs: number | undefined;
  savedDueAtMs: number | undefined;
  /** Where it has ever stood, by how that is shown. */
  readonly passed: Map<string, State>;
}

interface ModelSubscription {
  readonly event: EventName;
  readonly order: "none" | "record" | "all";
  /** Whether what is committed now is for it. */
  covers: "yes" | "maybe" | "no";
  /** Why nothing may begin. `gone`: it was answered 410, which may not have been written down yet; `disabled`: its row says so. */
  stop: "paused" | "deleted" | "gone" | "disabled" | undefined;
  isDeleted: boolean;
  /** It is being changed: an attempt that begins meanwhile may be one of before. */
  isChanging: boolean;
  /** It asked to be left alone until then, of the process that runs. */
  heldFromMs: number;
  heldUntilMs: number;
}

export interface Judged {
  readonly faults: readonly string[];
  /** By subscription and note. */
  readonly deliveries: ReadonlyMap<string, ModelDelivery>;
}

const isOver = ({ state }: State): boolean => state !== "pending" && state !== "retrying";
const isOpen = (one: State): boolean => !isOver(one);
const show = ({ state, round, attempts }: State): string => `${state} ${round}/${attempts}`;
const showAll = (all: readonly State[]): string => all.map(show).join(" or ");
const isFrom = (state: State, { round }: State, from: NonNullable<Update["from"]>): boolean =>
  state.round === round && state.state === from.state && state.attempts === from.attempts;
const union = (...all: readonly (readonly State[])[]): readonly State[] => [...new Map(all.flat().map((one) => [show(one), one])).values()];
const ended = (all: readonly State[]): readonly State[] => all.filter(isOpen).map((one) => ({ ...one, state: "canceled" }));
const begun = (all: readonly State[]): readonly State[] => {
  const round = Math.max(...all.map((one) => one.round)) + 1;
  return [{ state: "pending", round, attempts: 0 }];
};
/** Between a receiver's answer and the moment when it is heard of, the next request may be written. */
const heldToleranceMs = 100;
/** By how much our estimate of the database's clock may be wrong where the machine is very busy; the last delay of the test is longer. */
const clockToleranceMs = 250;

/**
 * THE MODEL: what each delivery may be, from what was done, and what the system must not have done.
 *
 * It knows nothing of lanes, batches' contents or time: a delivery stands somewhere, one attempt at a time moves it on, what was
 * journaled survives a kill, and what was not is as if it had not been.
 */
export function judge(entries: readonly Entry[], { attempts: mostAttempts, notes }: Facts): Judged {
  const faults: string[] = [];
  const deliveries = new Map<string, ModelDelivery>();
  const subscriptions = new Map<string, ModelSubscription>();
  const bySubscription = new Map<string, ModelDelivery[]>();
  const keys = new Map<number, string>();
  /** Changes of the transaction that is being committed. */
  let committing: ReadonlySet<number> = new Set();
  const begunAtMs = new Map<ModelDelivery, number>();
  let number = 0;
  const fault = (words: string): void => void faults.push(`${number}: ${words}`);

  /** Of a subscription of an earlier run, whose last outcomes may come late. */
  const isForeign = ({ sub }: Update): boolean => !subscriptions.has(sub);

  const find = (sub: string, message: string): ModelDelivery | undefined => {
    const note = notes.get(message);
    const found = note === undefined ? undefined : deliveries.get(`${sub} ${note}`);
    if (found === undefined) fault(`${message} (${note ?? "never committed"}) is not for ${sub}`);
    return found;
  };
  const name = ({ sub, note }: ModelDelivery): string => `${note} for ${sub}`;

  const stand = (one: ModelDelivery, possible: readonly State[]): void => {
    one.possible = possible;
    for (const state of possible) one.passed.set(show(state), state);
  };
  const after = ({ round, attempts }: State, isSuccess: boolean): State => {
    const number = attempts + 1;
    return { state: isSuccess ? "delivered" : number >= mostAttempts ? "exhausted" : "retrying", round, attempts: number };
  };

  /** What of the possible an attempt may start from. */
  const begin = (one: ModelDelivery, subscription: ModelSubscription, attempt: number): void => {
    if (one.isSending) fault(`${name(one)}: two attempts at once`);
    const from = one.possible.filter((state) => isOpen(state) && state.attempts === attempt - 1);
    if (from.length === 0) fault(`${name(one)}: attempt ${attempt} begins, but it is ${showAll(one.possible)}`);
    else stand(one, one.isCanceling ? union(from, ended(from)) : from);
    one.isSending = true;
    one.isOvertaken = one.isCanceling;
    one.isOutdated = subscription.isChanging;
    if (subscription.order === "none") return;
    const key = keys.get(one.note);
    for (const earlier of bySubscription.get(one.sub) ?? []) {
      if (earlier.note >= one.note || !earlier.isOwed) continue;
      if (subscription.order === "record" && keys.get(earlier.note) !== key) continue;
      // What is begun anew by hand has lost its place.
      if (earlier.possible.every((state) => isOpen(state) && state.round === 1))
        fault(`${name(one)} begins before ${earlier.note} is over`);
    }
  };

  const finish = (one: ModelDelivery, { after: found, isSuccess, status, reason, dueAtMs }: Entry & { readonly e: "finish" }): void => {
    one.isSending = false;
    const isTaken = status !== null && status >= 200 && status < 300;
    if (isSuccess ? !isTaken : isTaken && reason === "status")
      fault(`${name(one)}: ${status} counts as a ${isSuccess ? "success" : "failure"}`);
    if (found === null) {
      if (!one.isOvertaken) fault(`${name(one)}: an outcome is late, but nobody touched it`);
      // Kept as late; its row is written only where the delivery is what the attempt began from.
      for (const state of [...one.passed.values()].filter(isOpen)) {
        const late = after(state, isSuccess);
        one.passed.set(show(late), late);
      }
      return;
    }
    const from = one.possible.filter((state) => isOpen(state) && show(after(state, isSuccess)) === show(found));
    if (from.length === 0) fault(`${name(one)}: ${showAll(one.possible)} became ${show(found)}`);
    one.dueAtMs = dueAtMs ?? undefined;
    stand(one, one.isCanceling ? union([found], ended([found]), ended(from), one.saved.filter(isOver)) : [found]);
  };

  const applyUpdate = (all: readonly State[], { row, from }: Update): readonly State[] =>
    all.map((state) => (from === null || isFrom(state, row, from) ? row : state));

  const each = (sub: string, change: (one: ModelDelivery) => void): void => bySubscription.get(sub)?.forEach(change);
  const startCanceling = (one: ModelDelivery): void => {
    one.isCanceling = true;
    one.isOvertaken = true;
    // An outcome that is not journaled yet comes too late: its row is ended as it is.
    stand(one, union(one.possible, ended(one.possible), ended(one.saved)));
    one.saved = union(one.saved, ended(one.saved));
  };

  for (const entry of entries) {
    number++;
    if (entry.e === "committed") {
      committing = new Set();
    } else if (entry.e === "committing") {
      committing = new Set(entry.changes.map(({ note }) => note));
      for (const { note, event, key } of entry.changes) {
        keys.set(note, key);
        for (const [sub, { covers, event: wanted, isDeleted }] of subscriptions) {
          if (covers === "no" || event !== wanted) continue;
          const first: State = { state: "pending", round: 1, attempts: 0 };
          const one: ModelDelivery = {
            note,
            sub,
            isOwed: covers === "yes",
            possible: [first],
            saved: [first],
            saving: undefined,
            isSending: false,
            isCanceling: false,
            isOvertaken: false,
            isOutdated: false,
            dueAtMs: undefined,
            savedDueAtMs: undefined,
            passed: new Map([[show(first), first]]),
          };
          if (isDeleted) startCanceling(one);
          deliveries.set(`${sub} ${note}`, one);
          bySubscription.set(sub, [...(bySubscription.get(sub) ?? []), one]);
        }
      }
    } else if (entry.e === "created") {
      subscriptions.set(entry.sub, {
        event: entry.event,
        order: entry.order,
        covers: "yes",
        stop: undefined,
        isDeleted: false,
        isChanging: false,
        heldFromMs: Infinity,
        heldUntilMs: 0,
      });
    } else if (entry.e === "journaling") {
      const touched = new Map<ModelDelivery, readonly State[]>();
      for (const update of entry.updates) {
        if (isForeign(update)) continue;
        const one = find(update.sub, update.message);
        if (one === undefined) continue;
        if (!one.passed.has(show(update.row))) fault(`${name(one)}: ${show(update.row)} is journaled, but it is ${showAll(one.possible)}`);
        touched.set(one, applyUpdate(touched.get(one) ?? one.saved, update));
      }
      for (const [one, saving] of touched) one.saving = saving;
    } else if (entry.e === "journaled") {
      for (const update of entry.updates) {
        if (isForeign(update)) continue;
        const one = find(update.sub, update.message);
        if (one === undefined) continue;
        const written = applyUpdate(one.saved, update);
        // A row that the journal had in its hands is passed over, and ended by the next look.
        one.saved = one.isCanceling ? union(written, ended(one.saved), ended(written)) : written;
        one.saving = undefined;
        if (one.saved.some((state) => show(state) === show(update.row))) one.savedDueAtMs = update.dueAtMs ?? undefined;
      }
    } else if (entry.e === "killed" || entry.e === "ended") {
      for (const one of deliveries.values()) {
        if (entry.e === "ended" && one.isSending) fault(`${name(one)}: it was in flight at the end`);
        else if (entry.e === "ended" && !one.possible.some((state) => one.saved.some((row) => show(row) === show(state))))
          fault(`${name(one)}: it was ${showAll(one.possible)} at the end, its row says ${showAll(one.saved)}`);
        one.dueAtMs = one.saving === undefined ? one.savedDueAtMs : undefined;
        one.savedDueAtMs = one.dueAtMs;
        one.saved = union(one.saved, one.saving ?? [], one.isCanceling ? ended(one.saving ?? []) : []);
        one.saving = undefined;
        one.possible = one.saved;
        one.isSending = false;
      }
      for (const subscription of subscriptions.values()) {
        subscription.heldFromMs = Infinity;
        subscription.heldUntilMs = 0;
        // A process that is killed may not have written it down.
        if (entry.e === "killed" && subscription.stop === "gone") subscription.stop = undefined;
      }
    } else if (entry.e === "begin" || entry.e === "finish") {
      const subscription = subscriptions.get(entry.sub);
      if (subscription === undefined) {
        if (entry.e === "begin") fault(`${entry.message} is sent to ${entry.sub}, which was deleted`);
        continue;
      }
      const one = find(entry.sub, entry.message);
      if (one === undefined) continue;
      if (entry.e === "begin") {
        if (subscription.stop !== undefined) fault(`${name(one)} begins although it is ${subscription.stop}`);
        const { heldFromMs, heldUntilMs } = subscription;
        if (entry.atMs > heldFromMs + heldToleranceMs && entry.atMs < heldUntilMs - 1)
          fault(`${name(one)} begins ${Math.round(heldUntilMs - entry.atMs)} ms before Retry-After is over`);
        if (one.dueAtMs !== undefined && entry.atMs < one.dueAtMs - clockToleranceMs)
          fault(`${name(one)} begins ${Math.round(one.dueAtMs - entry.atMs)} ms before it is due`);
        begunAtMs.set(one, entry.atMs);
        begin(one, subscription, entry.number);
      } else {
        // Nothing was written: there was no connection to write it to.
        if (!one.isSending && entry.after !== null) begin(one, subscription, entry.after.attempts);
        finish(one, entry);
        if (entry.holdMs > 0) {
          // It was answered after it was begun, and before its end was written down, which on a busy machine may be later.
          const untilMs = (begunAtMs.get(one) ?? 0) + entry.holdMs;
          if (entry.atMs >= subscription.heldUntilMs) subscription.heldFromMs = entry.atMs;
          subscription.heldUntilMs = Math.max(subscription.heldUntilMs, untilMs);
        }
        if (entry.status === 410 && !subscription.isDeleted) {
          if (!one.isOutdated) subscription.stop ??= "gone";
          subscription.covers = "maybe";
          // What is committed just now may come after its end.
          each(entry.sub, (other) => {
            if (committing.has(other.note)) other.isOwed = false;
          });
        }
      }
    } else if (entry.e === "resending" || entry.e === "resent" || entry.e === "not-resent") {
      const one = find(entry.sub, entry.message);
      if (one === undefined) continue;
      const anew = begun(one.possible);
      if (entry.e === "resending") {
        one.isOvertaken = true;
        [one.dueAtMs, one.savedDueAtMs] = [undefined, undefined];
        stand(one, union(one.possible, anew));
        one.saved = union(one.saved, anew);
      } else {
        const round = Math.max(...one.possible.map((state) => state.round));
        const isMeant = (state: State): boolean => (state.round === round) === (entry.e === "resent");
        // It may have been tried since.
        one.possible = one.possible.filter(isMeant);
        one.saved = one.saved.filter(isMeant);
        if (one.saved.length === 0) one.saved = one.possible;
      }
    } else if (entry.e === "over") {
      const one = find(entry.sub, entry.message);
      if (one === undefined) continue;
      one.possible = one.possible.filter(({ state }) => state === "canceled");
      if (one.possible.length === 0) fault(`${name(one)}: its row is canceled, but nobody did that`);
      one.saved = one.possible;
      one.saving = undefined;
    } else if (entry.e === "canceling") {
      each(entry.sub, startCanceling);
    } else if (entry.e === "canceled" || entry.e === "not-canceled") {
      each(entry.sub, (one) => {
        if (!one.isCanceling) return;
        one.isCanceling = subscriptions.get(entry.sub)?.isDeleted === true;
        if (entry.e === "not-canceled") return;
        one.possible = one.possible.filter(isOver);
        one.saved = union(one.saved.filter(isOver), one.possible);
        one.saving = undefined;
      });
    } else if ("sub" in entry) {
      const subscription = subscriptions.get(entry.sub);
      if (subscription === undefined) continue;
      if (entry.e === "expiring" || entry.e === "resuming" || entry.e === "resumed") {
        each(entry.sub, (one) => (one.isOutdated = true));
        subscription.isChanging = entry.e !== "resumed";
      }
      if (entry.e === "paused") subscription.stop ??= "paused";
      else if (entry.e === "expiring") {
        subscription.covers = "maybe";
        // What changes a subscription overtakes its end by an answer of 410.
        if (subscription.stop === "gone") subscription.stop = undefined;
      } else if (entry.e === "disabled") {
        subscription.covers = "no";
        subscription.stop = "disabled";
      } else if (entry.e === "resuming") subscription.stop = undefined;
      else if (entry.e === "resumed") {
        subscription.heldFromMs = Infinity;
        subscription.heldUntilMs = 0;
        subscription.covers = "yes";
      } else if (entry.e === "deleting") {
        subscription.isDeleted = true;
        subscription.covers = "maybe";
        each(entry.sub, startCanceling);
      } else if (entry.e === "deleted") {
        subscription.stop = "deleted";
        subscription.covers = "no";
      }
    }
  }
  return { faults, deliveries };
}
