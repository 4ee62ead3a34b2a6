import { fileURLToPath } from "node:url";
import type pg from "pg";
import type { CeilingMethods } from "./ceiling.ts";
import { startChild, type Child } from "./child.ts";
import type { Arrived, ReceiverMethods, ReceiverUrls } from "./receiver.ts";
import type { Database, Server } from "./server.ts";
import type { SystemMethods, SystemOptions } from "./system.ts";
import type { WriterMethods } from "./writer.ts";

/** All that a section needs, running: a database of its own and four processes. */
export interface Environment {
  readonly server: Server;
  readonly database: Database;
  readonly receiver: Child<ReceiverMethods>;
  readonly urls: ReceiverUrls;
  readonly writer: Child<WriterMethods>;
  readonly ceiling: Child<CeilingMethods>;
  /** Ancrage. Replaced by `restart`. */
  readonly system: Child<SystemMethods>;
  /** Ends Ancrage's process in peace, does `meanwhile`, and starts another one. */
  restart(options?: SystemOptions, meanwhile?: () => Promise<void>): Promise<void>;
  /** Ends when all subscriptions but these are gone, and these are there. Returns their secrets. */
  subscribe(urls: readonly string[]): Promise<readonly string[]>;
  /** Resolves when the journal has an outcome, or at least a row, for each delivery of what has arrived. */
  settled(): Promise<void>;
  /** Resolves when the log of all that is committed by now was read. */
  caughtUp(): Promise<void>;
  /** Forgets what arrived before, and resolves when so many requests have. */
  arrivals(count: number): Promise<{ readonly all: Promise<Arrived> }>;
  remove(): Promise<void>;
}

const pollMs = 20;
/** Many times what a round takes on a quiet machine. */
const mostMs = 120_000;

export async function openEnvironment(server: Server, options: SystemOptions = {}): Promise<Environment> {
  const children: { readonly end: () => Promise<void> }[] = [];
  const start = <Answers extends Record<string, (...argument: never[]) => unknown>>(file: string): Child<Answers> => {
    const child = startChild<Answers>(new URL(file, import.meta.url), { NODE_EXTRA_CA_CERTS: certificateFile });
    children.push(child);
    return child;
  };
  const database = await server.createDatabase();
  const remove = async (): Promise<void> => {
    await Promise.all(children.map((child) => child.end()));
    await database.remove();
  };
  try {
    const receiver = start<ReceiverMethods>("receiver.ts");
    const writer = start<WriterMethods>("writer.ts");
    const ceiling = start<CeilingMethods>("ceiling.ts");
    let system = start<SystemMethods>("system.ts");
    const urls = await receiver.call("listen");
    await writer.call("connect", database.url);
    await system.call("migrate", database.url, options);
    await system.call("start", database.url, options);
    return {
      server,
      database,
      receiver,
      urls,
      writer,
      ceiling,
      get system() {
        return system;
      },
      async restart(others = options, meanwhile = async () => undefined) {
        await system.call("stop");
        await system.end();
        await meanwhile();
        system = start<SystemMethods>("system.ts");
        await system.call("start", database.url, others);
      },
      subscribe: (wanted) => system.call("subscribe", wanted),
      settled: () => inTime(untilSettled(database.client)),
      caughtUp: () => untilCaughtUp(database.client),
      async arrivals(count) {
        await receiver.call("reset");
        return { all: inTime(receiver.call("until", count)) };
      },
      async remove() {
        await writer.call("end");
        await system.call("stop");
        await remove();
      },
    };
  } catch (error) {
    await remove();
    throw error;
  }
}

/** The receiver's, which is its own authority: the processes that send trust it by Node's own variable. */
const certificateFile = fileURLToPath(new URL("certificate/certificate.pem", import.meta.url));

/** Waits, but not for ever: a system that has stopped would hang the bench without a word. */
export async function inTime<Result>(work: Promise<Result>): Promise<Result> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    const words = `deliveries were still missing after ${mostMs / 1000} s: see what Ancrage logged above, and run it again.`;
    timer = setTimeout(() => reject(new Error(words)), mostMs);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** By the two marks of the last batch: to count the deliveries again and again would cost what is to be measured. */
async function untilSettled(client: pg.Client): Promise<void> {
  for (;;) {
    const { rows } = await client.query<{ is_settled: boolean }>(
      `select (settled_commit_lsn, settled_change_lsn, settled_ordinal) = (journaled_commit_lsn, journaled_change_lsn, journaled_ordinal)
         as is_settled
       from ancrage.batches b order by b.number desc limit 1`,
    );
    if (rows[0]?.is_settled === true) return;
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

async function untilCaughtUp(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ lsn: string }>("select pg_current_wal_lsn()::text as lsn");
  for (;;) {
    const sent = await client.query(
      `select from pg_stat_replication r join pg_replication_slots s on s.active_pid = r.pid
       where s.database = current_database() and r.sent_lsn >= $1`,
      [rows[0]?.lsn],
    );
    if (sent.rows.length > 0) return;
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}
