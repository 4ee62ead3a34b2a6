import { subscribe } from "node:diagnostics_channel";
import { createAncrage } from "../../src/create-ancrage.ts";
import type { Delivery } from "../../src/deliver/delivery.ts";
import type { Outcome } from "../../src/deliver/outcome.ts";
import type { Attempt } from "../../src/deliver/send.ts";
import type { Leader } from "../../src/leader.ts";
import type { DeliveryUpdate, Message } from "../../src/message.ts";
import type { AncrageOptions } from "../../src/options.ts";
import type { Subscription } from "../../src/subscription/registry.ts";
import { modelEvents } from "./model-events.ts";
import { openModelLog, type State, type Update } from "./model-log.ts";

// The system of the model test, in a process that can be killed: it starts, answers and ends when told to, and writes down what it does.
const given = JSON.parse(process.env["MODEL_OPTIONS"] ?? "{}") as AncrageOptions;
const log = openModelLog(process.env["MODEL_LOG"] ?? "");
const now = (): number => performance.timeOrigin + performance.now();
const stateOf = ({ state, round, attempts }: State): State => ({ state, round, attempts });

subscribe("ancrage:attempt", (told) => {
  const { message, subscription, number } = told as Attempt;
  log.append({ e: "begin", sub: subscription.id, message: message.id, number, atMs: now() });
});

const noteUpdates = (e: "journaling" | "journaled", updates: readonly DeliveryUpdate[]): void => {
  if (updates.length > 0) log.append({ e, updates: updates.map(updateOf) });
};
const updateOf = ({ row, from }: DeliveryUpdate): Update => ({
  sub: row.subscriptionId,
  message: row.messageId,
  row: stateOf(row),
  dueAtMs: row.nextAttemptAtMs ?? null,
  from: from ?? null,
});

let leader: Leader | undefined;
const ancrage = createAncrage(
  { ...given, events: modelEvents },
  {
    // Each start after a kill waits until the lease of the one before has run out.
    leaseMs: 750,
    subscriptionSweepMs: 100,
    signal(name, detail) {
      if (name === "leading") leader = detail as Leader;
      if (name === "journaling" || name === "journaled") noteUpdates(name, (detail as { updates: readonly DeliveryUpdate[] }).updates);
      if (name !== "attempted") return;
      const { message, outcome, subscription, after } = detail as Attempted;
      log.append({
        e: "finish",
        sub: subscription.id,
        message: message.id,
        isSuccess: outcome.kind === "delivered",
        status: outcome.status ?? null,
        reason: outcome.kind === "failed" ? outcome.reason : null,
        holdMs: outcome.kind === "failed" ? (outcome.retryAfterMs ?? 0) : 0,
        after: after === undefined ? null : stateOf(after),
        dueAtMs: after?.nextAttemptAtMs ?? null,
        atMs: now(),
      });
    },
  },
);

interface Attempted {
  readonly message: Message;
  readonly outcome: Outcome;
  readonly subscription: Subscription;
  readonly after: Delivery | undefined;
}

/** What the test asks for. */
export type Asked = { readonly kind: "start" } | { readonly kind: "stop" } | { readonly kind: "expire" } | Call;

/** A request to the API. */
interface Call {
  readonly kind: "call";
  readonly number: number;
  readonly method: string;
  readonly path: string;
  readonly body?: unknown;
}

/** What it is told. */
export type Told =
  | { readonly kind: "ready" | "started" | "expired" }
  | { readonly kind: "answer"; readonly number: number; readonly status: number; readonly text: string };

const tell = (told: Told): void => void process.send?.(told);

process.on("message", (asked: Asked) => {
  if (asked.kind === "start") void ancrage.start().then(() => tell({ kind: "started" }));
  else if (asked.kind === "stop") void ancrage.stop().then(() => process.disconnect());
  else if (asked.kind === "expire") void expire().then(() => tell({ kind: "expired" }));
  else void answer(asked);
});

async function expire(): Promise<void> {
  await leader?.retention.expire(new Date().toISOString().slice(0, "2026-11-24".length));
}

async function answer({ number, method, path, body }: Call): Promise<void> {
  const response = await ancrage.fetch(
    new Request(`http://ancrage.test${path}`, {
      method,
      headers: { authorization: `Bearer ${given.token ?? ""}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    }),
  );
  tell({ kind: "answer", number, status: response.status, text: await response.text() });
}
tell({ kind: "ready" });
