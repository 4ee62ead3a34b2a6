import type pg from "pg";
import type { Logger } from "../../log.ts";
import { connectClient, endClient } from "../../store/database.ts";
import { readSnapshot } from "../../store/capture-state.ts";
import { parseSnapshot, type Snapshot } from "../visibility.ts";

/** One session that asks which transactions are visible. It outlives its connection. */
export class SnapshotReader {
  readonly #connectionString: string;
  readonly #log: Logger;
  /** Undefined while it is not connected; the next `read` connects. */
  #client: pg.Client | undefined;

  constructor(options: { readonly connectionString: string; readonly log: Logger }) {
    this.#connectionString = options.connectionString;
    this.#log = options.log;
  }

  /** @returns undefined while the database does not answer: it restarts, most often, and that is no end of capture */
  async read(): Promise<Snapshot | undefined> {
    try {
      this.#client ??= await this.#connect();
      return parseSnapshot(await readSnapshot(this.#client));
    } catch (error) {
      this.#log.warn({ err: error }, "could not ask which transactions are visible; asking again");
      await this.stop();
      return undefined;
    }
  }

  async stop(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    if (client !== undefined) await endClient(client);
  }

  async #connect(): Promise<pg.Client> {
    const client = await connectClient({ connectionString: this.#connectionString, applicationName: "ancrage snapshots" });
    client.on("error", () => {
      if (this.#client === client) this.#client = undefined;
    });
    return client;
  }
}
