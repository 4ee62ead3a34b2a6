import type pg from "pg";
import { sqlStateOf } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { DeliveryUpdate, Message, Rejection } from "../message.ts";
import { messagesCopy, rejectionsCopy } from "../store/journal-rows.ts";
import { copyAlone } from "../store/round-trip.ts";
import type { Batch } from "./journal.ts";
import { BatchRefused, rejectionOf } from "./refusal.ts";

export interface CommitAloneDeps {
  /** @throws BatchRefused */
  readonly commitWhole: (batch: Batch) => Promise<void>;
  /** Inserts and rolls back. @returns why it cannot be stored; undefined where it can, or where it cannot be told now */
  readonly attempt: (insert: (client: pg.Client) => Promise<void>) => Promise<unknown>;
  readonly log: Logger;
}

/**
 * Commits what cannot be split: a single outcome, or the messages and rejections of one change. What PostgreSQL refuses of it becomes a
 * rejection, or is left out with a word in the log.
 *
 * @param cause why it was refused as a whole
 * @returns the messages that are in
 */
export async function commitAlone(batch: Batch, cause: unknown, deps: CommitAloneDeps): Promise<readonly Message[]> {
  const { commitWhole, attempt, log } = deps;
  const [update] = batch.updates;
  if (update !== undefined) {
    leaveOut(update, cause, log);
    await commitWhole({ ...batch, updates: [] });
    return [];
  }
  const messages: Message[] = [];
  const rejections: Rejection[] = [];
  const isOnly = batch.messages.length + batch.rejections.length === 1;
  for (const message of batch.messages) {
    const error = isOnly ? cause : await attempt((client) => copyAlone(client, messagesCopy([message])));
    if (error === undefined) messages.push(message);
    else rejections.push(rejectionOf(message, error));
  }
  for (const rejection of batch.rejections) {
    const error = isOnly ? cause : await attempt((client) => copyAlone(client, rejectionsCopy([rejection])));
    if (error === undefined) rejections.push(rejection);
    else log.error({ err: error, rejection }, "the journal refused a rejection; it is left out");
  }
  try {
    await commitWhole({ ...batch, messages, rejections });
    return messages;
  } catch (error) {
    if (!(error instanceof BatchRefused)) throw error;
    // Each can be stored and not all of them, or it is the rejection that stands for a message.
    log.error({ err: error.cause, batch }, "the journal refused messages of one change; they are left out");
    await commitWhole({ ...batch, messages: [], rejections: [] });
    return [];
  }
}

/** An outcome that cannot be stored. Where its row is there already nothing is missing; else it is repeated after a restart. */
function leaveOut(update: DeliveryUpdate, cause: unknown, log: Logger): void {
  log.error({ err: cause, update }, "the journal refused an outcome; it is left out");
  const isThere = update.from === undefined && sqlStateOf(cause) === "23505";
  if (isThere && update.batch !== undefined) update.batch.open--;
}
