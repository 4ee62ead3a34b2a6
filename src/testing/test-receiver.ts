import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** A message that arrived, its signature verified. */
export interface ReceivedMessage<Payload = unknown> {
  readonly id: string;
  readonly event: string;
  /** When the change was committed, ISO 8601. */
  readonly timestamp: string;
  /** What the payload function returned. */
  readonly payload: Payload;
  readonly headers: Readonly<Record<string, string>>;
}

/** The receiver of `startTest`: on loopback, it answers 200 to whatever is signed for it and 401 to the rest. */
export interface TestReceiver {
  readonly url: string;
  readonly received: readonly ReceivedMessage[];
  /** Takes what is signed with this secret (`whsec_…`) from now on. */
  trust(secret: string): void;
  /** Called for each request with the message's id; with `undefined` where no known secret had signed it. */
  onRequest(listener: (id: string | undefined) => void): void;
  close(): Promise<void>;
}

export async function startTestReceiver(): Promise<TestReceiver> {
  const received: ReceivedMessage[] = [];
  const keys: Buffer[] = [];
  const listeners: ((id: string | undefined) => void)[] = [];

  const receive = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    const headers = request.headers as Record<string, string>;
    const isSigned = keys.some((key) => verify(key, headers, body));
    let id: string | undefined;
    if (isSigned) {
      const { type, timestamp, data, ...envelope } = JSON.parse(body.toString("utf8")) as Envelope;
      ({ id } = envelope);
      received.push({ id, event: type, timestamp, payload: data, headers });
    }
    response.writeHead(isSigned ? 200 : 401).end();
    for (const listener of listeners) listener(id);
  };
  const server = createServer((request, response) => void receive(request, response).catch(() => response.destroy()));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    received,
    trust: (secret) => void keys.push(Buffer.from(secret.replace(/^whsec_/, ""), "base64")),
    onRequest: (listener) => void listeners.push(listener),
    async close() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

interface Envelope {
  readonly id: string;
  readonly type: string;
  readonly timestamp: string;
  readonly data: unknown;
}

/** Standard Webhooks 1.0.0, written down once more and not taken from the sender: both must not err in the same way. */
function verify(key: Buffer, headers: Readonly<Record<string, string>>, body: Buffer): boolean {
  const signed = Buffer.concat([Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`), body]);
  const expected = createHmac("sha256", key).update(signed).digest();
  return String(headers["webhook-signature"])
    .split(" ")
    .filter((part) => part.startsWith("v1,"))
    .map((part) => Buffer.from(part.slice("v1,".length), "base64"))
    .some((given) => given.length === expected.length && timingSafeEqual(given, expected));
}
