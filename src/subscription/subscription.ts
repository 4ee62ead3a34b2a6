import { createHash, randomBytes } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import type pg from "pg";
import { createId } from "../create-id.ts";
import { AncrageError } from "../errors.ts";
import type { Format } from "../format.ts";
import { readIdempotencyKey, takeIdempotencyKey } from "../store/idempotency-keys.ts";
import { dropSubscriptionHealth } from "../store/subscription-health.ts";
import {
  deleteSubscription,
  emitSubscriptionMark,
  insertSubscription,
  listSubscriptions,
  readSubscriptionOf,
  setSubscriptionSecrets,
  setSubscriptionState,
  updateSubscription,
  type Limits,
  type SubscriptionFilter,
  type SubscriptionRow,
} from "../store/subscriptions.ts";
import { checkSubscriptionPatch, fieldsOf } from "./check-patch.ts";
import { checkSubscription, describeUnknownEvent, type UrlRules } from "./check-subscription.ts";
import type { Fault } from "./fault.ts";
import type { FilterSpec } from "./filter.ts";
import { checkRotation, rotateSecrets, type Rotation } from "./rotate.ts";
import { createSecret, formatSecret, openSecrets, sealSecret, type SecretKey } from "./secret.ts";
import { nextState, type StateCommand } from "./state.ts";
import { openHeaders, sealHeaders } from "./sealed-headers.ts";
import { changeSubscription, startAnew, writeSubscription } from "./write.ts";

/** What `create` takes. Exactly one of `event` and `events`, and of `url` and `target_url`, is needed. */
export interface NewSubscription {
  readonly event?: string;
  readonly events?: readonly string[];
  readonly url?: string;
  readonly target_url?: string;
  readonly description?: string;
  /** Default `standard`. */
  readonly format?: Format;
  /** Which payloads it wants; default: all. */
  readonly filter?: FilterSpec | null;
  /** Sent with every request, such as the receiver's own credentials. No answer shows their values. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Whether what failed holds back what comes after it, of its record or of all. Default `none`. */
  readonly order?: SubscriptionRow["order"];
  /** How much the receiver takes at most. */
  readonly limits?: Limits;
  /** Changes that they made, as `ancrage.actor` says, are not sent to it: how a subscriber does without its own echo. */
  readonly ignoredActors?: readonly string[];
  /** ISO 8601 with its zone. From then on nothing is sent. */
  readonly expiresAt?: string | null;
  /** Whatever the caller wants to find again here: at most 8,192 characters of JSON. */
  readonly metadata?: Readonly<Record<string, unknown>>;
  /** Default `default`. */
  readonly project?: string;
  /** `whsec_` and the base64 of 24 to 64 bytes. Default: new random bytes. */
  readonly secret?: string;
}

/** What `update` takes: a merge patch (RFC 7396). `null` sets a field to its default. */
export type SubscriptionPatch = {
  readonly [Name in Exclude<keyof NewSubscription, "project" | "secret">]?: NewSubscription[Name] | null;
};

