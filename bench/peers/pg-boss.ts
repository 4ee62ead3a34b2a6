import { answerParent } from "../child.ts";
import { nowMs } from "../clock.ts";
import { cpuUs, createWorker, insertResults, withClient, type Item, type PeerMethods, type Worker } from "./work.ts";

/** What is used of the package, which is not among those of the repository. */
interface PgBossPackage {
  readonly PgBoss: new (options: Readonly<Record<string, unknown>>) => PgBoss;
}
interface PgBoss {
  on(name: "error", listener: (error: Error) => void): void;
  start(): Promise<unknown>;
  stop(options: Readonly<Record<string, unknown>>): Promise<void>;
  createQueue(name: string): Promise<void>;
  insert(name: string, jobs: readonly { readonly data: Item }[], options: { readonly db: Db }): Promise<unknown>;
  work(name: string, options: Readonly<Record<string, unknown>>, handler: (jobs: readonly Job[], tx: Db) => Promise<void>): Promise<string>;
}
interface Db {
  executeSql(text: string, values?: unknown[]): Promise<{ rows: unknown[] }>;
}
interface Job {
  readonly id: string;
  readonly data: Item;
}

const packageName = "pg-boss";
const { PgBoss } = (await import(packageName)) as PgBossPackage;

const queue = "send";
/** See README.md: what its pages on workers advise. */
const workOptions = {
  batchSize: 250,
  localConcurrency: 4,
  pollingIntervalSeconds: 0.5,
  burstWhenBatchFull: true,
  transactional: true,
};

let boss: PgBoss | undefined;
let worker: Worker | undefined;

function create(connectionString: string, options: Readonly<Record<string, unknown>> = {}): PgBoss {
  const made = new PgBoss({ connectionString, ...options });
  made.on("error", (error) => console.error(`pg-boss: ${error.message}`));
  return made;
}

answerParent({
  async prepare(databaseUrl) {
    const made = create(databaseUrl);
    await made.start();
    await made.createQueue(queue);
    await made.stop({ graceful: true });
  },
  async enqueue({ databaseUrl, rows, note }) {
    boss ??= create(databaseUrl, { supervise: false, schedule: false });
    await boss.start();
    const sender = boss;
    return withClient(databaseUrl, async (client) => {
      const db: Db = { executeSql: (text, values) => client.query(text, values) };
      const startedAtMs = nowMs();
      await client.query("begin");
      const inserted = await client.query<Item>("insert into item (note) select $1 from generate_series(1, $2) returning id, note", [
        note,
        rows,
      ]);
      await sender.insert(
        queue,
        inserted.rows.map((data) => ({ data })),
        { db },
      );
      await client.query("commit");
      return { startedAtMs };
    });
  },
  async start(options) {
    const { send } = (worker = createWorker(options));
    boss = create(options.databaseUrl);
    await boss.start();
    await boss.work(queue, workOptions, async (jobs, tx) => {
      const results = await Promise.all(jobs.map(({ id, data }) => send(id, data)));
      await insertResults({ query: (text, values) => tx.executeSql(text, values) }, results);
    });
  },
  cpuUs,
  async stop() {
    await boss?.stop({ graceful: true });
    boss = undefined;
    await worker?.close();
    worker = undefined;
  },
} satisfies PeerMethods);
