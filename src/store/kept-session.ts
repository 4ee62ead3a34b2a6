import type pg from "pg";
import { connectClient, endClient, type SessionOptions } from "./database.ts";

export interface KeptSessionOptions extends SessionOptions {
  /** Asked of each new session before it is used; where it throws, `get` does. */
  readonly check?: ((client: pg.Client) => Promise<void>) | undefined;
}

/** One session that outlives its connection: it connects when it is asked for, and anew once it was lost. */
export class KeptSession {
  readonly #options: KeptSessionOptions;
  /** Undefined while it is not connected. */
  #client: pg.Client | undefined;
  /** Two who ask at once get one session. */
  #connecting: Promise<pg.Client> | undefined;

  constructor(options: KeptSessionOptions) {
    this.#options = options;
  }

  /** @throws AncrageError `ANCRAGE_DATABASE_UNREACHABLE` */
  async get(): Promise<pg.Client> {
    if (this.#client !== undefined) return this.#client;
    this.#connecting ??= this.#connect().finally(() => (this.#connecting = undefined));
    return await this.#connecting;
  }

  /** Ends it, also one that is being connected; the next `get` connects anew. */
  async end(): Promise<void> {
    await this.#connecting?.catch(() => undefined);
    const client = this.#client;
    this.#client = undefined;
    if (client !== undefined) await endClient(client);
  }

  async #connect(): Promise<pg.Client> {
    const client = await connectClient(this.#options);
    client.on("error", () => {
      if (this.#client === client) this.#client = undefined;
    });
    try {
      await this.#options.check?.(client);
    } catch (error) {
      await endClient(client);
      throw error;
    }
    this.#client = client;
    return client;
  }
}
