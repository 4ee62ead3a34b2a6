/**
 * The whole of it, as another program would use it: `ancrage dev` on a PostgreSQL of its own, a receiver that verifies what it gets,
 * and rows that are written in four ways. `--once` ends with a line of JSON; without it everything goes on running, to be tried by hand.
 * `--rows` says how many rows the COPY has.
 */
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import pg from "pg";
import { type AncrageProcess, startAncrage } from "./demo/ancrage-process.ts";
import { type Arrival, type DemoReceiver, startReceiver } from "./demo/receiver.ts";
import { subscribe, subscribeAsWeavy } from "./demo/subscribe.ts";
import { copyDeals, rollBack, triggerInTransaction, writePlainRow, type Written } from "./demo/writes.ts";

/** Subscriptions by the receiver's path, with the events that each takes. */
const subscriptions = {
  "/weavy": ["NewOpportunity"],
  "/v1": ["NewOpportunity", "NewCustomer", "DealWon", "ImportFinished"],
} as const;

const singleRows = 20;
/** A healthy run takes a third of it; past it the run says what is missing rather than waiting for ever. */
const deadlineMs = 60_000;
const folder = fileURLToPath(new URL(".", import.meta.url));
const rolledBack = "Rolled back";
const marker = "After the rollback";

const { values: flags } = parseArgs({ options: { once: { type: "boolean", default: false }, rows: { type: "string", default: "10000" } } });
const bulkRows = Number(flags.rows);
if (!Number.isInteger(bulkRows) || bulkRows < 1) throw new RangeError(`--rows: expected a whole number from 1, got ${flags.rows}`);
const stopped = new Promise<"stopped">((resolve) => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => resolve("stopped"));
});
process.exitCode = await run();

async function run(): Promise<number> {
  say("Starting PostgreSQL and Ancrage …");
  const [ancrage, receiver] = await Promise.all([startAncrage(folder), startReceiver()]);
  let isDone = false;
  try {
    await subscribeAsWeavy(ancrage, receiver, "/weavy", subscriptions["/weavy"][0]);
    await subscribe(ancrage, receiver, "/v1", subscriptions["/v1"]);
    say(`Subscribed: NewOpportunity as weavy does, ${subscriptions["/v1"].join(", ")} through /v1/subscriptions.\n`);
    const outcome = await Promise.race([writeAll(ancrage, receiver), stopped, ancrage.ended]);
    if (outcome === "stopped") return 130;
    if (outcome === null || typeof outcome === "number") throw new Error(`ancrage dev ended with ${String(outcome)}`);
    if (!flags.once) {
      sayWhatToTry(ancrage);
      receiver.onArrival(({ path, event, payload }) => say(`  ${path} ← ${event} ${JSON.stringify(payload)}`));
      await Promise.race([stopped, ancrage.ended]);
      return 0;
    }
    // It finishes what is in flight before it ends: what is received by then is all that will ever be.
    const code = await ancrage.stop();
    isDone = true;
    const summary = summarise(outcome, receiver.arrivals);
    console.log(JSON.stringify(summary));
    return code === 0 && outcome.isClean && isComplete(summary) ? 0 : 1;
  } finally {
    if (!isDone) await ancrage.stop();
    await receiver.close();
  }
}

interface Outcome {
  readonly committed: number;
  readonly expected: number;
  /** Milliseconds from commit to arrival, of each message of a transaction that was alone. */
  readonly singleMs: readonly number[];
  /** Whether nothing of the transaction that was rolled back is anywhere. */
  readonly isClean: boolean;
}

async function writeAll(ancrage: AncrageProcess, receiver: DemoReceiver): Promise<Outcome> {
  const client = new pg.Client({ connectionString: ancrage.database });
  await client.connect();
  try {
    const written: Written[] = [];
    const singleMs: number[] = [];
    /** Writes, waits for all that it owes, and says how long each took. */
    const writeAndWait = async (what: string, write: Promise<Written>): Promise<void> => {
      const from = receiver.arrivals.length;
      const one = await write;
      written.push(one);
      await arrived(receiver, from + messagesOf(one));
      const tookMs = receiver.arrivals.slice(from).map(({ atMs }) => atMs - one.commitAtMs);
      singleMs.push(...tookMs);
      if (what !== "") say(`  ${what.padEnd(46)} ${tookMs.map((ms) => `${ms.toFixed(1)} ms`).join(", ")}`);
    };

    say("Rows by plain SQL, from commit to each arrival:");
    const customer = "insert into customer (name, city) values ('COLOMBE DIAMANTS', 'VERSAILLES')";
    await writeAndWait("insert a customer → NewCustomer", writePlainRow(client, customer, { NewCustomer: 1 }));
    const deal = "insert into deal (customer_id, label) values (1, $1)";
    const owed = { NewOpportunity: 1 };
    await writeAndWait("insert a deal → NewOpportunity, twice", writePlainRow(client, deal, owed, ["Ma nouvelle opportunité"]));
    const won = "update deal set status = 'Won' where id = 1";
    await writeAndWait("update a deal → DealWon", writePlainRow(client, won, { DealWon: 1 }));
    // Nothing to wait for: what it would send, were it wrong, is found by the count at the end.
    written.push(await writePlainRow(client, "update deal set amount = 1200 where id = 1", {}));
    say("  update its amount → nothing");
    for (let number = 1; number <= singleRows; number++) await writeAndWait("", writePlainRow(client, deal, owed, [`Deal ${number}`]));
    say(`  ${singleRows} more deals, one after the other: half of their messages within ${median(singleMs).toFixed(1)} ms\n`);

    say("In the application's own transaction, with ancrage.trigger:");
    await writeAndWait("insert, trigger, commit → 3 messages", triggerInTransaction(client));

    say(`\nA batch: COPY of ${bulkRows} rows in one transaction, ${2 * bulkRows} messages:`);
    written.push(await bulk(client, receiver));

    say("\nA transaction of 100 rows and a trigger that is rolled back, then one row:");
    await rollBack(client, rolledBack);
    await writeAndWait("the row after it → NewOpportunity, twice", writePlainRow(client, deal, owed, [marker]));
    const isClean = await nothingOfIt(client, receiver, written);
    say(isClean ? "  nothing of it was journaled or sent\n" : "  SOMETHING OF IT WAS JOURNALED OR SENT\n");
    return {
      committed: sum(written.map(({ committed }) => committed)),
      expected: sum(written.map(messagesOf)),
      singleMs,
      isClean,
    };
  } finally {
    await client.end();
  }
}

