import { randomBytes } from "node:crypto";
import type pg from "pg";
import { createSecret, parseSecretKey, sealSecret } from "../src/subscription/secret.ts";
import { nowMs } from "./clock.ts";
import { inTime, openEnvironment, type Environment } from "./environment.ts";
import { secretKey } from "./secret-key.ts";
import type { Server } from "./server.ts";

/** A process that starts over many subscriptions, of which one has something to do; and over that one alone. */
export interface ManySubscriptions {
  readonly subscriptions: number;
  readonly many: Started;
  readonly one: Started;
}

interface Started {
  /** From the start of the process until capture streams. */
  readonly startMs: number;
  /** From the first commit after that to its arrival. */
  readonly firstDeliveryMs: number;
  /** The most memory that the process had, code and all. */
  readonly rssMiB: number;
}

/** Events that the others have subscribed to. */
const eventCount = 1_000;

export async function measureManySubscriptions(server: Server, count: number, tell: (words: string) => void): Promise<ManySubscriptions> {
  const env = await openEnvironment(server);
  try {
    await env.subscribe([`${env.urls.http}/hook`]);
    const one = await measureStart(env);
    // What the log says of so many insertions is read by a start of its own.
    await env.restart({}, () => insertSubscriptions(env.database.client, count));
    await env.caughtUp();
    const many = await measureStart(env);
    tell(
      `scale: start ${Math.round(one.startMs)} ms with one subscription, ${Math.round(many.startMs)} ms with ${count}; first delivery ${one.firstDeliveryMs.toFixed(1)} and ${many.firstDeliveryMs.toFixed(1)} ms; ${Math.round(one.rssMiB)} and ${Math.round(many.rssMiB)} MiB`,
    );
    return { subscriptions: count, many, one };
  } finally {
    await env.remove();
  }
}

async function measureStart(env: Environment): Promise<Started> {
  let startedAtMs = 0;
  await env.restart({}, async () => void (startedAtMs = nowMs()));
  const startMs = nowMs() - startedAtMs;
  const { all } = await env.arrivals(1);
  const { committedAtMs } = await env.writer.call("writeBulk", 1);
  const { lastAtMs } = await inTime(all);
  await env.settled();
  return { startMs, firstDeliveryMs: lastAtMs - committedAtMs, rssMiB: await env.system.call("mostMemoryMiB") };
}

/** Copies of the one that is there, each with a secret of its own, as the API makes them; none of them has anything to send. */
async function insertSubscriptions(client: pg.Client, count: number): Promise<void> {
  const key = parseSecretKey(secretKey);
  const at = new Date();
  for (let from = 0; from < count; from += chunkRows) {
    const made = Array.from({ length: Math.min(chunkRows, count - from) }, () => {
      const id = `sub_${randomBytes(13).toString("hex").toUpperCase()}`;
      return { id, secrets: JSON.stringify([sealSecret(key, { project: "default", id }, createSecret(), at)]) };
    });
    await client.query(
      `insert into ancrage.subscriptions (id, project, secrets, events, url, description, format, filter, headers, delivery_order, limits,
         metadata, expires_at, ignored_actors, start_lsn)
       select n.id, s.project, n.secrets, array['Event' || ($3 + n.number) % $4], 'https://receiver-' || $3 + n.number || '.example.com/',
         s.description, s.format, s.filter, s.headers, s.delivery_order, s.limits, s.metadata, s.expires_at, s.ignored_actors, s.start_lsn
       from unnest($1::text[], $2::jsonb[]) with ordinality as n (id, secrets, number),
         (select * from ancrage.subscriptions where 'ItemCreated' = any (events) and state = 'enabled' limit 1) as s`,
      [made.map(({ id }) => id), made.map(({ secrets }) => secrets), from, eventCount],
    );
  }
  await client.query("vacuum (analyze) ancrage.subscriptions");
}

const chunkRows = 10_000;
