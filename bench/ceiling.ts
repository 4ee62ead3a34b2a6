import { createSecretKey, randomBytes } from "node:crypto";
import { Pool, type Dispatcher } from "undici";
import { computeSignature } from "../src/deliver/sign.ts";
import { answerParent, type Methods } from "./child.ts";
import { nowMs } from "./clock.ts";

/**
 * The ceiling: what undici can sign and post from one process while nothing is read, built or journaled. Same headers, same body
 * size, and as many requests in flight as Ancrage's lanes have.
 */
export interface CeilingMethods extends Methods {
  run(work: { readonly url: string; readonly count: number; readonly bodyBytes: number; readonly inFlight: number }): Promise<{
    readonly startedAtMs: number;
    /** CPU of this process, in microseconds. */
    readonly cpuUs: number;
  }>;
}

const key = createSecretKey(randomBytes(32));

answerParent({
  async run({ url, count, bodyBytes, inFlight }) {
    const { origin, pathname } = new URL(url);
    const pool = new Pool(origin, { connections: inFlight, pipelining: 1 });
    const body = Buffer.alloc(bodyBytes, "x");
    const cpu = process.cpuUsage();
    const startedAtMs = nowMs();
    await new Promise<void>((resolve, reject) => {
      let sent = 0;
      let answered = 0;
      const sendNext = (): void => {
        if (sent < count) post({ pool, path: pathname, body, number: sent++ }, onAnswer, reject);
      };
      const onAnswer = (): void => {
        if (++answered === count) resolve();
        else sendNext();
      };
      for (let i = 0; i < inFlight; i++) sendNext();
    });
    const { user, system } = process.cpuUsage(cpu);
    await pool.close();
    return { startedAtMs, cpuUs: user + system };
  },
} satisfies CeilingMethods);

interface Request {
  readonly pool: Pool;
  readonly path: string;
  readonly body: Buffer;
  readonly number: number;
}

function post({ pool, path, body, number }: Request, onAnswer: () => void, onError: (error: Error) => void): void {
  // As long as ours are.
  const id = `msg_${String(number).padStart(56, "0")}`;
  const timestampS = Math.floor(Date.now() / 1000);
  const headers = [
    "content-type",
    "application/json",
    "user-agent",
    "Ancrage/0.0.0",
    "accept-encoding",
    "identity",
    "webhook-id",
    id,
    "webhook-timestamp",
    String(timestampS),
    "webhook-signature",
    computeSignature([key], id, timestampS, body),
    "ancrage-event",
    "ItemCreated",
    "ancrage-attempt",
    "1",
    "ancrage-subscription",
    "sub_00000000000000000000000000",
  ];
  pool.dispatch({ path, method: "POST", headers, body }, new Exchange(onAnswer, onError));
}

class Exchange implements Dispatcher.DispatchHandler {
  readonly #onAnswer: () => void;
  readonly #onError: (error: Error) => void;

  constructor(onAnswer: () => void, onError: (error: Error) => void) {
    this.#onAnswer = onAnswer;
    this.#onError = onError;
  }

  onRequestStart(): void {}
  onResponseStart(): void {}
  onResponseData(): void {}

  onResponseEnd(): void {
    this.#onAnswer();
  }

  onResponseError(_controller: Dispatcher.DispatchController | undefined, error: Error): void {
    this.#onError(error);
  }
}
