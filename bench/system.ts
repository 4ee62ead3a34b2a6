import { randomBytes } from "node:crypto";
import { Session, type Profiler } from "node:inspector/promises";
import { createAncrage, migrate, type Ancrage } from "../src/create-ancrage.ts";
import { defineEvent } from "../src/event/define.ts";
import { createTrace, type Passed, type Trace } from "./trace.ts";
import { answerParent, type Methods } from "./child.ts";
import { secretKey } from "./secret-key.ts";

/** The system under test: one process with nothing in it but Ancrage. */
export interface SystemMethods extends Methods {
  migrate(databaseUrl: string, options: SystemOptions): Promise<void>;
  start(databaseUrl: string, options: SystemOptions): Promise<void>;
  /** Ends all subscriptions but these; returns their secrets. */
  subscribe(urls: readonly string[]): Promise<readonly string[]>;
  /** When each event of this process passed each step, by its number; of a process that was started with `isTraced`. */
  trace(): ReadonlyMap<number, Passed>;
  /** CPU of this process so far, user and system, in microseconds. */
  cpuUs(): number;
  /** The most memory that this process has had, in MiB. */
  mostMemoryMiB(): number;
  startProfile(): Promise<void>;
  stopProfile(): Promise<Profiler.Profile>;
  stop(): Promise<void>;
}

/** What a section asks for beside the defaults. */
export interface SystemOptions {
  readonly capture?: "wal" | "outbox";
  readonly timeoutMs?: number;
  /** Changes are captured and matched, and none of them makes a message. */
  readonly isIdle?: boolean;
  readonly isTraced?: boolean;
}

/** Fine enough for what takes microseconds; a tenth of the default. */
const profileIntervalUs = 100;

let ancrage: Ancrage | undefined;
let traced: Trace | undefined;
let session: Session | undefined;

answerParent({
  async migrate(database, options) {
    await migrate(ancrageOptions(database, options));
  },
  async start(database, options) {
    const trace = options.isTraced === true ? (traced = createTrace()) : undefined;
    ancrage = createAncrage(ancrageOptions(database, options), trace === undefined ? {} : { signal: trace.signal });
    await ancrage.start();
  },
  async subscribe(urls) {
    if (ancrage === undefined) throw new Error("expected start() to be called first");
    const { subscriptions } = ancrage;
    for (const { id } of await subscriptions.list({ project: undefined, limit: 1_000 })) await subscriptions.delete(id);
    const secrets: string[] = [];
    for (const url of urls) secrets.push((await subscriptions.create({ event: "ItemCreated", url })).secret);
    return secrets;
  },
  trace: () => traced?.passed ?? new Map<number, Passed>(),
  cpuUs() {
    const { user, system } = process.cpuUsage();
    return user + system;
  },
  mostMemoryMiB: () => process.resourceUsage().maxRSS / 1024,
  async startProfile() {
    session = new Session();
    session.connect();
    await session.post("Profiler.enable");
    await session.post("Profiler.setSamplingInterval", { interval: profileIntervalUs });
    await session.post("Profiler.start");
  },
  async stopProfile() {
    if (session === undefined) throw new Error("expected a profile that was started, got none");
    const { profile } = await session.post("Profiler.stop");
    session.disconnect();
    return profile;
  },
  async stop() {
    await ancrage?.stop();
    ancrage = undefined;
  },
} satisfies SystemMethods);

function ancrageOptions(database: string, { capture = "wal", timeoutMs, isIdle = false }: SystemOptions) {
  return {
    database,
    capture: capture as "wal",
    events: { ItemCreated: isIdle ? ItemIgnored : ItemCreated },
    token: randomBytes(24).toString("base64url"),
    secretKey,
    allowHttp: true,
    allowNetworks: ["127.0.0.0/8"],
    logLevel: "warn",
    delivery: { timeoutMs },
  } as const;
}

const rule = { description: "An item was inserted.", table: "item", on: "insert" } as const;
const ItemCreated = defineEvent({ ...rule, payload: (item) => ({ number: item["id"], note: item["note"] }) });
const ItemIgnored = defineEvent({ ...rule, where: () => false, payload: () => ({}) });
