import { createServer, type AddressInfo, type Socket } from "node:net";
import { answerParent, type Methods } from "./child.ts";
import { nowMs } from "./clock.ts";

/**
 * A receiver that answers at once and costs as little as Node can: what it takes of the two cores is missing to what is measured.
 * It reads of HTTP only what undici writes: lower-case names, a content-length, no chunks.
 */
export interface ReceiverMethods extends Methods {
  /** Returns its URL. */
  listen(): Promise<string>;
  /** Forgets what has arrived. */
  reset(): void;
  /** Resolves when so many requests have arrived since the last `reset`. */
  until(count: number): Promise<Arrived>;
  /** When each numbered event arrived first, by its number. */
  arrivals(): ReadonlyMap<number, number>;
}

export interface Arrived {
  /** More than were waited for: something came twice. */
  readonly count: number;
  /** On average. */
  readonly bodyBytes: number;
  readonly lastAtMs: number;
}

const answer = Buffer.from("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
const headEnd = Buffer.from("\r\n\r\n");
const lengthName = Buffer.from("\r\ncontent-length: ");
const numberName = Buffer.from('"number":');

let count = 0;
let bytes = 0;
let arrivals = new Map<number, number>();
let waiting: { readonly count: number; readonly resolve: (arrived: Arrived) => void } | undefined;

const arrived = (): Arrived => ({ count, bodyBytes: count === 0 ? 0 : bytes / count, lastAtMs: nowMs() });

/** Takes whole requests off the front; returns what is left. */
function receive(data: Buffer, socket: Socket): Buffer | undefined {
  let at = 0;
  while (at < data.length) {
    const end = data.indexOf(headEnd, at);
    if (end === -1) break;
    const name = data.indexOf(lengthName, at);
    if (name === -1 || name > end) throw new Error(`expected a content-length, got ${data.toString("latin1", at, end)}`);
    const length = readNumber(data, name + lengthName.length);
    const body = end + headEnd.length;
    if (body + length > data.length) break;
    note(data, body, length);
    socket.write(answer);
    at = body + length;
  }
  return at === data.length ? undefined : data.subarray(at);
}

function note(data: Buffer, body: number, length: number): void {
  count++;
  bytes += length;
  const name = data.indexOf(numberName, body);
  if (name !== -1 && name < body + length) {
    const number = readNumber(data, name + numberName.length);
    if (!arrivals.has(number)) arrivals.set(number, nowMs());
  }
  if (waiting === undefined || count < waiting.count) return;
  waiting.resolve(arrived());
  waiting = undefined;
}

function readNumber(data: Buffer, start: number): number {
  let number = 0;
  for (let at = start; ; at++) {
    const digit = (data[at] ?? 0) - 0x30;
    if (digit < 0 || digit > 9) return number;
    number = number * 10 + digit;
  }
}

const server = createServer({ noDelay: true }, (socket) => {
  let rest: Buffer | undefined;
  socket.on("data", (chunk) => {
    rest = receive(rest === undefined ? chunk : Buffer.concat([rest, chunk]), socket);
  });
  socket.on("error", () => socket.destroy());
});

answerParent({
  async listen() {
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  },
  reset() {
    count = 0;
    bytes = 0;
    arrivals = new Map();
  },
  until: (wanted) =>
    new Promise((resolve) => {
      if (count >= wanted) resolve(arrived());
      else waiting = { count: wanted, resolve };
    }),
  arrivals: () => arrivals,
} satisfies ReceiverMethods);
