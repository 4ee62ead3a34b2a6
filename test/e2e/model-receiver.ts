import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Server } from "node:net";

export const moods = ["ok", "ok", "slow", "error", "reset", "hang", "busy", "unavailable", "gone", "mixed", "mixed"] as const;
export type Mood = (typeof moods)[number];

/** A request as the receiver has it. */
export interface Received {
  readonly sub: string;
  readonly message: string;
  readonly number: number;
  readonly digest: string;
  /** A 200 was written whole. */
  isTaken: boolean;
}

export interface ModelReceiver {
  readonly url: string;
  readonly received: Received[];
  /** By path. */
  readonly moods: Map<string, Mood>;
  /** A receiver on an address that no request may go to. */
  readonly forbiddenUrl: string;
  readonly forbiddenCount: () => number;
  close(): Promise<void>;
}

/** A receiver whose paths each have their mood; and one that nobody may ever reach. */
export async function startModelReceiver(): Promise<ModelReceiver> {
  const received: Received[] = [];
  const byPath = new Map<string, Mood>();
  const receive = async (incoming: IncomingMessage, response: ServerResponse): Promise<void> => {
    const hash = createHash("sha256");
    for await (const chunk of incoming) hash.update(chunk as Buffer);
    const request: Received = {
      sub: String(incoming.headers["ancrage-subscription"]),
      message: String(incoming.headers["webhook-id"]),
      number: Number(incoming.headers["ancrage-attempt"]),
      digest: hash.digest("hex"),
      isTaken: false,
    };
    received.push(request);
    // The same for the same attempt, in whichever order they come.
    const chance = createHash("sha256").update(`${request.message} ${request.sub} ${request.number}`).digest().readUInt32LE() / 2 ** 32;
    const mood = byPath.get(incoming.url ?? "") ?? "ok";
    const succeed = (): void => void response.writeHead(200).end(() => (request.isTaken = true));
    switch (mood === "mixed" ? (moods[Math.floor(chance * 8)] ?? "ok") : mood) {
      case "slow":
        return void setTimeout(succeed, 20 + chance * 80);
      case "error":
        return void response.writeHead(chance < 0.5 ? 500 : 404).end("not now");
      case "reset":
        return void incoming.socket.destroy();
      case "hang":
        return;
      case "busy":
        return void response.writeHead(429, { "retry-after": "1" }).end();
      case "unavailable":
        return void response.writeHead(503).end();
      case "gone":
        return void response.writeHead(410).end();
      case "ok":
      case "mixed":
        return succeed();
    }
  };
  const server = createServer((incoming, response) => {
    // A killed sender takes its half-sent requests with it.
    receive(incoming, response).catch(() => response.destroy());
  });
  let forbidden = 0;
  const private_ = createServer((_, response) => void response.writeHead(200).end());
  private_.on("connection", () => forbidden++);
  return {
    url: await listen(server, "127.0.0.1"),
    received,
    moods: byPath,
    forbiddenUrl: await listen(private_, "127.0.0.2"),
    forbiddenCount: () => forbidden,
    async close() {
      for (const one of [server, private_]) {
        one.closeAllConnections();
        await new Promise<void>((resolve) => one.close(() => resolve()));
      }
    },
  };
}

async function listen(server: Server, host: string): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  return `http://${host}:${(server.address() as AddressInfo).port}`;
}
