import type { Logger } from "../../log.ts";
import { readSnapshot } from "../../store/capture-state.ts";
import { KeptSession } from "../../store/kept-session.ts";
import { parseSnapshot, type Snapshot } from "../visibility.ts";

/** All wait for it: what was captured, and what is to be journaled. */
const answerWithinMs = 5_000;

/** One session that asks which transactions are visible. */
export class SnapshotReader {
  readonly #session: KeptSession;
  readonly #log: Logger;

  constructor({ connectionString, log }: { readonly connectionString: string; readonly log: Logger }) {
    this.#session = new KeptSession({ connectionString, applicationName: "ancrage snapshots", answerWithinMs });
    this.#log = log;
  }

  /** @returns undefined while the database does not answer: it restarts, most often, and that is no end of capture */
  async read(): Promise<Snapshot | undefined> {
    try {
      return parseSnapshot(await readSnapshot(await this.#session.get()));
    } catch (error) {
      this.#log.warn({ err: error }, "could not ask which transactions are visible; asking again");
      await this.stop();
      return undefined;
    }
  }

  async stop(): Promise<void> {
    await this.#session.end();
  }
}
