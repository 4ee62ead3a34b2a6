import { createServer, connect, type AddressInfo, type Socket } from "node:net";

export interface Proxy {
  /** The address of the database through it. */
  readonly url: string;
  /** Breaks all connections at once, without a word to either side. */
  cut(): void;
  /**
   * Swallows what is said, and keeps all connections open, also those made from now on: a cable that was pulled.
   *
   * @param what only one of the connections, by the order in which they were made, the first being 0; only what the server says
   */
  stall(what?: { readonly connection?: number; readonly answersOnly?: boolean }): void;
  /** Ends connections as soon as they are made, from now on until `resume`. Resolves with the first. */
  refuse(): Promise<void>;
  /** Hands over what was swallowed, and goes on. */
  resume(): void;
  close(): Promise<void>;
}

/** Stands between a client and PostgreSQL, and fails as a network does. */
export async function startProxy(databaseUrl: string): Promise<Proxy> {
  const target = new URL(databaseUrl);
  const connections: { readonly client: Socket; readonly upstream: Socket }[] = [];
  let isStalled = false;
  /** Undefined while connections are taken. */
  let onRefused: (() => void) | undefined;
  const server = createServer((client) => {
    if (onRefused !== undefined) {
      client.destroy();
      return onRefused();
    }
    const upstream = connect(Number(target.port), target.hostname);
    for (const socket of [client, upstream]) {
      socket.setNoDelay(true);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        client.destroy();
        upstream.destroy();
      });
    }
    connections.push({ client, upstream });
    if (isStalled) return;
    client.pipe(upstream).pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = new URL(databaseUrl);
  url.port = String((server.address() as AddressInfo).port);
  const cut = (): void => {
    for (const { client } of connections) client.destroy();
  };
  return {
    url: url.href,
    cut,
    stall({ connection, answersOnly = false } = {}) {
      isStalled ||= connection === undefined;
      for (const { client, upstream } of connection === undefined ? connections : connections.slice(connection, connection + 1)) {
        upstream.unpipe(client).pause();
        if (!answersOnly) client.unpipe(upstream).pause();
      }
    },
    refuse: () => new Promise((resolve) => (onRefused = resolve)),
    resume() {
      isStalled = false;
      onRefused = undefined;
      for (const { client, upstream } of connections) {
        upstream.unpipe(client);
        client.unpipe(upstream).pipe(upstream).pipe(client);
      }
    },
    async close() {
      cut();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
