import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { inject } from "vitest";
import { EmbeddedPostgres } from "../src/dev/embedded-postgres.ts";
import { copyCluster } from "./copy-cluster.ts";
import type { TestDatabase } from "./database.ts";

/** A server of a test's own: for what its settings, its restarts or its files are needed, and would disturb all others. */
export interface OwnServer {
  readonly directory: string;
  url(database: string, role?: string): string;
  /** Of the server's process. */
  pid(): number;
  /** A new database, and a superuser's session on it. */
  createDatabase(name: string): Promise<TestDatabase>;
  /** A superuser's session on a database that is there. */
  connect(database: string): Promise<pg.Client>;
  /** Stops it and starts it on the same port. */
  restart(change?: () => Promise<void>, settings?: Readonly<Record<string, string>>, mode?: "fast" | "immediate"): Promise<void>;
  remove(): Promise<void>;
}

interface OwnServerHow {
  /** A copy has the identifier of the cluster that it was copied from, which takes a tenth of the time. Default: false. */
  readonly isOfItsOwnIdentity?: boolean;
}

export async function startOwnServer(given: Readonly<Record<string, string>> = {}, how: OwnServerHow = {}): Promise<OwnServer> {
  // One that is initialised anew is another server, by its own identifier.
  const directory =
    how.isOfItsOwnIdentity === true ? await mkdtemp(join(tmpdir(), "ancrage-test-")) : await copyCluster(inject("templateCluster"));
  let server = new EmbeddedPostgres({ directory, isThrowaway: true, settings: given });
  await server.start();
  const sessions: pg.Client[] = [];
  const connect = async (url: string): Promise<pg.Client> => {
    const client = new pg.Client({ connectionString: url, application_name: "test" });
    client.on("error", () => undefined);
    await client.connect();
    sessions.push(client);
    return client;
  };
  const url = (database: string, role?: string): string => {
    const address = new URL(server.url(database));
    if (role !== undefined) [address.username, address.password] = [role, role];
    return address.href;
  };
  return {
    directory,
    url,
    pid() {
      if (server.pid === undefined) throw new Error("the server does not run");
      return server.pid;
    },
    async createDatabase(name) {
      const admin = await connect(url("postgres"));
      await admin.query(`create database ${name}`);
      await admin.end();
      return {
        url: url(name),
        name,
        client: await connect(url(name)),
        connect: () => connect(url(name)),
        remove: async () => undefined,
      };
    },
    connect: (database) => connect(url(database)),
    async restart(change, settings = given, mode = "fast") {
      const { port } = server;
      await server.stop(mode);
      await change?.();
      server = new EmbeddedPostgres({ directory, isThrowaway: true, preferredPort: port, settings });
      await server.start();
    },
    async remove() {
      await Promise.all(sessions.map((session) => session.end().catch(() => undefined)));
      await server.remove();
    },
  };
}
