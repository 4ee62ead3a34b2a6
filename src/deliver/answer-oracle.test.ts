import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import fc from "fast-check";
import { request } from "undici";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startSending, type Sending } from "../../test/sending.ts";

/** What node's own server is told to answer. */
interface Told {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Written one by one; `undefined` for an answer without a body. */
  readonly pieces: readonly Buffer[];
  /** Else in chunks. */
  readonly hasLength: boolean;
  readonly hints: boolean;
}

let told: Told;
let server: Server;
let sending: Sending;
let origin: string;
beforeAll(async () => {
  server = createServer((incoming, response) => {
    incoming.resume();
    incoming.on("end", () => {
      const { status, headers, pieces, hasLength, hints } = told;
      if (hints) response.writeEarlyHints({ link: "</x>; rel=preload" });
      const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
      response.writeHead(status, hasLength ? { ...headers, "content-length": length } : headers);
      for (const piece of pieces) response.write(piece);
      response.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  sending = startSending();
});
afterAll(async () => {
  await sending.close();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

test("what node's server answers is read as undici reads it", async () => {
  const answers = fc.record<Told>({
    status: fc.constantFrom(200, 201, 202, 204, 301, 400, 404, 410, 429, 500, 503),
    headers: fc.dictionary(fc.stringMatching(/^x-[a-z]{1,8}$/), fc.stringMatching(/^[ -~]{0,20}$/), { maxKeys: 5 }),
    pieces: fc.array(
      fc.uint8Array({ minLength: 1, maxLength: 3_000 }).map((bytes) => Buffer.from(bytes)),
      { maxLength: 5 },
    ),
    hasLength: fc.boolean(),
    hints: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(answers, async (answer) => {
      told = answer.status === 204 ? { ...answer, pieces: [], hasLength: false } : answer;
      const theirs = await request(origin, { method: "POST", body: "{}" });
      const body = Buffer.from(await theirs.body.arrayBuffer());
      const ours = await sending.send(origin);
      const { statusCode: status } = theirs;
      const kept = body.length === 0 ? undefined : body.subarray(0, 16_384);
      expect(ours).toMatchObject(
        status < 300 ? { kind: "delivered", status } : { kind: "failed", reason: "status", status, response: kept },
      );
    }),
    { numRuns: 100 },
  );
});