async function bulk(client: pg.Client, receiver: DemoReceiver): Promise<Written> {
  const from = receiver.arrivals.length;
  const written = await copyDeals(client, bulkRows);
  const owed = messagesOf(written);
  const progress = (end: string): void => {
    const seconds = (performance.now() - written.commitAtMs) / 1000;
    const count = receiver.arrivals.length - from;
    process.stdout.write(`  ${count} of ${owed} messages after ${seconds.toFixed(1)} s, ${Math.round(count / seconds)} a second${end}`);
  };
  const ticking = process.stdout.isTTY ? setInterval(() => progress("\r"), 100) : undefined;
  try {
    await arrived(receiver, from + owed);
  } finally {
    clearInterval(ticking);
  }
  progress("\n");
  return written;
}

/** Waits for so many arrivals in all. */
async function arrived(receiver: DemoReceiver, count: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`${count} messages were expected, ${receiver.arrivals.length} arrived within ${deadlineMs / 1000} s`));
    }, deadlineMs);
  });
  await Promise.race([receiver.until((arrivals) => arrivals.length >= count), late]);
  clearTimeout(timer);
}

/**
 * Whether the transaction that was rolled back left no trace. The journal is written in the order of the log and the row after it has
 * arrived: what is not in the journal by now never will be.
 */
async function nothingOfIt(client: pg.Client, receiver: DemoReceiver, written: readonly Written[]): Promise<boolean> {
  const owed = sum(written.map(({ owed }) => sum(Object.values(owed))));
  const { rows } = await client.query<{ all: string; wrong: string }>(
    `select count(*) as all, count(*) filter (where convert_from(body, 'UTF8') like '%' || $1 || '%') as wrong from ancrage.messages`,
    [rolledBack],
  );
  const [journaled] = rows;
  const isSent = receiver.arrivals.some(({ payload }) => Object.values(payload).includes(rolledBack));
  return journaled?.all === String(owed) && journaled.wrong === "0" && !isSent;
}

/** How many messages the two subscriptions are owed for a transaction. */
function messagesOf({ owed }: Written): number {
  const takers = (event: string): number => Object.values(subscriptions).filter((events) => events.some((one) => one === event)).length;
  return sum(Object.entries(owed).map(([event, count]) => count * takers(event)));
}

interface Summary {
  readonly committed: number;
  readonly expected: number;
  readonly received: number;
  readonly verified: number;
  readonly duplicates: number;
  readonly p50Ms: number;
}

function summarise({ committed, expected, singleMs }: Outcome, arrivals: readonly Arrival[]): Summary {
  const distinct = new Set(arrivals.map(({ path, id }) => `${path} ${id}`)).size;
  return {
    committed,
    expected,
    received: arrivals.length,
    verified: arrivals.filter(({ isVerified }) => isVerified).length,
    duplicates: arrivals.length - distinct,
    p50Ms: Number(median(singleMs).toFixed(2)),
  };
}

function isComplete({ expected, received, verified, duplicates }: Summary): boolean {
  return received === expected && verified === expected && duplicates === 0;
}

function sayWhatToTry({ url, token, database }: AncrageProcess): void {
  say(`It goes on running. Each message that arrives is shown here; Ctrl-C ends it. Try, in another terminal:

  psql ${database} -c "insert into deal (label) values ('By hand')"
  psql ${database} -c "update deal set status = 'Won' where id = 2"

  curl -X POST ${url}/v1/events/NewOpportunity/trigger \\
    -H 'authorization: Bearer ${token}' -H 'content-type: application/json' -d '{"key": 1}'
  curl '${url}/v1/events/NewOpportunity/samples?limit=1' -H 'authorization: Bearer ${token}'
`);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

function say(text: string): void {
  console.log(text);
}
