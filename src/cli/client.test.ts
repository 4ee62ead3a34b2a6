import { mkdir, mkdtemp, realpath, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { lockDevFolder } from "../dev/dev-file.ts";
import { findServer } from "./client.ts";
import type { ExitCode } from "./command.ts";
import { runProgram } from "./program.ts";

interface Heard {
  readonly method: string | undefined;
  readonly path: string | undefined;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

let folder: string;
let server: Server;
let url: string;
let heard: Heard[];
let answer: (response: ServerResponse, request: Heard) => void;

beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), "ancrage-test-")));
  heard = [];
  server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
    request.on("end", () => {
      const entry = { method: request.method, path: request.url, headers: request.headers, body };
      heard.push(entry);
      answer(response, entry);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  url = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
});
afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await rm(folder, { recursive: true, force: true });
});

interface Ran {
  readonly code: ExitCode;
  readonly out: string;
  readonly err: string;
}

async function run(words: readonly string[], env: Record<string, string> = { ANCRAGE_URL: url, ANCRAGE_TOKEN: "anc_env" }): Promise<Ran> {
  const out: string[] = [];
  const err: string[] = [];
  const code = await runProgram(words, {
    env,
    workingFolder: folder,
    print: (text) => void out.push(text),
    note: (text) => void err.push(text),
    heedStopping: () => new AbortController().signal,
  });
  return { code, out: out.join("\n"), err: err.join("\n") };
}

