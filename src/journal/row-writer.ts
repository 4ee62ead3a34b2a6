import { delayOf, journalDelaysMs } from "../delay-of.ts";
import { AncrageError, sqlStateOf } from "../errors.ts";
import type { DeliveryUpdate } from "../message.ts";
import { pause } from "../pause.ts";
import { deliveriesCopy, insertUntouched } from "../store/journal-rows.ts";
import { copyAlone } from "../store/round-trip.ts";
import type { Lease } from "./lease.ts";
import type { JournalSession } from "./session.ts";

/** Writes first rows beside the batches. What `settled` says of them is told by the batch that comes after. */
export class RowWriter {
  readonly #session: JournalSession;
  readonly #lease: Lease;
  readonly #stopping = new AbortController();

  constructor(session: JournalSession, lease: Lease) {
    this.#session = session;
    this.#lease = lease;
  }

  /** Once it is open, nothing that a former leader had sent can land any more. */
  async open(): Promise<void> {
    await this.#session.open();
  }

  /**
   * Returns when all of them are there. Where it cannot be told whether they are, they are written again.
   *
   * @throws what PostgreSQL refused them for; AncrageError `ANCRAGE_SUPERSEDED`; an error if `stop` was called meanwhile
   */
  async write(updates: readonly DeliveryUpdate[]): Promise<void> {
    const rows = updates.map(({ row }) => row);
    let mayBeThere = false;
    for (let attempt = 0; ; attempt++) {
      await this.#lease.held();
      if (this.#isStopped) throw new Error("stopped before the rows of waiting deliveries were written");
      try {
        const client = await this.#session.open();
        if (!this.#lease.isHeld) continue;
        // Nearly always none of them is there: without the question for each a row costs a sixth less of the log.
        await this.#session.watched(client, () => (mayBeThere ? insertUntouched(client, rows) : copyAlone(client, deliveriesCopy(rows))));
        break;
      } catch (error) {
        mayBeThere = true;
        if (sqlStateOf(error) === uniqueViolation) continue;
        await this.#session.drop();
        if (!isUncertain(error)) throw error;
        await pause(delayOf(journalDelaysMs, attempt), this.#stopping.signal);
      }
    }
    for (const { batch } of updates) if (batch !== undefined) batch.open--;
  }

  async drop(): Promise<void> {
    await this.#session.drop();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#session.stop();
  }

  get #isStopped(): boolean {
    return this.#stopping.signal.aborted;
  }
}

const uniqueViolation = "23505";

/** The session was lost, and perhaps only the answer with it. */
function isUncertain(error: unknown): boolean {
  if (error instanceof AncrageError) return false;
  const state = sqlStateOf(error);
  return state === undefined || state.startsWith("57") || state.startsWith("08");
}
