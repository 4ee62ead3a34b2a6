import { randomBytes } from "node:crypto";
import type pg from "pg";
import { AncrageError } from "../errors.ts";
import type { Format } from "../format.ts";
import { inPoolTransaction } from "../store/database.ts";
import {
  deleteSubscription,
  emitSubscriptionMark,
  insertSubscription,
  listSubscriptions,
  lockSubscription,
  readSubscriptionOf,
  type SubscriptionFilter,
  type SubscriptionRow,
} from "../store/subscriptions.ts";
import { checkSubscription, type Fault, type UrlRules } from "./check-subscription.ts";
import { createSecret, formatSecret, openSecrets, sealSecret, type SecretKey } from "./secret.ts";

/** What `create` takes. Exactly one of `event` and `events`, and of `url` and `target_url`, is needed. */
export interface NewSubscription {
  readonly event?: string;
  readonly events?: readonly string[];
  readonly url?: string;
  readonly target_url?: string;
  readonly description?: string;
  /** Default `standard`. */
  readonly format?: Format;
  /** Whatever the caller wants to find again here: at most 8,192 characters of JSON. */
  readonly metadata?: Readonly<Record<string, unknown>>;
  /** Default `default`. */
  readonly project?: string;
  /** `whsec_` and the base64 of 24 to 64 bytes. Default: new random bytes. */
  readonly secret?: string;
}

/** The functions that the routes call, and that a program may call itself. `project` undefined means any project. */
export interface SubscriptionService {
  /**
   * Binds events to a URL. What is committed after this is sent there, what was committed before it is not.
   *
   * @example
   * ```ts
   * const { subscription, secret } = await ancrage.subscriptions.create({ event: "NewOpportunity", url: "https://example.com/hook" });
   * ```
   * @returns the row, and the secret that no row shows
   * @throws AncrageError `ANCRAGE_SUBSCRIPTION_INVALID`; `subscriptionFaults` lists what is wrong with it
   */
  create(input: NewSubscription): Promise<CreatedSubscription>;
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
   * Ends a subscription. Once this resolves, no request to its URL begins in this process.
   *
   * @returns the row, also where it was deleted before; undefined where there never was one, or it is another project's
   */
  delete(id: string, project?: string): Promise<SubscriptionRow | undefined>;
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
  /** Called after each committed change, and awaited before the caller hears of it: the registry takes the row here. */
  readonly onChanged?: (row: SubscriptionRow) => Promise<void> | void;
  readonly nowMs?: () => number;
}

export function createSubscriptionService(options: SubscriptionServiceOptions): SubscriptionService {
  const { db, secretKey } = options;
  const nowMs = options.nowMs ?? Date.now;
  const changed = async (row: SubscriptionRow): Promise<SubscriptionRow> => {
    await options.onChanged?.(row);
    return row;
  };
  return {
    async create(input) {
      const checked = checkSubscription(input, { events: options.events(), url: options.url ?? {} });
      if (checked.kind === "refused") throw refusedSubscription(checked.faults);
      const { secret = createSecret(), project = "default", ...fields } = checked.value;
      const at = nowMs();
      const id = createSubscriptionId(at, randomBytes(10));
      const sealed = sealSecret(secretKey, { project, id }, secret, new Date(at));
      const subscription = await writeSubscription(db, async (client) => {
        const row = await insertSubscription(client, { ...fields, id, project, secrets: [sealed] });
        await emitSubscriptionMark(client, row);
        return row;
      });
      return { subscription: await changed(subscription), secret: formatSecret(secret) };
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
      const row = await writeSubscription(db, async (client) => {
        const found = await lockSubscription(client, id, project);
        if (found === undefined || found.state === "deleted") return found;
        const deleted = await deleteSubscription(client, id);
        await emitSubscriptionMark(client, deleted);
        return deleted;
      });
      // Also for one that was deleted before: whoever repeats a deletion whose answer was lost must get the same promise.
      return row === undefined ? undefined : changed(row);
    },
  };
}

/** Runs `work` in one transaction that is on disk once this resolves, whatever the database's default is. */
async function writeSubscription<Result>(db: pg.Pool, work: (client: pg.ClientBase) => Promise<Result>): Promise<Result> {
  return await inPoolTransaction(db, async (client) => {
    await client.query("set local synchronous_commit = on");
    return work(client);
  });
}

function refusedSubscription(faults: readonly Fault[]): AncrageError {
  const list = faults.map((fault) => (fault.pointer === "" ? fault.detail : `${fault.pointer.slice(1)}: ${fault.detail}`)).join("\n  ");
  return new AncrageError("ANCRAGE_SUBSCRIPTION_INVALID", `the subscription cannot be made:\n  ${list}`, {
    hint: "Correct what is listed and send it again.",
    cause: faults,
  });
}

/** What is wrong with the input that made `create` throw; undefined for every other error. */
export function subscriptionFaults(error: unknown): readonly Fault[] | undefined {
  if (!(error instanceof AncrageError) || error.code !== "ANCRAGE_SUBSCRIPTION_INVALID") return undefined;
  return error.cause as readonly Fault[];
}

const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/** `sub_`, ten digits of milliseconds and sixteen random ones, in Crockford's base 32: ids sort as they were made. */
export function createSubscriptionId(nowMs: number, random: Uint8Array): string {
  let number = BigInt(nowMs);
  for (const byte of random) number = (number << 8n) | BigInt(byte);
  let digits = "";
  for (let turn = 0; turn < 26; turn++) {
    digits = crockford.charAt(Number(number & 31n)) + digits;
    number >>= 5n;
  }
  return `sub_${digits}`;
}
