import type pg from "pg";
import type { TriggerCame } from "./build-messages.ts";
import { startOfLog } from "./capture/change.ts";
import type { Clock } from "./clock.ts";
import type { Engine } from "./engine.ts";
import { AncrageError } from "./errors.ts";
import type { Catalogue } from "./event/catalogue.ts";
import { explain } from "./explain.ts";
import { formatMessage } from "./format.ts";
import type { Services, Status, Triggered, TriggerOptions } from "./http/services.ts";
import { createJobService } from "./job/service.ts";
import { computeMessageId } from "./message-id.ts";
import type { Logger } from "./log.ts";
import type { Readings } from "./metrics.ts";
import type { CheckedOptions } from "./options.ts";
import type { PayloadDeps } from "./payload/build.ts";
import { readRecords } from "./payload/load.ts";
import { createSampleReaders } from "./payload/record-readers.ts";
import { readSamples } from "./payload/sample.ts";
import { readStatus } from "./status.ts";
import { readLastSource } from "./store/jobs.ts";
import { readOpenGaps, type Gap } from "./store/gaps.ts";
import { listSubscriptions } from "./store/subscriptions.ts";
import { emitTrigger } from "./store/triggers.ts";
import type { ValueTypes } from "./store/types.ts";
import { createTokenService } from "./tokens.ts";
import type { SecretKey } from "./subscription/secret.ts";
import type { SubscriptionService } from "./subscription/subscription.ts";

/** What the services are made of. */
export interface ServiceParts {
  /** A pool of the API's own: a slow listing holds up nobody else. */
  readonly api: pg.Pool;
  readonly engine: Engine;
  readonly subscriptions: SubscriptionService;
  readonly options: CheckedOptions;
  readonly token: string;
  readonly secretKey: SecretKey;
  readonly log: Logger;
  readonly waiting: Map<string, (came: TriggerCame) => void>;
  readonly catalogue: Catalogue;
  readonly types: ValueTypes;
  readonly payload: PayloadDeps;
  readonly clock: Clock;
}

/** What the routes are handed. */
export function createServices(parts: ServiceParts): Services {
  const { api, catalogue, types, payload, engine, log, clock } = parts;
  const sampleReaders = createSampleReaders(api, types, clock);
  const openGaps = createGapReader(api, clock, () => engine.failure);
  const eventOf = (name: string): NonNullable<ReturnType<Catalogue["events"]["get"]>> => {
    const event = catalogue.events.get(name);
    if (event === undefined) throw new AncrageError("ANCRAGE_TRIGGER_UNKNOWN_EVENT", `no file defines the event "${name}".`);
    return event;
  };
  return {
    db: api,
    subscriptions: parts.subscriptions,
    tokens: createTokenService({ db: api, secretKey: parts.secretKey }),
    jobs: createJobService({
      db: api,
      catalogue: () => catalogue,
      payload,
      sourceId: () => readLastSource(api),
      onChanged: () => engine.jobs?.wake(),
      // Where another process leads, its sweep finds it within 5 s.
      wake: (subscriptionId) => engine.dispatcher?.added(subscriptionId),
      unpark: (name) => engine.pipeline?.unpark(name),
    }),
    catalogue: () => catalogue,
    publicUrl: parts.options.publicUrl,
    cursorKey: parts.secretKey,
    operatorToken: parts.token,
    logError: (error, context) => log.error({ err: error, ...context }, "the API answered with an error of ours"),
    status: () => readStatus(engine, catalogue, openGaps),
    async metrics() {
      const { renderMetrics } = await import("./metrics.ts");
      return renderMetrics(readingsOf(engine, await readStatus(engine, catalogue, openGaps)));
    },
    async samples(name, { limit, project, format }) {
      const { samples } = await readSamples(eventOf(name), { limit, project }, { ...payload, ...sampleReaders });
      const committedAtUs = BigInt(Math.trunc(clock.nowMs())) * 1000n;
      // What a delivery's body holds, of a message that has not happened.
      return samples.map(({ json, key = "" }): unknown =>
        JSON.parse(
          formatMessage(format, { id: sampleId(name, key), event: name, key, committedAtUs, body: Buffer.from(json) }).toString("utf8"),
        ),
      );
    },
    explain: (name, { key, project }) =>
      explain(
        name,
        { key, project },
        {
          ...payload,
          catalogue,
          isParked: (event) => engine.pipeline?.parked().includes(event) === true,
          subscriptionsOf: (of, event) => listSubscriptions(api, { project: of, event, limit: 100 }),
        },
      ),
    trigger: (name, trigger) => triggerEvent(name, trigger, parts),
  };
}