/** The functions that the routes call, and that a program may call itself. `project` undefined means any project. */
export interface SubscriptionService {
  /**
   * Binds events to a URL. What is committed after this is sent there, what was committed before it is not.
   *
   * @example
   * ```ts
   * const { subscription, secret } = await ancrage.subscriptions.create({ event: "NewOpportunity", url: "https://example.com/hook" });
   * ```
   * With an `idempotencyKey` whoever repeats this within a day gets the subscription that was made the first time.
   *
   * @returns the row, and the secret that no row shows
   * @throws AncrageError `ANCRAGE_SUBSCRIPTION_INVALID`; `subscriptionFaults` lists what is wrong with it; `ANCRAGE_SUBSCRIPTION_STATE` where
   * what the key made was deleted since
   */
  create(input: NewSubscription, options?: { readonly idempotencyKey?: string | undefined }): Promise<CreatedSubscription>;
  /** Undefined where there is none, where it was deleted, or where it is another project's. */
  get(id: string, project?: string): Promise<SubscriptionRow | undefined>;
  /**
   * The secret that signs now, as `whsec_…`. Undefined as for `get`.
   *
   * @throws AncrageError `ANCRAGE_SECRET_KEY_INVALID` where another key sealed it
   */
  secret(id: string, project?: string): Promise<string | undefined>;
  /** Newest first, without the deleted ones. */
  list(filter: SubscriptionFilter): Promise<readonly SubscriptionRow[]>;
  /**
   * Changes what is given, and nothing else. What is committed from then on is matched by the new events and filter; all else counts
   * once this resolves.
   *
   * @example
   * ```ts
   * await ancrage.subscriptions.update(id, { filter: { amount: { gte: 1000 } }, description: null });
   * ```
   * @returns undefined as for `get`
   * @throws AncrageError `ANCRAGE_SUBSCRIPTION_INVALID`; `subscriptionFaults` lists what is wrong with it; `ANCRAGE_SECRET_KEY_INVALID`
   * where another key sealed its headers
   */
  update(id: string, patch: SubscriptionPatch, project?: string): Promise<SubscriptionRow | undefined>;
  /**
   * From now on its messages are journaled and wait. Once this resolves no request to its URL begins: in this process at once, in
   * another one that leads within the 5 s for which this waits at most; where that one says nothing, this throws although it is paused.
   *
   * @throws AncrageError `ANCRAGE_SUBSCRIPTION_STATE` where it is disabled; `ANCRAGE_CHANGE_UNHEEDED`, as each change may: repeat it
   */
  pause(id: string, project?: string): Promise<SubscriptionRow | undefined>;
  /**
   * What waits since it was paused is sent, and what comes.
   *
   * @throws AncrageError `ANCRAGE_SUBSCRIPTION_STATE` where it is disabled, or has expired
   */
  resume(id: string, project?: string): Promise<SubscriptionRow | undefined>;
  /**
   * Ends what disabled or paused it. What waits from before it was disabled is sent; what was committed while it was is not.
   *
   * @throws AncrageError `ANCRAGE_SUBSCRIPTION_STATE` where it has expired
   */
  enable(id: string, project?: string): Promise<SubscriptionRow | undefined>;
  /**
   * Gives it a new secret. Both sign for `graceHours` (0 to 168, default 24), so that the receiver changes over when it can.
   *
   * @returns the row and the new secret
   * @throws AncrageError `ANCRAGE_SUBSCRIPTION_INVALID`, and `ANCRAGE_SECRET_KEY_INVALID` where another key sealed the present one
   */
  rotateSecret(id: string, rotation?: Rotation, project?: string): Promise<CreatedSubscription | undefined>;
  /**
   * Sends one signed message at once, with a sample of `event` (default: its first one), whatever its state is. Nothing of it is
   * journaled. The request has the header `ancrage-test: true`, and an id of its own.
   *
   * @returns what came of it; undefined as for `get`
   * @throws AncrageError `ANCRAGE_SUBSCRIPTION_INVALID` where there is no such event, `ANCRAGE_SAMPLE_NONE`
   */
  test(id: string, options?: { readonly event?: string | undefined }, project?: string): Promise<TestResult | undefined>;
  /**
   * Ends a subscription. Once this resolves no request to its URL begins, as for `pause`.
   *
   * @returns the row, also where it was deleted before; undefined where there never was one, or it is another project's
   */
  delete(id: string, project?: string): Promise<SubscriptionRow | undefined>;
}

/** What came of a test. */
export interface TestResult {
  readonly messageId: string;
  readonly event: string;
  readonly isDelivered: boolean;
  /** Where an answer came. */
  readonly status: number | undefined;
  /** Why it failed: a reason of `deliver/outcome.ts`. */
  readonly reason: string | undefined;
  readonly durationMs: number;
  /** The answer's first bytes, or what its owner is to mend. */
  readonly response: Buffer | undefined;
}

interface CreatedSubscription {
  readonly subscription: SubscriptionRow;
  /** `whsec_…` */
  readonly secret: string;
}

