import { createSecretKey } from "node:crypto";
import pg from "pg";
import { Pool, type Dispatcher } from "undici";
import { computeSignature } from "../../src/deliver/sign.ts";
import type { Methods } from "../child.ts";

/** What a peer answers to. It runs twice: one process is the application, which adds jobs, the other does them. */
export interface PeerMethods extends Methods {
  /** Makes its tables and its queue. */
  prepare(databaseUrl: string): Promise<void>;
  /** As an application would: rows and their jobs, in one transaction where the peer can. */
  enqueue(work: { readonly databaseUrl: string; readonly rows: number; readonly note: string }): Promise<{ readonly startedAtMs: number }>;
  start(work: WorkOptions): Promise<void>;
  /** CPU of this process so far, in microseconds. */
  cpuUs(): number;
  stop(): Promise<void>;
}

export interface WorkOptions {
  readonly databaseUrl: string;
  readonly url: string;
  readonly secret: string;
}

/** A row of the application's, as a job carries it. */
export interface Item {
  readonly id: number;
  readonly note: string;
}

/** Requests at once; as many as one of Ancrage's lanes has. */
export const inFlight = 64;

export interface Result {
  readonly job: string;
  readonly status: number;
  readonly durationMs: number;
}

/** The work that all peers do, with the same code as the ceiling's and the same headers as Ancrage's. */
export interface Worker {
  /** Signs and posts. */
  send(job: string, item: Item): Promise<Result>;
  close(): Promise<void>;
}

export function createWorker({ url, secret }: WorkOptions): Worker {
  const { origin, pathname } = new URL(url);
  const pool = new Pool(origin, { connections: inFlight, pipelining: 1 });
  const key = createSecretKey(Buffer.from(secret.replace(/^whsec_/, ""), "base64"));
  return {
    send(job, { id, note }) {
      const at = new Date();
      const body = Buffer.from(JSON.stringify({ type: "ItemCreated", timestamp: at.toISOString(), data: { number: id, note } }));
      const timestampS = Math.floor(at.getTime() / 1000);
      const webhookId = `msg_${job.padStart(56, "0")}`;
      const headers = [
        "content-type",
        "application/json",
        "user-agent",
        "Ancrage/0.0.0",
        "accept-encoding",
        "identity",
        "webhook-id",
        webhookId,
        "webhook-timestamp",
        String(timestampS),
        "webhook-signature",
        computeSignature([key], webhookId, timestampS, body),
        "ancrage-event",
        "ItemCreated",
        "ancrage-attempt",
        "1",
        "ancrage-subscription",
        "sub_00000000000000000000000000",
      ];
      const startedAtMs = performance.now();
      return new Promise((resolve, reject) => {
        let status = 0;
        const handler: Dispatcher.DispatchHandler = {
          onRequestStart() {},
          onResponseStart(_controller, code) {
            status = code;
          },
          onResponseData() {},
          onResponseEnd() {
            resolve({ job, status, durationMs: Math.round(performance.now() - startedAtMs) });
          },
          onResponseError(_controller, error) {
            reject(error);
          },
        };
        pool.dispatch({ path: pathname, method: "POST", headers, body }, handler);
      });
    },
    close: () => pool.close(),
  };
}

export interface Queryable {
  query(text: string, values: unknown[]): Promise<unknown>;
}

/** One row a job that was done. */
export async function insertResults(db: Queryable, results: readonly Result[]): Promise<void> {
  await db.query(
    `insert into sent (job, status, duration_ms, at) select job, status, duration_ms, now() from unnest($1::text[], $2::integer[], $3::integer[]) as r (job, status, duration_ms)`,
    [results.map(({ job }) => job), results.map(({ status }) => status), results.map(({ durationMs }) => durationMs)],
  );
}

/** For peers that end one job at a time: what comes in while a statement is under way goes with the next one. */
export interface Recorder {
  /** Resolves when it is committed. */
  record(result: Result): Promise<void>;
}

export function createRecorder(db: Queryable): Recorder {
  let waiting: { readonly result: Result; readonly resolve: () => void; readonly reject: (error: unknown) => void }[] = [];
  let isWriting = false;
  const write = async (): Promise<void> => {
    isWriting = true;
    while (waiting.length > 0) {
      const these = waiting;
      waiting = [];
      try {
        await insertResults(
          db,
          these.map(({ result }) => result),
        );
        for (const { resolve } of these) resolve();
      } catch (error) {
        for (const { reject } of these) reject(error);
      }
    }
    isWriting = false;
  };
  return {
    record: (result) =>
      new Promise((resolve, reject) => {
        waiting.push({ result, resolve, reject });
        if (!isWriting) void write();
      }),
  };
}

export const sentTable = `create table sent (job text primary key, status integer not null, duration_ms integer not null, at timestamptz not null)`;

export function cpuUs(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

export async function withClient<Value>(databaseUrl: string, work: (client: pg.Client) => Promise<Value>): Promise<Value> {
  const client = new pg.Client({ connectionString: databaseUrl, application_name: "bench application" });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
