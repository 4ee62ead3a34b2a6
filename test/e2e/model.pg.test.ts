import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createAncrage, migrate, type Ancrage } from "../../src/create-ancrage.ts";
import { cloneDatabase, type TestDatabase } from "../database.ts";
import { modelEvents } from "./model-events.ts";
import { openModelLog, type Change, type Entry, type EventName, type ModelLog, type State } from "./model-log.ts";
import { createModelProcess, type ModelProcess } from "./model-process.ts";
import { moods, startModelReceiver, type ModelReceiver } from "./model-receiver.ts";
import { judge, type Judged, type ModelDelivery } from "./model.ts";
import { createRandom, type Random } from "./random.ts";

/**
 * Many by hand: `MODEL_RUNS=300 npx vitest run test/e2e/model.pg.test.ts`. A run that fails says its seed: `SEED=… MODEL_RUNS=1` makes the
 * same steps again, and `MODEL_STEPS=…` only the first ones of them.
 */
const runs = Number(process.env["MODEL_RUNS"] ?? 3);
const mostSteps = Number(process.env["MODEL_STEPS"] ?? Number.POSITIVE_INFINITY);
const schedule = [0, 0.05, 0.05, 0.1, 0.6];
const settleMs = 60_000;

let database: TestDatabase;
let receiver: ModelReceiver;
let system: ModelProcess;
/** An API that runs beside the process that leads. */
let api: Ancrage;
let log: ModelLog;
let folder: string;
const secrets = new Set<string>(["a-token-of-the-operator", "the-receivers-own-password"]);
beforeAll(async () => {
  database = await cloneDatabase();
  await database.client.query("create table item (id integer primary key, note integer not null, is_wanted boolean not null)");
  receiver = await startModelReceiver();
  folder = mkdtempSync(join(tmpdir(), "ancrage-model-"));
  log = openModelLog(join(folder, "log"));
  const options = {
    database: database.url,
    token: "a-token-of-the-operator",
    secretKey: randomBytes(32).toString("base64"),
    allowHttp: true,
    allowNetworks: ["127.0.0.1/32"],
    delivery: { timeoutMs: 400 },
    retry: { schedule, jitter: 0.2 },
    shutdown: { graceS: 1 },
    logLevel: "trace",
  } as const;
  secrets.add(options.secretKey);
  await migrate({ ...options, events: modelEvents });
  api = createAncrage({ ...options, logLevel: "silent", events: modelEvents });
  system = createModelProcess(options, log);
  await system.start();
});
afterAll(async () => {
  await system?.close();
  await api?.stop();
  await receiver?.close();
  log?.close();
  await database?.remove();
  if (folder !== undefined) rmSync(folder, { recursive: true });
});

interface Subscriber {
  readonly id: string;
  readonly path: string;
  isPaused: boolean;
  isDeleted: boolean;
  /** Its `expiresAt` was set. */
  isLapsing: boolean;
}

/** One run: the subscriptions that it made, and what it may do to them. */
interface Run {
  readonly random: Random;
  readonly subscribers: Subscriber[];
  readonly done: string[];
}

let lastNote = 0;
/** Of those that were committed. */
let lastCommitted = 0;
let lastPath = 0;

test(
  "whatever happens in whatever order, each delivery is what the model says, and the six invariants hold",
  { timeout: 60_000 + runs * 120_000 },
  async () => {
    const first = createRandom().seed;
    let [requests, kills, deliveries] = [0, 0, 0];
    for (let run = 0; run < runs; run++) {
      const seed = first + run;
      const found = await runOnce(seed);
      requests += found.requests;
      kills += found.kills;
      deliveries += found.deliveries;
      if (found.faults.length > 0)
        throw new Error(`SEED=${seed} MODEL_RUNS=1\n${found.done.join("\n")}\n\nfaults:\n${found.faults.join("\n")}`);
    }
    await system.end();
    console.log(`model: seed ${first}, ${runs} runs, ${kills} kills, ${deliveries} deliveries, ${requests} requests`);
    expect(receiver.forbiddenCount()).toBe(0);
    const said = system.said();
    expect([...secrets].filter((secret) => said.includes(secret))).toEqual([]);
    // The log was read at all.
    expect(said).toContain("capture streams");
  },
);

