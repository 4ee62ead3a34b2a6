import { createServer, type Server } from "node:http";
import { afterEach, beforeEach, expect, test } from "vitest";
import { runProgram } from "./program.ts";

let server: Server;
let url: string;
let heard: { readonly asked: string; readonly body: unknown }[];
let answer: unknown;

beforeEach(async () => {
  heard = [];
  answer = { id: "sub_1", state: "enabled" };
  server = createServer((request, response) => {
    let text = "";
    request.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
    request.on("end", () => {
      heard.push({ asked: `${request.method} ${request.url}`, body: text === "" ? undefined : JSON.parse(text) });
      response.writeHead(200).end(JSON.stringify(answer));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  url = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
});
afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

async function run(...words: readonly string[]): Promise<{ readonly code: number; readonly out: string; readonly err: string }> {
  const out: string[] = [];
  const err: string[] = [];
  const code = await runProgram(["subscriptions", ...words], {
    env: { ANCRAGE_URL: url, ANCRAGE_TOKEN: "token" },
    workingFolder: ".",
    print: (text) => void out.push(text),
    note: (text) => void err.push(text),
    heedStopping: () => new AbortController().signal,
  });
  return { code, out: out.join("\n"), err: err.join("\n") };
}

test.each([
  ["show sub_1", "GET /v1/subscriptions/sub_1"],
  ["pause sub_1", "POST /v1/subscriptions/sub_1/pause"],
  ["resume sub_1", "POST /v1/subscriptions/sub_1/resume"],
  ["enable sub_1", "POST /v1/subscriptions/sub_1/enable"],
  ["delete sub_1", "DELETE /v1/subscriptions/sub_1"],
  ["show a/b", "GET /v1/subscriptions/a%2Fb"],
])("%s asks %s", async (words, asked) => {
  expect(await run(...words.split(" "), "--json")).toEqual({ code: 0, out: `{"id":"sub_1","state":"enabled"}`, err: "" });
  expect(heard).toEqual([{ asked, body: undefined }]);
  expect((await run(...words.split(" "))).out).toBe("id: sub_1\nstate: enabled");
});

test("create and update send what was given, and nothing else", async () => {
  const fields = ["--event", "A", "--event", "B", "--format", "bare", "--filter", `{"a":{"gte":1}}`, "--order", "record"];
  fields.push("--header", "Authorization: Bearer a:b", "--in-flight", "4", "--per-second", "0.5", "--expires", "2099-01-01T00:00:00Z");
  const sent = {
    events: ["A", "B"],
    format: "bare",
    filter: { a: { gte: 1 } },
    order: "record",
    headers: { Authorization: "Bearer a:b" },
    limits: { inFlight: 4, perSecond: 0.5 },
    expiresAt: "2099-01-01T00:00:00Z",
  };
  await run("create", "https://example.com/", "--project", "acme", ...fields);
  await run("update", "sub_1", ...fields);
  await run("update", "sub_1", "--to", "https://example.com/2", "--set", `{"description":null}`, "--expires", "null", "--filter", "null");
  expect(heard).toEqual([
    { asked: "POST /v1/subscriptions", body: { url: "https://example.com/", project: "acme", ...sent } },
    { asked: "PATCH /v1/subscriptions/sub_1", body: sent },
    {
      asked: "PATCH /v1/subscriptions/sub_1",
      body: { description: null, url: "https://example.com/2", filter: null, expiresAt: null },
    },
  ]);
});

test("a list has a line each, and says how to go on", async () => {
  const one = { id: "sub_1", project: "acme", state: "disabled", stateReason: "gone", events: ["A", "B"], url: "https://example.com/" };
  answer = { data: [one], next: "sub_1" };
  expect(await run("list", "--event", "A", "--to", "https://example.com/", "--limit", "1")).toEqual({
    code: 0,
    out: "sub_1  disabled (gone)  acme  A, B  https://example.com/",
    err: "There are more: --after sub_1",
  });
  expect(heard[0]?.asked).toBe("GET /v1/subscriptions?event=A&url=https%3A%2F%2Fexample.com%2F&limit=1");
  answer = { data: [], next: null };
  expect(await run("list")).toEqual({ code: 0, out: "", err: "None." });
});

test("secret shows it alone", async () => {
  answer = { secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" };
  expect((await run("secret", "sub_1")).out).toBe("secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
  expect(heard[0]?.asked).toBe("GET /v1/subscriptions/sub_1/secret");
});

test("rotate-secret and test ask with what was given; a test that fails ends with 1", async () => {
  await run("rotate-secret", "sub_1", "--grace-hours", "2");
  answer = { isDelivered: true };
  expect((await run("test", "sub_1", "--event", "A")).code).toBe(0);
  answer = { isDelivered: false, reason: "refused" };
  expect(await run("test", "sub_1")).toMatchObject({ code: 1, out: "isDelivered: false\nreason: refused" });
  expect(heard).toEqual([
    { asked: "POST /v1/subscriptions/sub_1/rotate-secret", body: { graceHours: 2 } },
    { asked: "POST /v1/subscriptions/sub_1/test", body: { event: "A" } },
    { asked: "POST /v1/subscriptions/sub_1/test", body: {} },
  ]);
});

test.each([
  [["create", "https://example.com/", "--filter", "{"], "--filter: expected JSON"],
  [["create", "https://example.com/", "--in-flight", "many"], "--in-flight: expected a number"],
  [["update", "sub_1", "--header", "hunter2"], "--header: expected"],
])("%j is refused before anything is asked, and shows no header", async (words, message) => {
  const { code, err } = await run(...words);
  expect(code).toBe(2);
  expect(err).toContain(message);
  expect(err).not.toContain("hunter2");
  expect(heard).toEqual([]);
});
