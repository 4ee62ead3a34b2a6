import { randomBytes } from "node:crypto";
import pg from "pg";
import { answerParent, type Methods } from "./child.ts";
import { nowMs } from "./clock.ts";

/** The application: it writes rows and knows nothing of Ancrage. PostgreSQL does most of its work, so that it takes little CPU. */
export interface WriterMethods extends Methods {
  connect(databaseUrl: string): Promise<void>;
  /** One transaction. */
  writeBulk(rows: number, noteBytes?: number): Promise<Written>;
  /** A transaction a row, from so many sessions at once. */
  writeSmall(rows: number, sessions?: number): Promise<Written>;
  /** A transaction a row, at random times (Poisson) of the given rate, whether or not the one before is done. */
  writePaced(pace: { readonly rows: number; readonly perS: number }): Promise<readonly PacedCommit[]>;
  end(): Promise<void>;
}

export interface Written {
  readonly startedAtMs: number;
  /** When the last commit was acknowledged. */
  readonly committedAtMs: number;
}

export interface PacedCommit {
  readonly number: number;
  /** When the application sent its COMMIT, and when PostgreSQL had answered it. */
  readonly sentAtMs: number;
  readonly acknowledgedAtMs: number;
}

/** With the envelope around it the body is 500 bytes. Letters at random, so that PostgreSQL compresses no more than it would of a text. */
const noteBytes = 336;
const notes = randomBytes(8 * 1024).toString("base64");
const note = notes.slice(0, noteBytes);
const sessionCount = 8;
let pool: pg.Pool | undefined;

answerParent({
  async connect(connectionString) {
    pool = new pg.Pool({ connectionString, application_name: "bench writer", max: sessionCount, idleTimeoutMillis: 0 });
    const clients = await Promise.all(Array.from({ length: sessionCount }, () => connected().connect()));
    for (const client of clients) client.release();
  },
  async writeBulk(rows, bytes = noteBytes) {
    const startedAtMs = nowMs();
    await connected().query(`insert into item (note) select $1 from generate_series(1, $2)`, [notes.slice(0, bytes), rows]);
    return { startedAtMs, committedAtMs: nowMs() };
  },
  async writeSmall(rows, sessions = sessionCount) {
    const startedAtMs = nowMs();
    // The loop runs in the server: each turn is a transaction of its own that waits for the disk, and costs this process nothing.
    const loop = (count: number): string =>
      `do $$ begin for i in 1..${count} loop insert into item (note) values ('${note}'); commit; end loop; end $$`;
    const share = Math.floor(rows / sessions);
    const counts = Array.from({ length: sessions }, (_, index) => (index === 0 ? rows - share * (sessions - 1) : share));
    await Promise.all(counts.map((count) => connected().query(loop(count))));
    return { startedAtMs, committedAtMs: nowMs() };
  },
  async writePaced({ rows, perS }) {
    const commits: Promise<PacedCommit>[] = [];
    let dueAtMs = nowMs();
    for (let row = 0; row < rows; row++) {
      dueAtMs += (-Math.log(1 - Math.random()) * 1000) / perS;
      await until(dueAtMs);
      commits.push(commitOne());
    }
    return Promise.all(commits);
  },
  async end() {
    await pool?.end();
  },
} satisfies WriterMethods);

function connected(): pg.Pool {
  if (pool === undefined) throw new Error("expected connect() to be called first");
  return pool;
}

async function commitOne(): Promise<PacedCommit> {
  const session = await connected().connect();
  try {
    await session.query("begin");
    const { rows } = await session.query<{ id: number }>("insert into item (note) values ($1) returning id", [note]);
    const sentAtMs = nowMs();
    await session.query("commit");
    return { number: rows[0]?.id ?? 0, sentAtMs, acknowledgedAtMs: nowMs() };
  } finally {
    session.release();
  }
}

async function until(atMs: number): Promise<void> {
  const waitMs = atMs - nowMs();
  if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
}
