import { createAdaptorServer } from "@hono/node-server";
import { AncrageError } from "../errors.ts";

export interface ListenOptions {
  readonly fetch: (request: Request) => Response | Promise<Response>;
  readonly host: string;
  readonly port: number;
}

export interface Listening {
  /** Where this machine reaches it. */
  readonly url: string;
  readonly port: number;
  /** Takes no more requests; resolves when those that run are answered, or cut off after `graceMs`. */
  close(graceMs: number): Promise<void>;
}

/** @throws AncrageError `ANCRAGE_OPTION_INVALID` where the port is taken or may not be used */
export async function listen(options: ListenOptions): Promise<Listening> {
  const server = createAdaptorServer({ fetch: options.fetch, hostname: options.host });
  const port = await new Promise<number>((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => reject(cannotListen(options, cause)));
    server.listen(options.port, options.host, () => {
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : options.port);
    });
  });
  return {
    url: `http://${reachableHost(options.host)}:${port}`,
    port,
    async close(graceMs) {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      if (!("closeAllConnections" in server)) return closed;
      // A client that keeps its connection open for the next request would hold the process.
      server.closeIdleConnections();
      const cutting = setTimeout(() => server.closeAllConnections(), graceMs);
      await closed;
      clearTimeout(cutting);
    },
  };
}

function reachableHost(host: string): string {
  if (host === "0.0.0.0" || host === "::") return "127.0.0.1";
  return host.includes(":") ? `[${host}]` : host;
}

function cannotListen({ host, port }: ListenOptions, cause: NodeJS.ErrnoException): AncrageError {
  const reasons: Readonly<Record<string, string>> = {
    EADDRINUSE: "another program listens there",
    EACCES: "this user may not use that port",
    EADDRNOTAVAIL: "this machine has no such address",
  };
  return new AncrageError("ANCRAGE_OPTION_INVALID", `could not listen on ${host}:${port}: ${reasons[cause.code ?? ""] ?? cause.message}.`, {
    hint: "Give another --port (0 takes a free one) or --host.",
    cause,
  });
}
