import pg from "pg";
import { answerParent } from "../child.ts";
import { nowMs } from "../clock.ts";
import { cpuUs, createRecorder, createWorker, inFlight, withClient, type Item, type PeerMethods, type Worker } from "./work.ts";

/** What is used of the package, which is not among those of the repository. */
interface GraphileWorker {
  runMigrations(options: { readonly preset: Preset }): Promise<void>;
  run(options: { readonly preset: Preset; readonly taskList: Readonly<Record<string, Task>> }): Promise<Runner>;
  readonly Logger: new (scope: () => () => void) => unknown;
}
type Task = (item: Item, helpers: { readonly job: { readonly id: string } }) => Promise<void>;
interface Preset {
  readonly worker: Readonly<Record<string, unknown>>;
}
interface Runner {
  stop(): Promise<void>;
}

const packageName = "graphile-worker";
const { run, runMigrations, Logger } = (await import(packageName)) as GraphileWorker;

/** See README.md: what its page on performance advises. */
const preset = (connectionString: string): Preset => ({
  worker: {
    connectionString,
    concurrentJobs: inFlight,
    maxPoolSize: 25,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
    logger: new Logger(() => () => undefined),
  },
});

let runner: Runner | undefined;
let worker: Worker | undefined;
let results: pg.Pool | undefined;

answerParent({
  async prepare(databaseUrl) {
    await runMigrations({ preset: preset(databaseUrl) });
  },
  enqueue: ({ databaseUrl, rows, note }) =>
    withClient(databaseUrl, async (client) => {
      const startedAtMs = nowMs();
      await client.query("begin");
      await client.query(
        `with inserted as (insert into item (note) select $1 from generate_series(1, $2) returning id, note),
           specs as (select array_agg(('send', json_build_object('id', id, 'note', note), null, null, null, null, null, null)::graphile_worker.job_spec) as all_of_them from inserted)
         select count(*) from specs, graphile_worker.add_jobs(all_of_them)`,
        [note, rows],
      );
      await client.query("commit");
      return { startedAtMs };
    }),
  async start(options) {
    worker = createWorker(options);
    results = new pg.Pool({ connectionString: options.databaseUrl, max: 1 });
    const { send } = worker;
    const { record } = createRecorder(results);
    runner = await run({
      preset: preset(options.databaseUrl),
      taskList: { send: async (item, { job }) => record(await send(job.id, item)) },
    });
  },
  cpuUs,
  async stop() {
    await runner?.stop();
    await worker?.close();
    await results?.end();
  },
} satisfies PeerMethods);
