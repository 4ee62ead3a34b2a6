import type { Socket } from "node:net";

const mebibyte = Buffer.alloc(1_048_576, "x");
/** What a server may put into its answer. */
export const everyByte = Buffer.from(Array.from({ length: 256 }, (_, value) => value));

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

/** A byte a second, of headers that would take hours: it ends with the sender's deadline. */
function drip(socket: Socket): void {
  socket.write("HTTP/1.1 200 OK\r\nx: ");
  const timer = setInterval(() => socket.write("x"), 1_000);
  socket.on("close", () => clearInterval(timer));
}

function answerEveryByte(socket: Socket): void {
  socket.write(Buffer.concat([Buffer.from(`HTTP/1.1 500 No\r\ncontent-length: ${everyByte.length}\r\n\r\n`), everyByte]));
}

/** How receivers that do harm answer a request: for the test, and for the bench, that stand a healthy one beside all of them. */
export const hostileScripts: Readonly<Record<string, (socket: Socket) => void>> = {
  ...Object.fromEntries(Array.from({ length: 10 }, (_, number) => [`hangs ${number}`, () => undefined])),
  drips: drip,
  floods: flood,
  "every byte": answerEveryByte,
  resets: (socket) => socket.resetAndDestroy(),
};