interface Found {
  readonly faults: readonly string[];
  readonly done: readonly string[];
  readonly requests: number;
  readonly kills: number;
  readonly deliveries: number;
}

async function runOnce(seed: number): Promise<Found> {
  const run: Run = { random: createRandom(seed), subscribers: [], done: [] };
  const firstNote = lastNote + 1;
  receiver.received.length = 0;
  for (const order of ["none", "record", "all"] as const) await subscribe(run, "ItemChanged", order);
  await subscribe(run, "ItemUnwanted", "none");
  const steps = run.random.integer(10, 30);
  for (let step = 0; step < Math.min(steps, mostSteps); step++) {
    // Drawn whether it is taken or not, so that a prefix of the steps is the same steps.
    const name = pickStep(run.random);
    const startedAtMs = performance.now();
    await stepsByName[name](run);
    run.done.push(`${step} ${name} (${Math.round(performance.now() - startedAtMs)} ms)`);
    if (run.random.chance(0.6)) await pause(run.random.integer(0, 40));
  }
  const isLeftPaused = run.random.chance(0.2);
  for (const one of run.subscribers) {
    receiver.moods.set(one.path, "ok");
    if (!one.isDeleted && !(isLeftPaused && one.isPaused)) await resume(one);
  }
  const settled = await settle(run, firstNote);
  const { entries, judged, rows } = settled;
  const faults = [...judged.faults, ...settled.faults];
  // What comes after the first fault is mostly what comes of it.
  if (faults.length === 0) faults.push(...faultsOfRows(settled), ...faultsOfReceived(settled), ...(await faultsOfAttempts(run)));
  for (const one of run.subscribers) if (!one.isDeleted) await remove(one);
  log.take();
  if (faults.length > 0 && process.env["MODEL_SHOW"] !== undefined)
    console.log(entries.map((entry, i) => `${i + 1} ${JSON.stringify(entry)}`).join("\n"));
  return {
    faults,
    done: run.done,
    requests: receiver.received.length,
    kills: entries.filter(({ e }) => e === "killed").length,
    deliveries: rows.length,
  };
}

// --- what may happen -------------------------------------------------------------------------------------------------------------

