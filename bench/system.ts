import { randomBytes } from "node:crypto";
import { Session, type Profiler } from "node:inspector/promises";
import { createAncrage, migrate, type Ancrage } from "../src/create-ancrage.ts";
import { defineEvent } from "../src/event/define.ts";
import { answerParent, type Methods } from "./child.ts";

/** The system under test: one process with nothing in it but Ancrage. */
export interface SystemMethods extends Methods {
  start(databaseUrl: string): Promise<void>;
  subscribe(url: string): Promise<void>;
  /** CPU of this process so far, user and system, in microseconds. */
  cpuUs(): number;
  startProfile(): Promise<void>;
  stopProfile(): Promise<Profiler.Profile>;
  stop(): Promise<void>;
}

/** Fine enough for what takes microseconds; a tenth of the default. */
const profileIntervalUs = 100;

const ItemCreated = defineEvent({
  description: "An item was inserted.",
  table: "item",
  on: "insert",
  payload: (item) => ({ number: item["id"], note: item["note"] }),
});

let ancrage: Ancrage | undefined;
let session: Session | undefined;

answerParent({
  async start(database) {
    const options = {
      database,
      events: { ItemCreated },
      token: randomBytes(24).toString("base64url"),
      secretKey: randomBytes(32).toString("base64"),
      allowHttp: true,
      allowNetworks: ["127.0.0.0/8"],
      logLevel: "warn",
    } as const;
    await migrate(options);
    ancrage = createAncrage(options);
    await ancrage.start();
  },
  async subscribe(url) {
    await ancrage?.subscriptions.create({ event: "ItemCreated", url });
  },
  cpuUs() {
    const { user, system } = process.cpuUsage();
    return user + system;
  },
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
  },
} satisfies SystemMethods);
