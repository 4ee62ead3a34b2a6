import { createSecretKey, randomBytes } from "node:crypto";
import type pg from "pg";
import { startOfLog } from "./capture/change.ts";
import type { Clock } from "./clock.ts";
import type { Outcome, Unsent } from "./deliver/outcome.ts";
import { createSender, type Sender } from "./deliver/send.ts";
import type { Message } from "./message.ts";
import { computeMessageId } from "./message-id.ts";
import type { CheckedOptions } from "./options.ts";
import { readSettings } from "./store/settings.ts";
import { openSubscription } from "./subscription/open.ts";
import type { SecretKey } from "./subscription/secret.ts";
import type { SubscriptionServiceOptions } from "./subscription/subscription.ts";
import { version } from "./version.ts";

export interface TestSenderOptions {
  readonly db: pg.Pool;
  readonly options: CheckedOptions;
  readonly secretKey: SecretKey;
  /** What a delivery of the event would send. */
  readonly sample: (event: string, project: string) => Promise<{ readonly json: string; readonly key: string | undefined }>;
  readonly clock: Clock;
}

export interface TestSender {
  readonly sendTest: NonNullable<SubscriptionServiceOptions["sendTest"]>;
  close(): Promise<void>;
}

/**
 * Sends tests of subscriptions: also in a process that does not lead, so on connections of its own, but through the same guarded sender.
 * Three audits of 2026 found a "test this webhook" button that went round the guard.
 */
export function createTestSender(parts: TestSenderOptions): TestSender {
  const { db, options, secretKey, sample, clock } = parts;
  let made: Promise<Sender> | undefined;

  const makeSender = async (): Promise<Sender> => {
    const settings = await readSettings(db);
    return createSender({
      allowNetworks: options.allowNetworks,
      timeoutMs: options.delivery.timeoutMs,
      connectionsPerOrigin: options.delivery.connectionsPerOrigin,
      causeKey: createSecretKey(settings?.triggerKey ?? randomBytes(64)),
      version,
      clock,
    });
  };

  return {
    async sendTest(row, event) {
      const nowMs = clock.nowMs();
      const opened = openSubscription(secretKey, row, new Date(nowMs));
      const { json, key = "" } = await sample(event, row.project);
      const committedAtUs = BigInt(Math.trunc(nowMs)) * 1000n;
      // An id that no message has and no other test had: a receiver that knows it already would take no notice.
      const transaction = { xid: 0, commitLsn: randomBytes(8).readBigUInt64BE(), committedAtUs };
      const message: Message = {
        id: computeMessageId({ sourceId: "test", transaction, position: startOfLog, event, key }),
        project: row.project,
        event,
        key,
        position: startOfLog,
        committedAtUs,
        body: Buffer.from(json, "utf8"),
        envelopes: {},
      };
      const subscription = { ...opened, headers: [...(opened.headers ?? []), "ancrage-test", "true"] };
      made ??= makeSender().catch((error: unknown) => {
        // The next test tries again: the database may only be late.
        made = undefined;
        throw error;
      });
      const sender = await made;
      const outcome = await new Promise<Outcome | Unsent>((resolve) => {
        sender.send({ message, subscription, number: 1, isWanted: () => true }, resolve);
      });
      const about = { messageId: message.id, event };
      if (outcome.kind === "unsent") {
        const response = Buffer.from(outcome.shortage ?? "this process ends");
        return { ...about, isDelivered: false, status: undefined, reason: outcome.kind, durationMs: 0, response };
      }
      const failure = outcome.kind === "failed" ? outcome : undefined;
      return {
        ...about,
        isDelivered: failure === undefined,
        status: outcome.status,
        reason: failure?.reason,
        durationMs: outcome.durationMs,
        response: failure?.response,
      };
    },
    async close() {
      await (await made?.catch(() => undefined))?.close();
    },
  };
}