const stepsByName = {
  commit: async (run: Run) => {
    await noteDisabled(run);
    await commit(run.random.integer(1, 4), run.random, "commit");
  },
  undo: async ({ random }: Run) => commit(random.integer(1, 3), random, "rollback"),
  mood: async ({ random, subscribers }: Run) => {
    const one = pick(random, subscribers);
    receiver.moods.set(one.path, pick(random, moods));
  },
  pause: async ({ random, subscribers }: Run) => {
    const one = pick(random, subscribers);
    if (one.isDeleted) return;
    log.append({ e: "pausing", sub: one.id });
    const answer = await callOrKill(random, "POST", `/v1/subscriptions/${one.id}/pause`);
    one.isPaused = true;
    if (answer?.status === 200 || (answer === undefined && (await readState(one)) === "paused")) log.append({ e: "paused", sub: one.id });
  },
  resume: async ({ random, subscribers }: Run) => {
    const one = pick(random, subscribers);
    if (!one.isDeleted) await resume(one);
  },
  resend: async (run: Run) => {
    const { random } = run;
    const over = (await readDeliveries(run)).filter(({ state }) => state !== "pending" && state !== "retrying");
    if (over.length === 0) return;
    const { sub, message, round } = pick(random, over);
    log.append({ e: "resending", sub, message });
    const answer = await callOrKill(random, "POST", `/v1/deliveries/dlv_${message.slice(4)}_${sub.slice(4)}/resend`);
    const isBegun = async (): Promise<boolean> =>
      (await readDeliveries(run)).some((row) => row.sub === sub && row.message === message && row.round > round);
    const isResent = answer === undefined ? await isBegun() : answer.status === 200;
    log.append({ e: isResent ? "resent" : "not-resent", sub, message });
  },
  cancel: async ({ random, subscribers }: Run) => {
    const one = pick(random, subscribers);
    if (one.isDeleted) return;
    // It ends what is in the journal; and a message's time is kept in milliseconds: those of this one are not meant.
    await untilJournaled();
    await pause(3);
    log.append({ e: "canceling", sub: one.id });
    const made = await callOrKill(random, "POST", "/v1/deliveries/cancel", { subscriptionId: one.id });
    if (made?.status === 201 && random.chance(0.3)) await crash(random);
    for (;;) {
      const { rowCount } = await database.client.query(
        "select from ancrage.jobs where subscription_id = $1 and state in ('running', 'waiting')",
        [one.id],
      );
      if (rowCount === 0) break;
      await pause(20);
    }
    log.append({ e: made?.status === 201 ? "canceled" : "not-canceled", sub: one.id });
  },
  expire: async (run: Run) => {
    const { random, subscribers } = run;
    const ids = subscribers.map(({ id }) => id);
    for (const sub of ids) log.append({ e: "canceling", sub });
    await Promise.all([system.expire(), ...(random.chance(0.2) ? [crash(random)] : [])]);
    // What had no row yet has not expired.
    const rows = await readDeliveries(run);
    for (const { state, sub, message } of rows) if (state === "canceled") log.append({ e: "over", sub, message });
    for (const sub of ids) log.append({ e: "not-canceled", sub });
  },
  lapse: async (run: Run) => {
    const { random, subscribers } = run;
    const one = pick(random, subscribers);
    if (one.isDeleted || one.isLapsing) return;
    one.isLapsing = true;
    log.append({ e: "expiring", sub: one.id });
    const expiresAt = new Date(Date.now() + random.integer(50, 300)).toISOString();
    const isAwaited = random.chance(0.5);
    const answer = await callOrKill(random, "PATCH", `/v1/subscriptions/${one.id}`, { expiresAt });
    // Refused on a busy machine, where that time has passed; killed, it may not have been changed.
    if (!isAwaited || answer?.status !== 200) return;
    const untilMs = performance.now() + settleMs;
    while ((await readState(one)) !== "disabled") {
      if (performance.now() > untilMs) throw new Error(`${one.id} is not disabled, although its time is over`);
      await pause(20);
    }
    await noteDisabled(run);
  },
  remove: async ({ random, subscribers }: Run) => {
    const one = pick(random, subscribers);
    if (!one.isDeleted) await remove(one, random);
  },
  add: async (run: Run) => subscribe(run, "ItemChanged", pick(run.random, ["none", "record", "all"] as const)),
  crash: async ({ random }: Run) => crash(random),
  restart: async () => {
    await system.end();
    await system.start();
  },
  wait: async ({ random }: Run) => pause(random.integer(20, 200)),
};

type StepName = keyof typeof stepsByName;
const weights: Readonly<Record<StepName, number>> = {
  commit: 9,
  undo: 1,
  mood: 5,
  pause: 1.5,
  resume: 2,
  resend: 2,
  cancel: 0.5,
  expire: 0.4,
  lapse: 0.5,
  remove: 0.4,
  add: 0.6,
  crash: 1,
  restart: 0.5,
  wait: 2,
};

function pickStep(random: Random): StepName {
  const all = Object.entries(weights) as [StepName, number][];
  let left = random.next() * all.reduce((sum, [, weight]) => sum + weight, 0);
  return all.find(([, weight]) => (left -= weight) < 0)?.[0] ?? "commit";
}

