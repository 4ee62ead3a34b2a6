import { randomBytes } from "node:crypto";
import pg from "pg";
import { inject } from "vitest";

export interface TestDatabase {
  readonly url: string;
  readonly name: string;
  /** A superuser's session, for the test itself. */
  readonly client: pg.Client;
  /** One more session, closed with the database. */
  connect(): Promise<pg.Client>;
  /** Drops it with its slots. Fails where somebody of ours is still connected: the test left a pool behind. */
  remove(): Promise<void>;
}

/** A database of its own, cloned from the template (about 40 ms): the schema `ancrage` is in it, no publication and no slot. */
export async function cloneDatabase(): Promise<TestDatabase> {
  const serverUrl = inject("serverUrl");
  const name = `ancrage_test_${randomBytes(6).toString("hex")}`;
  await asAdmin(serverUrl, async (admin) => {
    await admin.query(`create database ${name} template ${inject("templateDatabase")}`);
    // Nothing that is sent may depend on how a database writes its values: `npm run test:elsewhere` runs all on one that does so oddly.
    if (process.env["ANCRAGE_TEST_ELSEWHERE"] === undefined) return;
    await admin.query(`alter database ${name} set datestyle = 'SQL, DMY'`);
    await admin.query(`alter database ${name} set timezone = 'Asia/Kolkata'`);
  });
  const address = new URL(serverUrl);
  address.pathname = `/${name}`;
  const url = address.href;
  const sessions: pg.Client[] = [];
  const connect = async (): Promise<pg.Client> => {
    const client = new pg.Client({ connectionString: url, application_name: "test" });
    // A test that kills its own backend must not be ended by that.
    client.on("error", () => undefined);
    await client.connect();
    sessions.push(client);
    return client;
  };
  return {
    url,
    name,
    client: await connect(),
    connect,
    async remove() {
      await Promise.all(sessions.map((session) => session.end().catch(() => undefined)));
      await asAdmin(serverUrl, async (admin) => {
        const left = await readLeftOpen(admin, name);
        await admin.query(
          `select pg_terminate_backend(active_pid) from pg_replication_slots where database = $1 and active_pid is not null`,
          [name],
        );
        await admin.query(`drop database if exists ${name} with (force)`).catch(async () => {
          await dropSlots(admin, name);
          await admin.query(`drop database if exists ${name} with (force)`);
        });
        if (left.length > 0) throw new Error(`sessions were left open: ${JSON.stringify(left)}`);
      });
    },
  };
}

interface LeftOpen {
  readonly application_name: string;
  readonly query: string;
}

/** Sessions that nobody closed. Those of a process that was killed a moment ago end as soon as the server has seen it. */
async function readLeftOpen(admin: pg.Client, database: string): Promise<readonly LeftOpen[]> {
  for (let turn = 0; ; turn++) {
    const { rows } = await admin.query<LeftOpen>(
      // The server's own workers (autovacuum) are nobody's to close.
      `select application_name, query from pg_stat_activity
       where datname = $1 and application_name <> 'test' and backend_type in ('client backend', 'walsender')`,
      [database],
    );
    // Less than the 10 s after which a pool closes its idle sessions by itself: one that was left is still found.
    if (rows.length === 0 || turn === 100) return rows;
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}

async function dropSlots(admin: pg.Client, database: string): Promise<void> {
  const { rows } = await admin.query<{ slot_name: string }>(`select slot_name from pg_replication_slots where database = $1`, [database]);
  for (const { slot_name } of rows) {
    // The walsender that was just ended may hold its slot for a moment more.
    for (let turn = 0; ; turn++) {
      try {
        await admin.query(`select pg_drop_replication_slot($1)`, [slot_name]);
        break;
      } catch (error) {
        if (turn > 100) throw error;
      }
    }
  }
}

async function asAdmin(serverUrl: string, work: (admin: pg.Client) => Promise<unknown>): Promise<void> {
  const admin = new pg.Client({ connectionString: serverUrl, application_name: "test" });
  await admin.connect();
  try {
    await work(admin);
  } finally {
    await admin.end();
  }
}
