import { AsyncResource } from "node:async_hooks";
import { marksSql, type MarksSql } from "./request-marks.ts";
import { statementKind, type StatementKind } from "./statement.ts";

/** A client of `pg`, as far as it is used here. */
interface PgClient {
  query(...args: never[]): unknown;
  /** `I`: in no transaction. Older clients do not have it. */
  getTransactionStatus?(): string | null;
  end?(): unknown;
}

/** A pool of `pg`, as far as it is used here. */
interface PgPool {
  on(event: "connect", listener: (client: never) => void): unknown;
  connect(...args: never[]): unknown;
}

/** A cursor, a stream, a COPY: `pg` hands it the connection and does not wait for it. */
interface Submittable {
  submit(connection: unknown): void;
  handleError?(error: unknown, connection: unknown): void;
}

type Query = (...args: unknown[]) => Promise<unknown>;
type Callback = (error: unknown, result?: unknown) => void;

/**
 * Makes each transaction on the pool carry the marks of the request that it belongs to; Kysely, Drizzle and Prisma (with their
 * drivers for `pg`) are given this pool. It changes the pool itself, so call it before the pool is used.
 *
 * @example
 * ```ts
 * const pool = markPool(new pg.Pool({ connectionString }));
 * ```
 */
export function markPool<Pool extends PgPool>(pool: Pool): Pool {
  pool.on("connect", (client: PgClient) => markClient(client));
  const connect = pool.connect.bind(pool) as (...args: unknown[]) => unknown;
  // `pool.query` waits for a client with a callback, which whoever releases one calls: in another request, with that one's marks.
  const bound = (callback?: unknown): unknown =>
    typeof callback === "function" ? connect(AsyncResource.bind(callback as Callback)) : connect();
  return Object.assign(pool, { connect: bound });
}

/**
 * The same for a client that belongs to no pool.
 *
 * In a transaction the marks are sent before its first statement that may change something, as `set transaction` must come first.
 * A statement that changes rows outside one gets one of its own, as a mark counts for its transaction alone.
 */
export function markClient<Client extends PgClient>(client: Client): Client {
  const send = client.query.bind(client) as unknown as Query;
  const state: Session = { isOpen: false, isReadOnly: false, marked: undefined };
  const isIdle = (): boolean => {
    const status = client.getTransactionStatus?.() ?? undefined;
    return status === undefined ? !state.isOpen : status === "I";
  };
  /** What is under way, written by `query`; undefined while nothing is. Two statements at once must not get into each other's transaction. */
  let last: Promise<unknown> | undefined;

  const query = (...args: unknown[]): unknown => {
    const marks = marksSql();
    const isFree = last === undefined;
    const { submittable, text } = readQuery(args[0]);
    const kind = statementKind(text);
    if (submittable !== undefined && isFree && (marks === undefined || !state.isOpen)) return send(...args);
    const callback = submittable === undefined ? takeCallback(args) : undefined;
    const run = submittable === undefined ? () => exchange(kind, marks, args) : () => submit(submittable, marks, args);
    const answer = last === undefined ? run() : last.then(run, run);
    const mine = answer.then(
      () => undefined,
      () => undefined,
    );
    last = mine;
    void mine.then(() => {
      if (last === mine) last = undefined;
    });
    if (submittable !== undefined) return submittable;
    if (callback === undefined) return answer;
    answer.then(
      // Outside the promise: what a callback throws is not swallowed by it.
      (result) => process.nextTick(callback, undefined, result),
      (error: unknown) => process.nextTick(callback, error),
    );
    return undefined;
  };

  async function exchange(kind: StatementKind, marks: MarksSql | undefined, args: readonly unknown[]): Promise<unknown> {
    if (marks !== undefined && kind === "write" && isIdle()) return inOwnTransaction(marks, args);
    if (marks !== undefined && (kind === "write" || kind === "other") && !isIdle()) await mark(marks);
    try {
      return await send(...args);
    } finally {
      // A commit that fails has ended its transaction as well.
      follow(state, kind);
    }
  }

  async function submit(submittable: Submittable, marks: MarksSql | undefined, args: readonly unknown[]): Promise<void> {
    try {
      if (marks !== undefined && !isIdle()) await mark(marks);
      void send(...args);
    } catch (error) {
      submittable.handleError?.(error, undefined);
    }
  }

  async function inOwnTransaction(marks: MarksSql, args: readonly unknown[]): Promise<unknown> {
    try {
      await send("begin");
      await send(marks.text, marks.values);
      const answer = await send(...args);
      await send("commit");
      return answer;
    } catch (error) {
      // What was wrong first is what the caller is told. A connection that refuses this too (it is gone, or a timeout of the client's
      // took the rollback out of its queue) may be in the transaction still: nobody else may be given it.
      await send("rollback").catch(() => client.end?.());
      throw error;
    }
  }

  /** Once a transaction, and again where another `withMarks` says something else. */
  async function mark(marks: MarksSql): Promise<void> {
    const said = JSON.stringify(marks);
    if (state.isReadOnly || state.marked === said) return;
    await send(marks.text, marks.values);
    state.marked = said;
  }

  return Object.assign(client, { query });
}

/** What is known of the transaction that the client is in; written as statements are answered. */
interface Session {
  isOpen: boolean;
  isReadOnly: boolean;
  /** What it was marked with; undefined while it is not. */
  marked: string | undefined;
}

function follow(state: Session, kind: StatementKind): void {
  switch (kind) {
    case "begin":
    case "begin-read-only":
    case "end":
      state.isOpen = kind !== "end";
      state.isReadOnly = kind === "begin-read-only";
      state.marked = undefined;
      return;
    case "back":
      state.marked = undefined;
      return;
    case "setting-read-only":
    case "setting-read-write":
      state.isReadOnly = kind === "setting-read-only";
      return;
    case "setting":
    case "write":
    case "other":
      return;
    default:
      kind satisfies never;
  }
}

function readQuery(first: unknown): { readonly text: string; readonly submittable?: Submittable } {
  if (typeof first === "string") return { text: first };
  if (typeof first !== "object" || first === null) return { text: "" };
  const text = "text" in first && typeof first.text === "string" ? first.text : "";
  return "submit" in first && typeof first.submit === "function" ? { text, submittable: first as Submittable } : { text };
}

/** `pg` takes the callback as the last argument, or in the object. */
function takeCallback(args: unknown[]): Callback | undefined {
  const at = args.findIndex((argument) => typeof argument === "function");
  if (at > 0) return args.splice(at)[0] as Callback;
  const [first] = args;
  if (typeof first !== "object" || first === null || !("callback" in first) || typeof first.callback !== "function") return undefined;
  const { callback, ...config } = first;
  args[0] = config;
  return callback as Callback;
}
