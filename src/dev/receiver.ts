/** A request that the built-in receiver got, as `GET /_dev/receiver/<name>` shows it. */
export interface ReceivedRequest {
  /** 1 for the first one of this name. */
  readonly number: number;
  readonly at: string;
  /** What the receiver answered. */
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Parsed where it is JSON, else the text. */
  readonly body: unknown;
}

/** By the receiver's name, newest first. */
export type ReceivedRequests = Readonly<Record<string, readonly ReceivedRequest[]>>;

export interface DevReceiverOptions {
  /** What an earlier pipeline of this `dev` received: a reload must not lose it. */
  readonly received?: ReceivedRequests;
  readonly onReceived?: (name: string, request: ReceivedRequest) => void;
  readonly nowMs: () => number;
}

export interface DevReceiver {
  /** Answers a request for the receiver; `undefined` for any other. */
  handle(request: Request): Promise<Response | undefined>;
  received(): ReceivedRequests;
}

/** Enough to look at; it all lies in memory. */
const keptPerName = 50;
const mostNames = 100;
const mostBytes = 1024 * 1024;

/**
 * A receiver for development: `POST /_dev/receiver/<name>` keeps the last requests, `GET` shows them, `DELETE` forgets them.
 *
 * `?status=500` makes it answer so: for looking at retries. It asks for no token, since receivers do not, and so it exists in `dev` alone.
 */
export function createDevReceiver(options: DevReceiverOptions): DevReceiver {
  const received = new Map<string, readonly ReceivedRequest[]>(Object.entries(options.received ?? {}));

  async function receive(name: string, request: Request, query: URLSearchParams): Promise<Response> {
    const asked = query.get("status") ?? "200";
    if (!/^[2-5]\d\d$/.test(asked)) return refuse(400, `?status=: expected a status from 200 to 599, got ${JSON.stringify(asked)}`);
    const text = await request.text();
    if (text.length > mostBytes) return refuse(413, `expected a body of at most ${mostBytes} bytes, got ${text.length}`);
    const status = Number(asked);
    const earlier = received.get(name) ?? [];
    const entry: ReceivedRequest = {
      number: (earlier[0]?.number ?? 0) + 1,
      at: new Date(options.nowMs()).toISOString(),
      status,
      headers: Object.fromEntries(request.headers),
      body: parseBody(text),
    };
    received.delete(name);
    received.set(name, [entry, ...earlier].slice(0, keptPerName));
    const [oldest] = received.keys();
    if (received.size > mostNames && oldest !== undefined) received.delete(oldest);
    options.onReceived?.(name, entry);
    const body = status === 204 || status === 304 ? null : JSON.stringify({ received: entry.number });
    return new Response(body, { status, headers: { "content-type": "application/json" } });
  }

  return {
    async handle(request) {
      const url = new URL(request.url);
      const found = /^\/_dev\/receiver(?:\/([^/]*))?\/?$/.exec(url.pathname);
      if (found === null) return undefined;
      const name = found[1] ?? "";
      if (request.method === "GET" && name === "") return Response.json({ data: [...received.keys()], next: null });
      if (!/^[\w.-]{1,64}$/.test(name))
        return refuse(404, `expected /_dev/receiver/<name> with a name of letters, digits, . _ and -, got ${JSON.stringify(name)}`);
      if (request.method === "POST") return receive(name, request, url.searchParams);
      if (request.method === "GET") return Response.json({ data: received.get(name) ?? [], next: null });
      if (request.method === "DELETE") return Response.json({ forgotten: received.delete(name) });
      return refuse(405, `expected POST, GET or DELETE, got ${request.method}`);
    },
    received: () => Object.fromEntries(received),
  };
}

function parseBody(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function refuse(status: number, detail: string): Response {
  return Response.json({ type: "about:blank", status, detail }, { status, headers: { "content-type": "application/problem+json" } });
}
