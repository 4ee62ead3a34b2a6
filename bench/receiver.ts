import { createHmac, createSecretKey, type KeyObject } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { answerParent, type Methods } from "./child.ts";
import { nowMs } from "./clock.ts";

/**
 * A receiver that costs as little as Node can: what it takes of the two cores is missing to what is measured. It reads of HTTP only
 * what our senders write: lower-case names, a content-length, no chunks.
 *
 * The path says how it answers: `/hook` at once, `/late/100` after 100 ms.
 */
export interface ReceiverMethods extends Methods {
  listen(): Promise<ReceiverUrls>;
  /** From now on each request must be signed with this secret, as a receiver of a customer would ask. Undefined: unchecked. */
  check(secret: string | undefined): void;
  /** Forgets what has arrived. */
  reset(): void;
  /** Resolves when so many requests have arrived since the last `reset`. */
  until(count: number): Promise<Arrived>;
  /** When each numbered event arrived first, by its number. */
  arrivals(): ReadonlyMap<number, number>;
}

export interface ReceiverUrls {
  readonly http: string;
  readonly https: string;
}

export interface Arrived {
  /** More than were waited for: something came twice. */
  readonly count: number;
  /** Of different numbers. */
  readonly distinct: number;
  /** Without a signature, or with a wrong one; 0 where none was checked. */
  readonly unsigned: number;
  /** On average. */
  readonly bodyBytes: number;
  readonly lastAtMs: number;
}

const answer = Buffer.from("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
const headEnd = Buffer.from("\r\n\r\n");
const lengthName = Buffer.from("\r\ncontent-length: ");
const numberName = Buffer.from('"number":');
/** Where the path's first letter stands: `POST /hook`. */
const letterAt = 6;
const late = "l".charCodeAt(0);

let count = 0;
let bytes = 0;
let unsigned = 0;
let key: KeyObject | undefined;
let arrivals = new Map<number, number>();
let waiting: { readonly count: number; readonly resolve: (arrived: Arrived) => void } | undefined;

const arrived = (): Arrived => ({
  count,
  distinct: arrivals.size,
  unsigned,
  bodyBytes: count === 0 ? 0 : bytes / count,
  lastAtMs: nowMs(),
});

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
    const letter = data[at + letterAt];
    if (key !== undefined && !isSigned(key, data.toString("latin1", at, end), data.subarray(body, body + length))) unsigned++;
    note(data, body, length);
    if (letter === late) setTimeout(() => socket.write(answer), readNumber(data, at + "POST /late/".length));
    else socket.write(answer);
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

/** Written apart from what signs: a receiver shares no code with its sender. */
function isSigned(secret: KeyObject, head: string, body: Buffer): boolean {
  const header = (name: string): string | undefined => new RegExp(`\r\n${name}: ([^\r]*)`).exec(head)?.[1];
  const hmac = createHmac("sha256", secret)
    .update(`${header("webhook-id")}.${header("webhook-timestamp")}.`)
    .update(body);
  return header("webhook-signature") === `v1,${hmac.digest("base64")}`;
}

function serve(socket: Socket): void {
  let rest: Buffer | undefined;
  socket.on("data", (chunk) => {
    rest = receive(rest === undefined ? chunk : Buffer.concat([rest, chunk]), socket);
  });
  socket.on("error", () => socket.destroy());
}

async function portOf(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

answerParent({
  async listen() {
    const pem = (name: string): Buffer => readFileSync(new URL(`certificate/${name}.pem`, import.meta.url));
    const http = createServer({ noDelay: true }, serve);
    const https = createTlsServer({ noDelay: true, key: pem("key"), cert: pem("certificate") }, serve);
    return { http: `http://127.0.0.1:${await portOf(http)}`, https: `https://127.0.0.1:${await portOf(https)}` };
  },
  check(secret) {
    key = secret === undefined ? undefined : createSecretKey(Buffer.from(secret.replace(/^whsec_/, ""), "base64"));
  },
  reset() {
    count = 0;
    bytes = 0;
    unsigned = 0;
    arrivals = new Map();
  },
  until: (wanted) =>
    new Promise((resolve) => {
      if (count >= wanted) resolve(arrived());
      else waiting = { count: wanted, resolve };
    }),
  arrivals: () => arrivals,
} satisfies ReceiverMethods);
