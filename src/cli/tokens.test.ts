import { createServer, type Server } from "node:http";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { runProgram } from "./program.ts";

let server: Server;
let url: string;
let heard: { readonly method: string; readonly path: string; readonly body: string }[] = [];
let answer: { readonly status: number; readonly body: unknown };
beforeAll(async () => {
  server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
    request.on("end", () => {
      heard.push({ method: request.method ?? "", path: request.url ?? "", body });
      response.writeHead(answer.status, { "content-type": "application/json" }).end(JSON.stringify(answer.body));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  url = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
});
afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});
beforeEach(() => (heard = []));

async function run(...words: readonly string[]) {
  const out: string[] = [];
  const err: string[] = [];
  const code = await runProgram(words, {
    env: { ANCRAGE_URL: url, ANCRAGE_TOKEN: "anc_env" },
    workingFolder: "/",
    print: (text) => void out.push(text),
    note: (text) => void err.push(text),
    heedStopping: () => new AbortController().signal,
  });
  return { code, out: out.join("\n"), err: err.join("\n") };
}
const token = { id: "tok_1", name: "ci", project: "acme", expiresAt: "2020-01-01T00:00:00.000Z", lastUsedAt: null };

test("create sends what it was given, and says that the token is shown once", async () => {
  answer = { status: 201, body: { ...token, token: "anc_secret" } };
  expect(await run("tokens", "create", "ci", "--project", "acme")).toEqual({
    code: 0,
    out: expect.stringContaining("token: anc_secret"),
    err: "Keep it now: nothing shows it again.",
  });
  expect(await run("tokens", "create", "all", "--all-projects", "--expires", "2099-01-01T00:00:00Z", "--json")).toEqual({
    code: 0,
    out: JSON.stringify(answer.body),
    err: "",
  });
  expect(heard.map(({ body }) => JSON.parse(body) as unknown)).toEqual([
    { name: "ci", project: "acme" },
    { name: "all", project: null, expiresAt: "2099-01-01T00:00:00Z" },
  ]);
});

test("whose it is must be said, and once", async () => {
  for (const words of [[], ["--project", "acme", "--all-projects"]]) {
    expect(await run("tokens", "create", "ci", ...words)).toMatchObject({
      code: 2,
      err: expect.stringContaining("expected either --project"),
    });
  }
  expect(heard).toEqual([]);
});

test("list is a line each; revoke is a DELETE; a project's token is told which it takes", async () => {
  answer = {
    status: 200,
    body: { data: [token, { ...token, project: null, expiresAt: null, lastUsedAt: "2026-11-24T10:22:00.000Z" }], next: null },
  };
  expect((await run("tokens", "list", "--project", "acme")).out.split("\n")).toEqual([
    "tok_1  acme  ci  never used  expired 2020-01-01T00:00:00.000Z",
    "tok_1  all projects  ci  used 2026-11-24T10h",
  ]);
  answer = { status: 200, body: { ...token, revokedAt: "2026-11-24T10:22:00.000Z" } };
  expect((await run("tokens", "revoke", "tok_1")).code).toBe(0);
  expect(heard.map(({ method, path }) => `${method} ${path}`)).toEqual(["GET /v1/tokens?limit=50&project=acme", "DELETE /v1/tokens/tok_1"]);
  answer = { status: 403, body: { code: "project-refused", detail: "it is for one project.", hint: "Use a token of all projects." } };
  expect(await run("tokens", "list")).toMatchObject({ code: 2, err: expect.stringContaining("Give the operator's token") });
});
