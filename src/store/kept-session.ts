import type pg from "pg";
import { connectClient, destroyClient, endClient, type SessionOptions } from "./database.ts";

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
  /** Breaks off the one that is being connected, or checked. */
  #ending = new AbortController();

  constructor(options: KeptSessionOptions) {
    this.#options = options;
  }

  /** @throws AncrageError `ANCRAGE_DATABASE_UNREACHABLE` */
  async get(): Promise<pg.Client> {
    if (this.#client !== undefined) return this.#client;
    this.#connecting ??= this.#connect(this.#ending.signal).finally(() => (this.#connecting = undefined));
    return await this.#connecting;
  }

  /** Ends it, at most in a second or two, also one that is being connected; the next `get` connects anew. */
  async end(): Promise<void> {
    // A network may have swallowed what it was told, or asked.
    this.#ending.abort();
    this.#ending = new AbortController();
    await this.#connecting?.catch(() => undefined);
    const client = this.#client;
    this.#client = undefined;
    if (client !== undefined) await endClient(client);
  }

  async #connect(ending: AbortSignal): Promise<pg.Client> {
    const client = await connectClient(this.#options, ending);
    client.on("error", () => {
      if (this.#client === client) this.#client = undefined;
    });
    const breakOff = (): void => destroyClient(client);
    ending.addEventListener("abort", breakOff);
    try {
      if (!ending.aborted) await this.#options.check?.(client);
      if (ending.aborted) throw new Error("the session was ended while it was made");
    } catch (error) {
      await endClient(client);
      throw error;
    } finally {
      ending.removeEventListener("abort", breakOff);
    }
    this.#client = client;
    return client;
  }
}
