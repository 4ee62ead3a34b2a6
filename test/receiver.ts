import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";

/** A request as it arrived. */
export interface ReceivedRequest {
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  readonly atMs: number;
}

/** How a request is answered: a status, or whatever the function does with the response. */
export type Answer = number | ((request: ReceivedRequest, response: ServerResponse) => void);

export interface Receiver {
  readonly url: string;
  readonly requests: readonly ReceivedRequest[];
  /** The answer to all requests from now on. */
  answer(answer: Answer | ((request: ReceivedRequest) => Answer)): void;
  /** Resolves when `isEnough` says so of what has arrived; at the latest the test's own time limit ends the wait. */
  until(isEnough: (requests: readonly ReceivedRequest[]) => boolean): Promise<readonly ReceivedRequest[]>;
  close(): Promise<void>;
}

/** A receiver on loopback that does as it is told: statuses, delays, resets, endless bodies, redirects. */
export async function startReceiver(): Promise<Receiver> {
  const requests: ReceivedRequest[] = [];
  const waiting = new Set<() => void>();
  const sockets = new Set<Socket>();
  let decide: (request: ReceivedRequest) => Answer = () => 200;

  const receive = async (incoming: IncomingMessage, response: ServerResponse): Promise<void> => {
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk as Buffer);
    const request: ReceivedRequest = {
      path: incoming.url ?? "",
      headers: incoming.headers as Record<string, string>,
      body: Buffer.concat(chunks).toString("utf8"),
      atMs: performance.timeOrigin + performance.now(),
    };
    requests.push(request);
    const answer = decide(request);
    if (typeof answer === "number") response.writeHead(answer).end();
    else answer(request, response);
    for (const check of waiting) check();
  };
  const server: Server = createServer((incoming, response) => {
    // A sender that resets its request has got what it wanted.
    receive(incoming, response).catch(() => response.destroy());
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    requests,
    answer(answer) {
      decide = typeof answer === "function" && answer.length < 2 ? (answer as (request: ReceivedRequest) => Answer) : () => answer;
    },
    until(isEnough) {
      return new Promise((resolve) => {
        const check = (): void => {
          if (!isEnough(requests)) return;
          waiting.delete(check);
          resolve(requests);
        };
        waiting.add(check);
        check();
      });
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