async function triggerEvent(name: string, options: TriggerOptions, parts: ServiceParts): Promise<Triggered | undefined> {
  const { key, data, waitMs, project } = options;
  if (project !== undefined && (await projectOfKey(name, options, parts)) !== project) return undefined;
  let answer: ((came: TriggerCame | undefined) => void) | undefined;
  const came = new Promise<TriggerCame | undefined>((resolve) => (answer = resolve));
  let id = "";
  try {
    await emitTrigger(parts.api, { event: name, key, data }, (uuid) => {
      id = uuid;
      // Before the commit: the log may come to it before the answer to the commit does.
      if (waitMs !== undefined && answer !== undefined) parts.waiting.set(uuid, answer);
    });
    if (waitMs === undefined) return { id, outcome: { kind: "pending" } };
    const timer = setTimeout(() => answer?.(undefined), waitMs);
    const outcome = await came;
    clearTimeout(timer);
    return { id, outcome: outcome ?? { kind: "pending" } };
  } finally {
    parts.waiting.delete(id);
  }
}

/**
 * Whose record a key is; undefined where there is none, where it is no key of that table, and where the code cannot say whose it is. One
 * project's token must not make events of another, nor hear what another's record makes the code throw.
 */
async function projectOfKey(
  name: string,
  { key, data }: TriggerOptions,
  { catalogue, payload }: ServiceParts,
): Promise<string | undefined> {
  const event = catalogue.events.get(name);
  if (event === undefined) return undefined;
  const record = event.table === undefined ? { key, data } : (await readRecords(payload.readers, event.table, [key])).get(key);
  if (record === undefined || record instanceof Error) return undefined;
  try {
    return catalogue.projectOf(event, record);
  } catch {
    return undefined;
  }
}

/** Another one for each record, and the same at each look: a client that polls samples tells new ones by their id. */
function sampleId(event: string, key: string): string {
  const transaction = { xid: 0, commitLsn: 0n, committedAtUs: 0n };
  return computeMessageId({ sourceId: "sample", transaction, position: startOfLog, event, key });
}

function readingsOf(engine: Engine, status: Status): Readings {
  return {
    status,
    isLeading: engine.state === "leading",
    slot: engine.slotHealth,
    subscriptions: engine.registry.size,
    deliveriesInMemory: engine.dispatcher?.heldCount ?? 0,
    lanesBehind: engine.dispatcher?.behindCount ?? 0,
    ignoredTriggers: engine.ignoredMarks,
    messages: 0,
    rejections: 0,
    deliveries: {},
    ...engine.pipeline?.counts,
  };
}

/** `/readyz` needs no token: asking it in a loop must not keep the API's sessions busy. */
function createGapReader(db: pg.Pool, clock: Clock, failure: () => unknown): () => Promise<readonly Gap[]> {
  let read: { readonly atMs: number; readonly failure: unknown; readonly gaps: Promise<readonly Gap[]> } | undefined;
  return () => {
    const nowMs = clock.monotonicMs();
    // A database that does not answer has its own problem in the status.
    // What ended capture was noted as a gap just now: who looks at the one finds the other.
    if (read === undefined || nowMs - read.atMs > 5_000 || read.failure !== failure()) {
      read = { atMs: nowMs, failure: failure(), gaps: readOpenGaps(db).catch(() => []) };
    }
    return read.gaps;
  };
}
