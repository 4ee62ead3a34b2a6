import { createSecretKey } from "node:crypto";
import { systemClock } from "../src/clock.ts";
import type { Outcome, Unsent } from "../src/deliver/outcome.ts";
import { createSender, type SenderOptions } from "../src/deliver/send.ts";
import type { Message } from "../src/message.ts";
import type { Subscription } from "../src/subscription/registry.ts";

/** A sender whose monotonic clock a test moves, and attempts for it. */
export interface Sending {
  /** How far its monotonic clock is ahead. */
  aheadMs: number;
  /** One attempt for a message of this id. */
  send(
    origin: string,
    id?: string,
    more?: { readonly isWanted?: () => boolean; readonly path?: string; readonly body?: Buffer },
  ): Promise<Outcome | Unsent>;
  close(): Promise<void>;
}

export function startSending(options: Partial<SenderOptions> = {}): Sending {
  const clock = { nowMs: systemClock.nowMs, monotonicMs: () => systemClock.monotonicMs() + sending.aheadMs };
  const sending: Sending = {
    aheadMs: 0,
    send: (origin, id = "msg_1", { isWanted = () => true, path = "/", body = Buffer.from("{}") } = {}) =>
      new Promise((resolve) => {
        sender.send(
          { message: { ...message, id, body, envelopes: {} }, subscription: { ...subscription, origin, path }, number: 1, isWanted },
          resolve,
        );
      }),
    close: () => sender.close(),
  };
  const sender = createSender({
    allowNetworks: ["127.0.0.0/8"],
    clock,
    timeoutMs: 5_000,
    version: "0",
    connectionsPerOrigin: 8,
    causeKey: createSecretKey(Buffer.alloc(64)),
    ...options,
  });
  return sending;
}

const subscription: Subscription = {
  id: "sub_1",
  project: "default",
  events: ["E"],
  origin: "",
  path: "/",
  format: "bare",
  keys: [createSecretKey(Buffer.alloc(32))],
  revision: 1n,
  startLsn: 0n,
  state: "enabled",
};
const message: Message = {
  id: "",
  project: "default",
  event: "E",
  key: "1",
  position: { commitLsn: 1n, changeLsn: 1n, ordinal: 0 },
  committedAtUs: 0n,
  body: Buffer.from("{}"),
  envelopes: {},
};