function answerJson(status: number, body: unknown): void {
  answer = (response) => response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

test("status: 0 when ready, 3 when not, the answer either way", async () => {
  answerJson(200, { isReady: true, problems: [], details: { lagBytes: 0 } });
  expect(await run(["status"])).toEqual({ code: 0, out: "isReady: true\nproblems: none\ndetails:\n  lagBytes: 0", err: "" });
  answerJson(200, { isReady: false, problems: [{ code: "ANCRAGE_SLOT_LOST", message: "gone" }], details: {} });
  const { code, out } = await run(["status", "--json"]);
  expect(code).toBe(3);
  expect(JSON.parse(out)).toMatchObject({ isReady: false });
  expect(heard[0]).toMatchObject({ method: "GET", path: "/v1/status", headers: { authorization: "Bearer anc_env" } });
});

test("sample, explain and trigger ask for what the words say", async () => {
  answerJson(200, [{ label: "A" }]);
  expect(await run(["sample", "deal.won", "--limit", "1", "--format", "result"])).toMatchObject({
    code: 0,
    out: '[\n  {\n    "label": "A"\n  }\n]',
  });
  expect(heard.at(-1)?.path).toBe("/v1/events/deal.won/samples?limit=1&format=result");

  answerJson(200, { findings: ["It may happen on insert.", "It would go to https://a.example/ (sub_1)."], fires: true });
  expect(await run(["explain", "deal.won", "4/2 ü"])).toMatchObject({
    code: 0,
    out: "It may happen on insert.\nIt would go to https://a.example/ (sub_1).",
  });
  expect(heard.at(-1)?.path).toBe("/v1/events/deal.won/explain?key=4%2F2+%C3%BC");

  answerJson(200, { id: "msg_1", event: "deal.won" });
  expect(await run(["trigger", "deal.won", "42", "--data", '{"by":"me"}', "--json"])).toMatchObject({
    code: 0,
    out: '{"id":"msg_1","event":"deal.won"}',
  });
  expect(heard.at(-1)).toMatchObject({
    method: "POST",
    path: "/v1/events/deal.won/trigger",
    headers: { prefer: "wait=5", "content-type": "application/json" },
    body: '{"key":"42","data":{"by":"me"}}',
  });
});

test("trigger --no-wait does not ask to wait; a wait without a message says what to look at", async () => {
  answerJson(202, { trigger: "0198" });
  const waited = await run(["trigger", "A", "1"]);
  expect(waited).toMatchObject({ code: 3, out: "trigger: 0198", err: expect.stringContaining("not journaled after 5 s") });
  const unwaited = await run(["trigger", "A", "1", "--no-wait"]);
  expect(unwaited).toEqual({ code: 0, out: "trigger: 0198", err: "" });
  expect(heard.at(-1)?.headers).not.toHaveProperty("prefer");
  answerJson(202, { trigger: "0198", outcome: "nothing" });
  expect(await run(["trigger", "A", "1"])).toMatchObject({ code: 0, err: "Nothing is sent: the payload function returned undefined." });
});

test.each([
  ["payload-threw", 1],
  ["record-missing", 2],
  ["data-invalid", 2],
])("trigger prints why it was rejected; %s: %i", async (reason, code) => {
  const rejections = [
    { id: "rej_2", reason: "payload-threw", error: "another one" },
    { id: "rej_1", reason, error: "this is why" },
  ];
  answer = (response, { method }) =>
    response
      .writeHead(method === "POST" ? 202 : 200)
      .end(JSON.stringify(method === "POST" ? { trigger: "0198", outcome: "rejected", rejectionId: "rej_1" } : { data: rejections }));
  expect(await run(["trigger", "A", "1"])).toEqual({
    code,
    out: "trigger: 0198\noutcome: rejected\nrejectionId: rej_1",
    err: `It was rejected (${reason}): this is why.`,
  });
  expect(heard.at(-1)?.path).toBe("/v1/rejections?event=A&limit=50");
});

test("an unknown event and an event without samples have their own codes", async () => {
  answerJson(404, { code: "unknown-event", detail: 'no event is called "A"; there are B.' });
  expect(await run(["sample", "A"])).toMatchObject({
    code: 2,
    err: expect.stringMatching(/^ANCRAGE_TRIGGER_UNKNOWN_EVENT: .*there are B\.$/),
  });
  answerJson(404, { code: "not-found", detail: "there is no record." });
  expect(await run(["trigger", "A", "1"])).toMatchObject({ code: 2, err: expect.stringContaining("ANCRAGE_OPTION_INVALID") });
  answerJson(409, { code: "sample-none", detail: "A has no sample to show: it threw." });
  expect(await run(["sample", "A"])).toMatchObject({ code: 1, err: expect.stringContaining("ANCRAGE_SAMPLE_NONE") });
});

test("a problem is shown with its hint and each fault; what was asked was wrong: 2", async () => {
  answerJson(422, {
    title: "x",
    detail: "the key is no bigint.",
    hint: "Give a number.",
    errors: [{ pointer: "/key", detail: 'got "x"' }],
  });
  expect(await run(["trigger", "A", "x"])).toEqual({
    code: 2,
    out: "",
    err: 'ANCRAGE_OPTION_INVALID: /v1/events/A/trigger answered 422:\n  /key: got "x"\nGive a number.',
  });
});

test("with --json an error is JSON too", async () => {
  answerJson(401, { detail: "the bearer token is unknown." });
  const { code, err } = await run(["status", "--json"]);
  expect(code).toBe(2);
  expect(JSON.parse(err)).toEqual({
    error: {
      code: "ANCRAGE_OPTION_INVALID",
      message: "/v1/status answered 401: the bearer token is unknown.",
      hint: "Give the operator's token (ANCRAGE_TOKEN of the server), or one of all projects, with --token or ANCRAGE_TOKEN.",
    },
  });
  const wrong = await run(["sample", "--json"]);
  expect(wrong.code).toBe(2);
  expect(JSON.parse(wrong.err)).toEqual({ error: { code: "ANCRAGE_OPTION_INVALID", message: "missing required argument 'event'" } });
});

test("each token that is refused is answered with the one that is wanted", async () => {
  answerJson(403, { code: "project-refused", detail: "the token is for one project.", hint: "Send the token of this project." });
  expect((await run(["status"])).err).toContain("or one of all projects");
  expect((await run(["sample", "A"])).err).toContain("Send the token of this project.");
  answerJson(401, { detail: "the bearer token is unknown." });
  expect((await run(["sample", "A"])).err).toContain("Give the server's token with --token");
});

test("503 and no answer: 3; 500 and what is not JSON: 1", async () => {
  answerJson(503, { detail: "the database does not answer." });
  expect((await run(["status"])).code).toBe(3);
  answerJson(500, { detail: "Ancrage failed." });
  expect((await run(["status"])).code).toBe(1);
  answer = (response) => response.writeHead(200).end("<html>");
  const { code, err } = await run(["status"]);
  expect(code).toBe(1);
  expect(err).toContain('expected JSON, got "<html>"');
  answer = (response) => response.destroy();
  expect((await run(["status"])).code).toBe(3);
  const silent = await run(["status", "--url", "http://127.0.0.1:1"]);
  expect(silent.code).toBe(3);
  expect(silent.err).toMatch(/^ANCRAGE_SERVER_UNREACHABLE: http:\/\/127\.0\.0\.1:1 did not answer: .+\nCheck that it runs/);
});

test("a redirect is not followed: the token is for this server", async () => {
  answer = (response, { path }) =>
    path === "/v1/status" ? response.writeHead(302, { location: `${url}/elsewhere` }).end() : response.writeHead(200).end("{}");
  expect((await run(["status"])).code).toBe(3);
  expect(heard.map(({ path }) => path)).toEqual(["/v1/status"]);
});

test("flags go before the environment; the path of a mounted server is kept", async () => {
  answerJson(200, { isReady: true });
  await run(["status", "--url", `${url}/hooks/`, "--token", "anc_flag"], { ANCRAGE_URL: "http://127.0.0.1:1", ANCRAGE_TOKEN: "anc_env" });
  expect(heard[0]).toMatchObject({ path: "/hooks/v1/status", headers: { authorization: "Bearer anc_flag" } });
});

test("without flags and environment it is the dev that runs here, with its own token", async () => {
  const state = join(folder, ".ancrage");
  await mkdir(state);
  const lock = await lockDevFolder(state, false);
  await lock.announce({ url, token: "anc_dev", database: "postgres://localhost/app" });
  answerJson(200, { isReady: true });
  expect((await run(["status"], { ANCRAGE_TOKEN: "anc_other" })).code).toBe(0);
  expect(heard[0]?.headers["authorization"]).toBe("Bearer anc_dev");
  await lock.release();
  const { code, err } = await run(["status"], {});
  expect(code).toBe(3);
  expect(err).toContain("no `ancrage dev` runs in this folder or above it");
});

test("a server without a token, and what is no URL, are refused with what to do", async () => {
  await expect(findServer({ env: {}, workingFolder: folder }, { url })).rejects.toMatchObject({
    hint: "Give --token or set ANCRAGE_TOKEN.",
  });
  await expect(findServer({ env: {}, workingFolder: folder }, { url: "localhost:8787", token: "t" })).rejects.toMatchObject({
    message: '--url: expected an http: or https: URL, got "localhost:8787"',
  });
});

test("wrong words: 2, with what was meant", async () => {
  expect(await run(["statsu"])).toMatchObject({ code: 2, err: expect.stringContaining("Did you mean status?") });
  expect((await run(["explain", "A"])).code).toBe(2);
  expect(await run(["trigger", "A", "1", "--data", "{"])).toMatchObject({
    code: 2,
    err: expect.stringContaining('--data: expected JSON, got "{"'),
  });
  expect(await run(["trigger", "A", "1", "--wait", "long"])).toMatchObject({ code: 2, err: expect.stringContaining("--wait: expected") });
  expect(await run(["trigger", "A", "1", "--wait", "26"])).toMatchObject({ code: 2, err: expect.stringContaining("from 0 to 25") });
  expect(heard).toEqual([]);
});

test("every command's help has an example and says what its exit codes mean, or the program's does", async () => {
  const { code, out } = await run(["--help"]);
  expect(code).toBe(0);
  expect(out).toContain("Exit codes: 0 done · 1 failed · 2 ");
  for (const command of ["dev", "start", "migrate", "generate", "status", "explain", "sample", "trigger"]) {
    expect(out).toContain(`  ${command} `);
    const help = await run([command, "--help"]);
    expect(help.code).toBe(0);
    expect(help.out).toContain(`$ `);
    expect(help.out).toContain(`ancrage ${command}`);
    expect(help.out).toContain("--json");
  }
});
