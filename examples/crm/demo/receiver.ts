import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Webhook } from "standardwebhooks";

/** A message as it arrived. */
export interface Arrival {
  /** The path that it was sent to: which subscription it is for. */
  readonly path: string;
  readonly id: string;
  readonly event: string;
  /** What the payload function returned, out of whichever format it was wrapped in. */
  readonly payload: Readonly<Record<string, unknown>>;
  readonly isVerified: boolean;
  /** On the clock of `performance.now()`. */
  readonly atMs: number;
}

export interface DemoReceiver {
  readonly url: string;
  readonly arrivals: readonly Arrival[];
  /** Requests of this path are verified with this secret from now on. */
  trust(path: string, secret: string): void;
  /** Called for each arrival from now on, after it was kept. */
  onArrival(listener: (arrival: Arrival) => void): void;
  /** Resolves when `isEnough` says so of what has arrived. */
  until(isEnough: (arrivals: readonly Arrival[]) => boolean): Promise<void>;
  close(): Promise<void>;
}

/** A receiver as a customer would write it: it verifies the signature, then answers. It uses nothing of Ancrage. */
export async function startReceiver(): Promise<DemoReceiver> {
  const arrivals: Arrival[] = [];
  const verifiers = new Map<string, Webhook>();
  const listeners = new Set<(arrival: Arrival) => void>();

  const receive = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const atMs = performance.now();
    const body = Buffer.concat(chunks).toString("utf8");
    const path = request.url ?? "";
    const verified = verify(verifiers.get(path), body, request.headers);
    response.writeHead(verified === undefined ? 401 : 200).end();
    const arrival: Arrival = {
      path,
      id: String(request.headers["webhook-id"]),
      event: String(request.headers["ancrage-event"]),
      payload: payloadOf(verified),
      isVerified: verified !== undefined,
      atMs,
    };
    arrivals.push(arrival);
    for (const listener of listeners) listener(arrival);
  };
  const server = createServer((request, response) => void receive(request, response).catch(() => response.destroy()));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));

  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    arrivals,
    trust: (path, secret) => void verifiers.set(path, new Webhook(secret)),
    onArrival: (listener) => void listeners.add(listener),
    until: (isEnough) =>
      new Promise((resolve) => {
        const look = (): void => {
          if (!isEnough(arrivals)) return;
          listeners.delete(look);
          resolve();
        };
        listeners.add(look);
        look();
      }),
    async close() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** The body, parsed, where its signature is good; undefined where it is not. */
function verify(verifier: Webhook | undefined, body: string, headers: IncomingHttpHeaders): unknown {
  try {
    return verifier?.verify(body, headers as Record<string, string>);
  } catch {
    return undefined;
  }
}

/** `{"result": …}` as weavy sends it, or `{"id", "type", "timestamp", "data"}`. */
function payloadOf(body: unknown): Arrival["payload"] {
  if (typeof body !== "object" || body === null) return {};
  const wrapped = "result" in body ? body.result : "data" in body ? body.data : {};
  return typeof wrapped === "object" && wrapped !== null ? { ...wrapped } : {};
}
