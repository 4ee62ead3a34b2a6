import { createServer, type AddressInfo, type Socket } from "node:net";
import { answerParent, type Methods } from "./child.ts";

/** Receivers that do harm, each on a port of its own, in a process of its own. */
export interface HostileMethods extends Methods {
  /** @returns their URLs */
  listen(): Promise<readonly string[]>;
}

const hanging = 10;
const mebibyte = Buffer.alloc(1_048_576, "x");
const everyByte = Buffer.from(Array.from({ length: 256 }, (_, value) => value));

/** A byte a second: it ends with the sender's deadline. */
function drip(socket: Socket): void {
  socket.write("HTTP/1.1 200 OK\r\nx: ");
  const timer = setInterval(() => socket.write("x"), 1_000);
  socket.on("close", () => clearInterval(timer));
}

/** A gibibyte, for as long as somebody reads it. */
function flood(socket: Socket): void {
  let left = 1_024;
  socket.write("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n");
  const write = (): void => {
    while (left > 0 && !socket.destroyed) {
      left--;
      if (!socket.write(mebibyte)) return void socket.once("drain", write);
    }
  };
  write();
}

const answerEveryByte = (socket: Socket): void => {
  socket.write(Buffer.concat([Buffer.from(`HTTP/1.1 500 No\r\ncontent-length: ${everyByte.length}\r\n\r\n`), everyByte]));
};

const manners: readonly ((socket: Socket) => void)[] = [
  ...Array.from({ length: hanging }, () => () => undefined),
  drip,
  flood,
  answerEveryByte,
  (socket) => socket.resetAndDestroy(),
];

/** Whatever comes of a request, it is answered once: one packet holds it. */
async function listen(answer: (socket: Socket) => void): Promise<string> {
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on("data", () => answer(socket));
    socket.on("error", () => socket.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

answerParent({ listen: () => Promise.all(manners.map(listen)) } satisfies HostileMethods);
