import { createRequire } from "node:module";
import pg from "pg";
import { answerParent } from "../child.ts";
import { nowMs } from "../clock.ts";
import { cpuUs, createRecorder, createWorker, inFlight, withClient, type Item, type PeerMethods, type Worker } from "./work.ts";

/** What is used of the package, which is not among those of the repository. */
interface BullMq {
  readonly Queue: new (name: string, options: Readonly<Record<string, unknown>>) => Queue;
  readonly Worker: new (name: string, work: (job: Job) => Promise<void>, options: Readonly<Record<string, unknown>>) => Closable;
}
interface Closable {
  close(): Promise<void>;
}
interface Queue extends Closable {
  obliterate(options: { readonly force: true }): Promise<void>;
  addBulk(
    jobs: readonly { readonly name: string; readonly data: Item; readonly opts: Readonly<Record<string, unknown>> }[],
  ): Promise<unknown>;
}
interface Job {
  readonly id: string;
  readonly data: Item;
}

// It has a folder of its own: its helper does not lock.
const bull = createRequire(new URL("bullmq/package.json", import.meta.url))("bullmq") as BullMq;

const connection = { url: process.env["REDIS_URL"], maxRetriesPerRequest: null };
const queueName = "ancrage-bench";

let queue: Queue | undefined;
let runner: Closable | undefined;
let worker: Worker | undefined;
let results: pg.Pool | undefined;

answerParent({
  async prepare() {
    const made = new bull.Queue(queueName, { connection });
    await made.obliterate({ force: true });
    await made.close();
  },
  async enqueue({ databaseUrl, rows, note }) {
    const to = (queue ??= new bull.Queue(queueName, { connection }));
    return withClient(databaseUrl, async (client) => {
      const startedAtMs = nowMs();
      const inserted = await client.query<Item>("insert into item (note) select $1 from generate_series(1, $2) returning id, note", [
        note,
        rows,
      ]);
      // Redis takes no part in the transaction: a crash here loses the jobs.
      await to.addBulk(inserted.rows.map((data) => ({ name: "send", data, opts: { removeOnComplete: true, removeOnFail: true } })));
      return { startedAtMs };
    });
  },
  async start(options) {
    const { send } = (worker = createWorker(options));
    results = new pg.Pool({ connectionString: options.databaseUrl, max: 1 });
    const { record } = createRecorder(results);
    // Job ids begin anew in each queue.
    runner = new bull.Worker(queueName, async ({ id, data }) => record(await send(`${data.id}-${id}`, data)), {
      connection,
      concurrency: inFlight,
    });
  },
  cpuUs,
  async stop() {
    await runner?.close();
    await queue?.close();
    queue = undefined;
    await worker?.close();
    await results?.end();
  },
} satisfies PeerMethods);
