import { createSocket } from "node:dgram";

/** What it answers a question for IPv4 addresses: these, a response code (2 SERVFAIL, 3 NXDOMAIN), or nothing at all. IPv6: none. */
export type NameAnswer = readonly string[] | number | "silence";

export interface NameServer {
  /** Such as `127.0.0.1:5353`. */
  readonly address: string;
  /** Names that were asked for their IPv4 addresses. */
  readonly questions: readonly string[];
  answer(answer: NameAnswer): void;
  close(): Promise<void>;
}

/** A name server on loopback that does as it is told: RFC 1035 as far as c-ares needs it. */
export async function startNameServer(first: NameAnswer): Promise<NameServer> {
  let answer = first;
  const questions: string[] = [];
  const socket = createSocket("udp4");
  socket.on("message", (query, from) => {
    const { name, type, end } = readQuestion(query);
    if (type === typeA) questions.push(name);
    if (answer === "silence") return;
    const code = typeof answer === "number" ? answer : 0;
    const addresses = typeof answer === "number" || type !== typeA ? [] : answer;
    const head = Buffer.from(query.subarray(0, 12));
    head.writeUInt16BE(0x8180 | code, 2);
    head.writeUInt16BE(addresses.length, 6);
    head.writeUInt32BE(0, 8);
    const records = addresses.map((address) =>
      Buffer.from([0xc0, 12, 0, typeA, 0, 1, 0, 0, 0, 0, 0, 4, ...address.split(".").map(Number)]),
    );
    socket.send(Buffer.concat([head, query.subarray(12, end), ...records]), from.port, from.address);
  });
  await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
  return {
    address: `127.0.0.1:${socket.address().port}`,
    questions,
    answer(next) {
      answer = next;
    },
    close: () => new Promise((resolve) => socket.close(() => resolve())),
  };
}

const typeA = 1;

function readQuestion(query: Buffer): { readonly name: string; readonly type: number; readonly end: number } {
  const labels: string[] = [];
  let at = 12;
  for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
    labels.push(query.toString("latin1", at + 1, at + 1 + length));
    at += 1 + length;
  }
  return { name: labels.join("."), type: query.readUInt16BE(at + 1), end: at + 5 };
}