const pick = <Item>(random: Random, items: readonly Item[]): Item => items[random.integer(0, items.length - 1)] as Item;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Changes of a few records in one transaction, in the order of their numbers; some of what is written is not wanted. */
async function commit(count: number, random: Random, end: "commit" | "rollback"): Promise<void> {
  const changes = Array.from({ length: count }, (): Change => ({
    note: ++lastNote,
    key: String(random.integer(1, 4)),
    event: random.chance(0.9) ? "ItemChanged" : "ItemUnwanted",
  }));
  if (end === "commit") {
    log.append({ e: "committing", changes });
    lastCommitted = lastNote;
  }
  await database.client.query("begin");
  for (const { note, key, event } of changes) {
    await database.client.query(
      `insert into item values ($1, $2, $3) on conflict (id) do update set note = excluded.note, is_wanted = excluded.is_wanted`,
      [Number(key), note, event === "ItemChanged"],
    );
  }
  await database.client.query(end);
  if (end === "commit") log.append({ e: "committed" });
}

async function readState({ id }: Subscriber): Promise<string | undefined> {
  const { rows } = await database.client.query<{ state: string }>("select state from ancrage.subscriptions where id = $1", [id]);
  return rows[0]?.state;
}

/** What is disabled by now gets nothing of what is committed from now on. */
async function noteDisabled({ subscribers }: Run): Promise<void> {
  const disabled: Subscriber[] = [];
  for (const one of subscribers) if ((await readState(one)) === "disabled") disabled.push(one);
  if (disabled.length === 0) return;
  // Whoever leads has written it; its answer to anything shows that it has come to the answer to that.
  await call("GET", "/healthz");
  for (const { id: sub } of disabled) log.append({ e: "disabled", sub });
}

/** Waits until the last change is a message. */
async function untilJournaled(): Promise<void> {
  for (;;) {
    const { rowCount } = await database.client.query(
      `select from ancrage.messages where convert_from(body, 'utf8')::json ->> 'note' = $1::text`,
      [String(lastCommitted)],
    );
    if (rowCount === 1 || lastCommitted === 0) return;
    await pause(10);
  }
}

async function subscribe(run: Run, event: EventName, order: "none" | "record" | "all"): Promise<void> {
  const path = `/${++lastPath}`;
  const url = event === "ItemChanged" ? receiver.url : receiver.forbiddenUrl;
  const body = { event, url: url + path, format: "bare", order, headers: { "x-password": "the-receivers-own-password" } };
  const answer = await call("POST", "/v1/subscriptions", body);
  if (answer?.status !== 201) throw new Error(`a subscription was not made: ${JSON.stringify(answer)}`);
  const { id, secret } = answer.body;
  secrets.add(secret).add(String(secret).slice("whsec_".length));
  log.append({ e: "created", sub: id, event, order });
  run.subscribers.push({ id, path, isPaused: false, isDeleted: false, isLapsing: false });
}

async function resume(one: Subscriber): Promise<void> {
  log.append({ e: "resuming", sub: one.id });
  if (one.isLapsing) expect((await call("PATCH", `/v1/subscriptions/${one.id}`, { expiresAt: null }))?.status).toBe(200);
  one.isLapsing = false;
  const answer = await call("POST", `/v1/subscriptions/${one.id}/enable`);
  expect(answer?.status).toBe(200);
  one.isPaused = false;
  log.append({ e: "resumed", sub: one.id });
}

async function remove(one: Subscriber, random?: Random): Promise<void> {
  log.append({ e: "deleting", sub: one.id });
  const path = `/v1/subscriptions/${one.id}`;
  const first = random === undefined ? await call("DELETE", path) : await callOrKill(random, "DELETE", path);
  one.isDeleted = true;
  // Killed meanwhile, nobody knows whether it is: now it is.
  const answer = first ?? (await call("DELETE", path));
  expect(answer?.status).toBe(200);
  log.append({ e: "deleted", sub: one.id });
}

async function crash(random: Random): Promise<void> {
  await pause(random.integer(0, 20));
  await system.kill();
  // Some are killed while they start.
  if (random.chance(0.2)) {
    const started = system.start().catch(() => undefined);
    await pause(random.integer(0, 1_000));
    await system.kill();
    await started;
  }
  await system.start();
}

type Answer = Awaited<ReturnType<ModelProcess["call"]>>;

