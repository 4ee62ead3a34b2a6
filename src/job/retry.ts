import { isRefusedData } from "../errors.ts";
import { dayOfMessage, formatDay } from "../message-id.ts";
import type { Message } from "../message.ts";
import { ensurePartitions } from "../store/batches.ts";
import { inPoolTransaction, type Queryable } from "../store/database.ts";
import type { JobRow } from "../store/jobs.ts";
import {
  countRejections,
  deleteRejection,
  readRejections,
  updateRejection,
  type RejectionRange,
  type WholeRejection,
} from "../store/rejections.ts";
import { insertMissingMessages, insertPendingDeliveries, readLeastId } from "../store/replay.ts";
import { estimate } from "./estimate.ts";
import type { InputOf } from "./input.ts";
import { readReceivers } from "./receivers.ts";
import { BatchFault } from "../payload/fault.ts";
import { rebuild, type Rebuilt } from "./rebuild.ts";
import type { Page, Work, WorkDeps } from "./work.ts";

/** What came of a retry. */
export type Retried =
  | { readonly kind: "messages"; readonly messageIds: readonly string[] }
  /** The code now says that nothing happened; the rejection is gone. */
  | { readonly kind: "nothing" }
  | { readonly kind: "rejected"; readonly reason: string; readonly error: string }
  /** Somebody else has retried it meanwhile. */
  | { readonly kind: "gone" };

export type RetryDeps = Pick<WorkDeps, "db" | "sourceId" | "catalogue" | "payload" | "unpark" | "wake">;

type Place = { readonly after: string } | null;

const pageCount = 50;

/** Builds rejections again, oldest first, with the code as it is now. Those that are rejected again stay. */
export function createRetry(deps: WorkDeps): Work {
  const { db } = deps;
  return {
    begin: (job) => countRetried(db, job),

    async read(job): Promise<Page> {
      const after = (job.place as Place)?.after ?? "";
      const rejections = await readRejections(db, await rangeOf(db, job), { after, limit: pageCount });
      // Each in a transaction of its own, before the page's: one that cannot be stored must not take the others with it. A page that is
      // read a second time finds those gone that were made the first time.
      let failed = 0;
      for (const rejection of rejections) {
        deps.stopping.throwIfAborted();
        if ((await retryRejection(deps, rejection)).kind === "rejected") failed++;
      }
      return {
        place: { after: rejections.at(-1)?.id ?? after },
        isLast: rejections.length < pageCount,
        count: rejections.length,
        write: async () => ({ done: rejections.length, failed }),
      };
    },
  };
}

/** Null where there are more than are worth counting. */
export async function countRetried(db: Queryable, job: Pick<JobRow, "input" | "project" | "createdAt">): Promise<number | null> {
  const range = await rangeOf(db, job);
  return await estimate((limit) => countRejections(db, range, limit));
}

async function rangeOf(
  db: Queryable,
  { input, project, createdAt }: Pick<JobRow, "input" | "project" | "createdAt">,
): Promise<RejectionRange> {
  const { event, from, to } = input as InputOf<"retry">;
  const idAt = async (ms: number): Promise<string> => (await readLeastId(db, ms)).replace("msg_", "rej_");
  return {
    project: project ?? undefined,
    event,
    fromId: await idAt(Date.parse(from)),
    toId: await idAt(Math.min(Date.parse(to), createdAt.getTime())),
  };
}

/**
 * Builds one rejection again, with the code as it is now, from what it was to be built from then. The message has the id that it would
 * have had, and goes to whom it would have gone.
 *
 * @throws BatchFault; what PostgreSQL answers
 */
export async function retryRejection(deps: RetryDeps, rejection: WholeRejection): Promise<Retried> {
  const rebuilt = await rebuildInTime(rejection, deps);
  if (rebuilt.kind === "rejected") return await rejectAgain(deps, rejection, rebuilt);
  let made: Retried;
  try {
    made = await journal(deps, rejection, rebuilt);
  } catch (error) {
    if (!isRefusedData(error)) throw error;
    const words = error instanceof Error ? error.message : String(error);
    return await rejectAgain(deps, rejection, { reason: "journal-refused", error: words });
  }
  if (made.kind !== "gone") deps.unpark(rejection.event);
  return made;
}

/** What runs out of time again stays a rejection: a job that waited for it would never come to the next one. */
async function rebuildInTime(rejection: WholeRejection, deps: RetryDeps): Promise<Rebuilt> {
  try {
    return await rebuild(rejection, deps);
  } catch (error) {
    if (!(error instanceof BatchFault) || !error.isOfStatement) throw error;
    return { kind: "rejected", reason: "read-timeout", error: `a read did not end in time: ${error.words}` };
  }
}

async function rejectAgain(
  { db }: RetryDeps,
  { id }: WholeRejection,
  { reason, error }: { readonly reason: string; readonly error: string },
): Promise<Retried> {
  await inPoolTransaction(db, (client) => updateRejection(client, id, { reason, error }));
  return { kind: "rejected", reason, error };
}

async function journal(
  { db, wake }: RetryDeps,
  rejection: WholeRejection,
  { messages, subscriptionId }: Extract<Rebuilt, { readonly kind: "built" }>,
): Promise<Retried> {
  const owed = new Set<string>();
  const messageIds = await inPoolTransaction(db, async (client) => {
    if (!(await deleteRejection(client, rejection.id))) return undefined;
    if (messages.length === 0) return [];
    await ensurePartitions(client, formatDay(dayOfMessage(rejection.id)));
    const inserted = await insertMissingMessages(client, messages);
    for (const message of messages) {
      if (!inserted.has(message.id)) continue;
      for (const id of await receiversOf(client, message, subscriptionId)) {
        await insertPendingDeliveries(client, { subscriptionId: id, project: message.project, jobId: undefined }, [message.id]);
        owed.add(id);
      }
    }
    return messages.map(({ id }) => id);
  });
  if (messageIds === undefined) return { kind: "gone" };
  for (const id of owed) wake(id);
  return messageIds.length === 0 ? { kind: "nothing" } : { kind: "messages", messageIds };
}

async function receiversOf(db: Queryable, message: Message, only: string | undefined): Promise<readonly string[]> {
  return only === undefined ? await readReceivers(db, message) : [only];
}