export interface SubscriptionServiceOptions {
  readonly db: pg.Pool;
  readonly secretKey: SecretKey;
  /** The names of all events, as they are now. */
  readonly events: () => Iterable<string>;
  readonly url?: UrlRules;
  /** Called after each committed change, and awaited before the caller hears of it: whoever sends takes the row here. */
  readonly onChanged?: (row: SubscriptionRow) => Promise<void> | void;
  /** Sends a sample of an event to a subscription. */
  readonly sendTest?: (row: SubscriptionRow, event: string) => Promise<TestResult>;
  readonly nowMs?: () => number;
}

export function createSubscriptionService(options: SubscriptionServiceOptions): SubscriptionService {
  const { db, secretKey } = options;
  const nowMs = options.nowMs ?? Date.now;
  const rules = () => ({ events: options.events(), url: options.url ?? {}, nowMs: nowMs() });
  const changed = async (row: SubscriptionRow): Promise<SubscriptionRow> => {
    await options.onChanged?.(row);
    return row;
  };
  /** Also for what was so before: whoever repeats a request whose answer was lost must get the same promise. */
  const answer = async (row: SubscriptionRow | undefined): Promise<SubscriptionRow | undefined> =>
    row === undefined || row.state === "deleted" ? undefined : changed(row);

  const command = async (id: string, project: string | undefined, name: StateCommand): Promise<SubscriptionRow | undefined> => {
    const row = await changeSubscription(db, { id, project }, async (found, client) => {
      if (found.state === "deleted") return undefined;
      const state = nextState(found, name, nowMs());
      if (state === found.state) return undefined;
      const startsAnew = found.state === "disabled";
      if (startsAnew) {
        await startAnew(client, id);
        await dropSubscriptionHealth(client, id);
      }
      return setSubscriptionState(client, { id, state, reason: null, startsAnew });
    });
    return answer(row);
  };

  /** What the first request with a key made. */
  const madeBefore = async (project: string, key: string, requestHash: Buffer): Promise<CreatedSubscription> => {
    const before = await readIdempotencyKey(db, project, key);
    const row = before === undefined ? undefined : await readSubscriptionOf(db, before.madeId, project);
    if (before === undefined || row === undefined) throw new Error(`expected what the idempotency key ${key} made, got nothing`);
    if (!before.requestHash.equals(requestHash)) {
      const detail = `the idempotency key ${JSON.stringify(key)} was sent with another request; expected the same one, or another key`;
      throw refusedSubscription("made", [{ pointer: "", detail }]);
    }
    if (row.state === "deleted") {
      const detail = `the subscription ${row.id}, which the idempotency key ${JSON.stringify(key)} made, was deleted since.`;
      throw new AncrageError("ANCRAGE_SUBSCRIPTION_STATE", detail, { hint: "Send the request with another key to make another one." });
    }
    const [secret = createSecret()] = openSecrets(secretKey, row, new Date(nowMs()));
    return { subscription: row, secret: formatSecret(secret) };
  };

  return {
    async create(input, { idempotencyKey: key } = {}) {
      const checked = checkSubscription(input, rules());
      if (checked.kind === "refused") throw refusedSubscription("made", checked.faults);
      const { secret = createSecret(), project = "default", headers, ...fields } = checked.value;
      const at = nowMs();
      const id = createId("sub_", at, randomBytes(10));
      const owner = { project, id };
      const sealed = sealSecret(secretKey, owner, secret, new Date(at));
      const requestHash = createHash("sha256").update(JSON.stringify(checked.value)).digest();
      const subscription = await writeSubscription(db, async (client) => {
        if (key !== undefined && !(await takeIdempotencyKey(client, { project, key, requestHash, madeId: id }))) return undefined;
        const row = await insertSubscription(client, {
          ...fields,
          ...owner,
          headers: sealHeaders(secretKey, owner, headers),
          secrets: [sealed],
        });
        await emitSubscriptionMark(client, row);
        return row;
      });
      if (subscription === undefined) return madeBefore(project, key ?? "", requestHash);
      return { subscription: await changed(subscription), secret: formatSecret(secret) };
    },

    async update(id, patch, project) {
      const row = await changeSubscription(db, { id, project }, async (found, client) => {
        if (found.state === "deleted") return undefined;
        const present = { ...found, headers: openHeaders(secretKey, found) };
        const checked = checkSubscriptionPatch(present, patch, rules());
        if (checked.kind === "refused") throw refusedSubscription("changed", checked.faults);
        const fields = checked.value;
        if (isDeepStrictEqual(fields, fieldsOf(present))) return undefined;
        const startsAnew = !isDeepStrictEqual([fields.events, fields.filter], [found.events, found.filter]);
        if (startsAnew) await startAnew(client, id);
        const headers = sealHeaders(secretKey, found, fields.headers);
        return updateSubscription(client, { id, fields: { ...fields, headers }, startsAnew });
      });
      return answer(row);
    },

    pause: (id, project) => command(id, project, "pause"),
    resume: (id, project) => command(id, project, "resume"),
    enable: (id, project) => command(id, project, "enable"),

    async test(id, { event: asked } = {}, project) {
      const row = await readSubscriptionOf(db, id, project);
      if (row === undefined || row.state === "deleted") return undefined;
      const event = asked ?? row.events[0] ?? "";
      const known = [...options.events()];
      if (!known.includes(event)) throw refusedSubscription("tested", [{ pointer: "/event", detail: describeUnknownEvent(event, known) }]);
      if (options.sendTest === undefined) throw new Error("expected something to send a test with, got nothing");
      return options.sendTest(row, event);
    },

    async rotateSecret(id, rotation = {}, project) {
      const checked = checkRotation(rotation);
      if (checked.kind === "refused") throw refusedSubscription("changed", checked.faults);
      const { secret = createSecret(), graceHours } = checked.value;
      const row = await changeSubscription(db, { id, project }, async (found, client) => {
        if (found.state === "deleted") return undefined;
        const now = new Date(nowMs());
        // One that does not open here cannot sign beside the new one: better refused than a receiver that takes nothing for a day.
        openSecrets(secretKey, found, now);
        const secrets = rotateSecrets(found.secrets, sealSecret(secretKey, found, secret, now), { graceHours, now });
        return setSubscriptionSecrets(client, id, secrets);
      });
      try {
        const subscription = await answer(row);
        return subscription === undefined ? undefined : { subscription, secret: formatSecret(secret) };
      } catch (error) {
        // It is told here alone, and asked for again there would be another one: whoever leads will sign with it when it heeds it.
        if (row === undefined || !(error instanceof AncrageError) || error.code !== "ANCRAGE_CHANGE_UNHEEDED") throw error;
        return { subscription: row, secret: formatSecret(secret) };
      }
    },

    async get(id, project) {
      const row = await readSubscriptionOf(db, id, project);
      // Deleted is gone: a client that asks whether its subscription is still there (n8n at each start) must make a new one.
      return row?.state === "deleted" ? undefined : row;
    },

    async secret(id, project) {
      const row = await readSubscriptionOf(db, id, project);
      if (row === undefined || row.state === "deleted") return undefined;
      const [newest] = openSecrets(secretKey, row, new Date(nowMs()));
      return newest === undefined ? undefined : formatSecret(newest);
    },

    list: (filter) => listSubscriptions(db, filter),

    async delete(id, project) {
      const row = await changeSubscription(db, { id, project }, (found, client) =>
        found.state === "deleted" ? undefined : deleteSubscription(client, id),
      );
      return row === undefined ? undefined : changed(row);
    },
  };
}

function refusedSubscription(done: "made" | "changed" | "tested", faults: readonly Fault[]): AncrageError {
  const list = faults.map((fault) => (fault.pointer === "" ? fault.detail : `${fault.pointer.slice(1)}: ${fault.detail}`)).join("\n  ");
  return new AncrageError("ANCRAGE_SUBSCRIPTION_INVALID", `the subscription cannot be ${done}:\n  ${list}`, {
    hint: "Correct what is listed and send it again.",
    cause: faults,
  });
}

/** What is wrong with the input that made `create`, `update`, `test` or `rotateSecret` throw; undefined for every other error. */
export function subscriptionFaults(error: unknown): readonly Fault[] | undefined {
  if (!(error instanceof AncrageError) || error.code !== "ANCRAGE_SUBSCRIPTION_INVALID") return undefined;
  return error.cause as readonly Fault[];
}
