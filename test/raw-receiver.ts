import { createServer as createTcpServer, type AddressInfo, type Server, type Socket } from "node:net";
import { createServer as createTlsServer, type TlsOptions, type Server as TlsServer } from "node:tls";

/** What it does with a request: whatever it wants with the socket. */
export type Script = (socket: Socket, request: { readonly number: number; readonly text: string }) => void;

export interface RawReceiver {
  readonly port: number;
  readonly origin: string;
  readonly server: Server | TlsServer;
  /** Sockets that were ever opened, in the order in which they came. */
  readonly sockets: readonly Socket[];
  /** The requests, head and body. */
  readonly requests: readonly string[];
  script(script: Script): void;
  /** Resolves when all its sockets are closed. */
  quiet(): Promise<void>;
  close(): Promise<void>;
}

/** A receiver below HTTP: it waits for a whole request of Ancrage's and then follows a script. */
export async function startRawReceiver(first: Script, tls?: TlsOptions): Promise<RawReceiver> {
  let script = first;
  const sockets: Socket[] = [];
  const requests: string[] = [];
  const open = new Set<Socket>();
  let onQuiet: (() => void) | undefined;
  const serve = (socket: Socket): void => {
    sockets.push(socket);
    open.add(socket);
    socket.setNoDelay(true);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => {
      open.delete(socket);
      if (open.size === 0) onQuiet?.();
    });
    let text = "";
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString("latin1");
      const length = /\r\ncontent-length: (\d+)\r\n/.exec(text)?.[1];
      if (length === undefined || text.length < text.indexOf("\r\n\r\n") + 4 + Number(length)) return;
      requests.push(text);
      script(socket, { number: requests.length, text });
      text = "";
    });
  };
  const server = tls === undefined ? createTcpServer(serve) : createTlsServer(tls, serve);
  server.on("tlsClientError", () => undefined);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    port,
    origin: `${tls === undefined ? "http" : "https"}://127.0.0.1:${port}`,
    server,
    sockets,
    requests,
    script(next) {
      script = next;
    },
    quiet: () =>
      new Promise((resolve) => {
        onQuiet = resolve;
        if (open.size === 0) resolve();
      }),
    async close() {
      for (const socket of open) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