/** Of the process that leads; sometimes that is killed in the middle of it, and sometimes another process is asked. */
async function callOrKill(random: Random, method: string, path: string, body?: unknown): Promise<Answer> {
  if (random.chance(0.1)) return await callBeside(method, path, body);
  if (!random.chance(0.1)) return await call(method, path, body);
  const answer = system.call(method, path, body);
  await pause(random.integer(0, 15));
  await system.kill();
  await system.start();
  return await answer;
}

const call = async (method: string, path: string, body?: unknown): Promise<Answer> => await system.call(method, path, body);

async function callBeside(method: string, path: string, body?: unknown): Promise<Answer> {
  const response = await api.fetch(
    new Request(`http://ancrage.test${path}`, {
      method,
      headers: { authorization: "Bearer a-token-of-the-operator", "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    }),
  );
  const text = await response.text();
  const answer = { status: response.status, body: text === "" ? undefined : JSON.parse(text) };
  // On a busy machine the one that leads may take its time.
  return answer.body?.code === "not-heeded" ? await callBeside(method, path, body) : answer;
}

// --- what came of it -------------------------------------------------------------------------------------------------------------

interface FoundRow extends State {
  readonly sub: string;
  readonly message: string;
}

interface FoundMessage {
  readonly id: string;
  readonly note: number;
  readonly digest: string;
}

async function readDeliveries({ subscribers }: Run): Promise<readonly FoundRow[]> {
  const { rows } = await database.client.query<FoundRow>(
    `select subscription_id as sub, message_id as message, state::text as state, round, attempts from ancrage.deliveries
     where subscription_id = any($1) order by message_id, subscription_id`,
    [subscribers.map(({ id }) => id)],
  );
  return rows;
}

async function readMessages(firstNote: number): Promise<readonly FoundMessage[]> {
  const { rows } = await database.client.query<{ id: string; body: Buffer }>(
    "select id, body from ancrage.messages where event like 'Item%'",
  );
  return rows.flatMap(({ id, body }) => {
    const { note } = JSON.parse(body.toString()) as { note: number };
    return note < firstNote ? [] : [{ id, note, digest: createHash("sha256").update(body).digest("hex") }];
  });
}

interface Settled {
  readonly faults: readonly string[];
  readonly entries: readonly Entry[];
  readonly messages: readonly FoundMessage[];
  readonly rows: readonly FoundRow[];
  readonly judged: Judged;
}

/** Waits until all that is owed has a row that stands where the model says, and until nothing is left to do but for those that are paused. */
async function settle(run: Run, firstNote: number): Promise<Settled> {
  const entries: Entry[] = [];
  const waiting = new Set(run.subscribers.filter(({ isPaused, isDeleted }) => isPaused && !isDeleted).map(({ id }) => id));
  const untilMs = performance.now() + settleMs;
  for (;;) {
    // In this order: of what stands in a row the log tells, and of what the log tells there is a message.
    const rows = await readDeliveries(run);
    entries.push(...log.take());
    const messages = await readMessages(firstNote);
    const notes = new Map(messages.map(({ id, note }) => [id, note]));
    const judged = judge(entries, { attempts: schedule.length, notes });
    const byName = new Map(rows.map((row) => [`${row.sub} ${notes.get(row.message)}`, row]));
    const isDone = ({ sub, note, isOwed, possible }: ModelDelivery): boolean => {
      const row = byName.get(`${sub} ${note}`);
      if (row === undefined) return !isOwed || isDeleted(run, sub);
      return (waiting.has(sub) || isOver(row)) && possible.some((state) => isSame(state, row));
    };
    const open = [...judged.deliveries.values()].filter((one) => !isDone(one));
    if (open.length === 0) return { faults: [], entries, messages, rows, judged };
    if (judged.faults.length > 0) return { faults: [], entries, messages, rows, judged };
    if (performance.now() > untilMs) {
      const stuck = open.map(({ note, sub, possible }) => {
        const row = JSON.stringify(byName.get(`${sub} ${note}`));
        return `${note} for ${sub} is not over: its row is ${row}, the model says ${JSON.stringify(possible)}`;
      });
      return { faults: stuck, entries, messages, rows, judged };
    }
    await pause(50);
  }
}

const isSame = (one: State, other: State): boolean =>
  one.state === other.state && one.round === other.round && one.attempts === other.attempts;
const isOver = ({ state }: State): boolean => state !== "pending" && state !== "retrying";
const isDeleted = ({ subscribers }: Run, sub: string): boolean => subscribers.find(({ id }) => id === sub)?.isDeleted !== false;

/** (a): each change that was committed is one message, and has its deliveries, which `settle` has waited for, and no others. */
function faultsOfRows({ entries, messages, rows, judged }: Settled): readonly string[] {
  const faults: string[] = [];
  const committed = entries.flatMap((entry) => (entry.e === "committing" ? entry.changes.map(({ note }) => note) : []));
  expect(messages.map(({ note }) => note).toSorted((a, b) => a - b)).toEqual(committed);
  const notes = new Map(messages.map(({ id, note }) => [id, note]));
  for (const row of rows) {
    if (!judged.deliveries.has(`${row.sub} ${notes.get(row.message)}`))
      faults.push(`${row.message} has a delivery for ${row.sub}, which it is not for`);
  }
  return faults;
}

/** (b): what came is what the journal has, was begun, and was taken where the system says so. */
function faultsOfReceived({ entries, messages }: Settled): readonly string[] {
  const faults: string[] = [];
  const digests = new Map(messages.map(({ id, digest }) => [id, digest]));
  const nameOf = ({ sub, message, number }: { readonly sub: string; readonly message: string; readonly number: number }): string =>
    `attempt ${number} of ${message} for ${sub}`;
  const begun = Map.groupBy(
    entries.filter((entry) => entry.e === "begin"),
    nameOf,
  );
  const received = Map.groupBy(receiver.received, nameOf);
  for (const [name, all] of received) {
    if (all.length > (begun.get(name)?.length ?? 0)) faults.push(`${name} came ${all.length} times`);
    for (const { message, digest } of all) if (digest !== digests.get(message)) faults.push(`${name} has other bytes`);
  }
  const ended = entries.flatMap((entry) => {
    if (entry.e !== "finish" || entry.after === null) return [];
    return [{ name: nameOf({ ...entry, number: entry.after.attempts }), isSuccess: entry.isSuccess, isRefused: isRefused(entry) }];
  });
  for (const [name, all] of Map.groupBy(ended, (one) => one.name)) {
    const taken = received.get(name)?.filter(({ isTaken }) => isTaken).length ?? 0;
    const successes = all.filter(({ isSuccess }) => isSuccess).length;
    if (taken < successes) faults.push(`${name} is delivered, but was not taken`);
    const refused = all.filter((one) => one.isRefused).length;
    if (taken > (begun.get(name)?.length ?? 0) - refused) faults.push(`${name} was taken, but counts as a failure`);
  }
  return faults;
}

/** A failure that only a receiver makes that has not taken the request; after a deadline it may still take it. */
const isRefused = ({ isSuccess, reason }: Entry & { readonly e: "finish" }): boolean =>
  !isSuccess && (reason === "status" || reason === "reset");

/** Each failed attempt of the present round has its row, once; late ones are apart. */
async function faultsOfAttempts({ subscribers }: Run): Promise<readonly string[]> {
  const { rows } = await database.client.query<{ words: string }>(
    `select d.message_id || ' for ' || d.subscription_id || ': ' || d.state || ' ' || d.round || '/' || d.attempts || ', attempts '
       || coalesce(string_agg(a.number::text, ' ' order by a.number), 'none') as words
     from ancrage.deliveries d
     left join ancrage.attempts a on a.message_id = d.message_id and a.subscription_id = d.subscription_id and a.round = d.round
       and not a.is_late and a.reason <> 'delivered'
     where d.subscription_id = any($1)
     group by d.message_id, d.subscription_id, d.state, d.round, d.attempts
     having count(a.number) <> d.attempts - (d.state = 'delivered')::integer or count(distinct a.number) <> count(a.number)`,
    [subscribers.map(({ id }) => id)],
  );
  return rows.map(({ words }) => words);
}
