import { createServer, type Server } from "node:http";
import { afterEach, beforeEach, expect, test } from "vitest";
import { formatProgress, type JobView } from "./follow-job.ts";
import { parseTime } from "./make-job.ts";
import { runProgram } from "./program.ts";

let server: Server;
let url: string;
let heard: { readonly method: string; readonly path: string; readonly body: unknown }[];
/** One after the other; the last one stays. */
let answers: { readonly status: number; readonly body: unknown }[];

beforeEach(async () => {
  heard = [];
  answers = [];
  server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
    request.on("end", () => {
      heard.push({ method: request.method ?? "", path: request.url ?? "", body: body === "" ? undefined : JSON.parse(body) });
      const answer = answers.length > 1 ? answers.shift() : answers[0];
      response.writeHead(answer?.status ?? 500, { "content-type": "application/json" }).end(JSON.stringify(answer?.body ?? {}));
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

async function run(words: readonly string[], isTerminal = false, stopping = new AbortController().signal) {
  const out: string[] = [];
  const err: string[] = [];
  const bar: string[] = [];
  const code = await runProgram(words, {
    env: { ANCRAGE_URL: url, ANCRAGE_TOKEN: "anc_env" },
    workingFolder: "/",
    print: (text) => void out.push(text),
    note: (text) => void err.push(text),
    ...(isTerminal ? { progress: (text: string) => void bar.push(text) } : {}),
    heedStopping: () => stopping,
  });
  return { code, out: out.join("\n"), err: err.join("\n"), bar };
}

const job = (given: Partial<JobView>): JobView => ({
  id: "job_1",
  kind: "backfill",
  state: "running",
  total: 10,
  done: 0,
  failed: 0,
  error: null,
  ...given,
});

test("backfill makes a job, shows how far it is, and ends with it", async () => {
  answers = [
    { status: 201, body: job({ state: "waiting" }) },
    { status: 200, body: job({ done: 5, unfinished: 2 }) },
    { status: 200, body: job({ state: "done", done: 10 }) },
  ];
  const words = ["backfill", "deal.won", "--subscription", "sub_1", "--where", "id > 5", "--rate", "50/s"];
  const { code, out, bar } = await run(words, true);
  expect(heard[0]).toEqual({
    method: "POST",
    path: "/v1/jobs",
    body: { kind: "backfill", event: "deal.won", subscriptionId: "sub_1", where: "id > 5", ratePerSecond: 50 },
  });
  expect(bar).toEqual(["backfill  waits for its turn", "backfill  [████████████░░░░░░░░░░░░]  5 of 10, 2 unfinished", ""]);
  expect(out).toContain("state: done");
  expect(code).toBe(0);
});

test("a job that fails ends the command with 1, and --json has it whole", async () => {
  answers = [
    { status: 201, body: job({ state: "waiting" }) },
    { status: 200, body: job({ state: "failed", error: "its subscription sub_1 was deleted." }) },
  ];
  const { code, out } = await run(["jobs", "replay", "sub_1", "--from", "2026-11-01", "--event", "a", "b", "--again", "--json"]);
  expect(heard[0]?.body).toEqual({
    kind: "replay",
    subscriptionId: "sub_1",
    from: "2026-11-01T00:00:00.000Z",
    events: ["a", "b"],
    again: true,
  });
  expect(JSON.parse(out)).toMatchObject({ state: "failed", error: expect.stringContaining("deleted") });
  expect(code).toBe(1);
});

test("whoever ends the command before the job has ended is not told that it is done: 3", async () => {
  answers = [{ status: 201, body: job({ state: "waiting" }) }];
  const { code, err } = await run(["jobs", "recover", "sub_1", "--since", "1h"], false, AbortSignal.abort());
  expect({ code, err }).toEqual({ code: 3, err: expect.stringContaining("job_1 goes on without this command") });
});

test("--dry-run counts, --no-wait does not wait, a refusal is said", async () => {
  answers = [{ status: 200, body: { dryRun: true, total: 12 } }];
  expect(await run(["deliveries", "cancel", "--event", "deal.won", "--from", "2h", "--dry-run"])).toMatchObject({
    code: 0,
    out: "It would be 12 deliveries.",
  });
  expect(heard[0]).toMatchObject({ path: "/v1/deliveries/cancel", body: { event: "deal.won", dryRun: true } });
  answers = [{ status: 201, body: job({ state: "waiting", kind: "retry" }) }];
  expect((await run(["rejections", "retry", "--event", "deal.won", "--no-wait", "--json"])).out).toBe(JSON.stringify(answers[0]?.body));
  expect(heard).toHaveLength(2);
  answers = [
    { status: 409, body: { code: "job-refused", detail: "the subscription sub_1 is disabled (gone).", hint: "Enable it first." } },
  ];
  const refused = await run(["jobs", "recover", "sub_1", "--since", "12h"]);
  expect(refused).toMatchObject({ code: 2, err: expect.stringContaining("disabled (gone).\nEnable it first.") });
});

test("one rejection is retried at once: what a job would choose by is refused with it, and nothing is sent", async () => {
  answers = [{ status: 200, body: { outcome: "message" } }];
  const refused = await run(["rejections", "retry", "rej_1", "--dry-run", "--project", "a"]);
  expect(refused).toMatchObject({ code: 2, err: expect.stringContaining("the id of a rejection or --dry-run, --project, got both") });
  expect((await run(["rejections", "retry", "rej_1", "--no-wait"])).code).toBe(2);
  expect(heard).toEqual([]);
  expect((await run(["rejections", "retry", "rej_1"])).code).toBe(0);
  expect(heard).toMatchObject([{ path: "/v1/rejections/rej_1/retry" }]);
});

test("lists are a line each, and say that there is more", async () => {
  const delivery = {
    id: "dlv_1",
    event: null,
    key: null,
    state: "exhausted",
    subscriptionId: "sub_1",
    attempts: [{ status: null, reason: "timeout" }],
  };
  // The first page has found nothing in its time.
  answers = [
    { status: 200, body: { data: [], next: "dlv_9" } },
    { status: 200, body: { data: [delivery], next: "dlv_1" } },
  ];
  const { out, err } = await run(["deliveries", "list", "--state", "exhausted", "--job", "job_1"]);
  expect(out).toBe("dlv_1  exhausted  – – → sub_1  timeout");
  expect(err).toBe("There are more: --after dlv_1");
  expect(heard.map(({ path }) => path)).toEqual([
    "/v1/deliveries?state=exhausted&jobId=job_1&limit=50",
    "/v1/deliveries?state=exhausted&jobId=job_1&limit=50&after=dlv_9",
  ]);
  answers = [{ status: 200, body: { data: [], next: null } }];
  expect(await run(["jobs", "list"])).toMatchObject({ code: 0, out: "", err: "None." });
});

test("a retry after which rejections stay ends with 1 and says where they are; a backfill that made some only says it", async () => {
  answers = [{ status: 201, body: job({ kind: "retry", state: "done", done: 10, failed: 3 }) }];
  expect(await run(["rejections", "retry"])).toMatchObject({ code: 1, err: "3 are rejections: `ancrage rejections list` says why." });
  answers = [{ status: 201, body: job({ state: "done", done: 10, failed: 3 }) }];
  const backfill = await run(["backfill", "deal.won", "--subscription", "sub_1"]);
  expect(backfill).toMatchObject({ code: 0, err: "3 are rejections: `ancrage rejections list` says why." });
});

test("one rejection that is rejected again ends with 1; one delivery is sent again", async () => {
  answers = [{ status: 200, body: { outcome: "rejected", reason: "payload-threw", error: "no" } }];
  expect(await run(["rejections", "retry", "rej_1"])).toMatchObject({ code: 1, out: expect.stringContaining("payload-threw") });
  answers = [{ status: 200, body: { id: "dlv_1", state: "pending" } }];
  expect(await run(["deliveries", "resend", "dlv_1"])).toMatchObject({ code: 0, out: expect.stringContaining("pending") });
  expect(heard.map(({ method, path }) => `${method} ${path}`)).toEqual([
    "POST /v1/rejections/rej_1/retry",
    "POST /v1/deliveries/dlv_1/resend",
  ]);
});

test("times are ISO 8601, or so long ago", () => {
  const now = Date.parse("2026-11-24T12:00:00Z");
  expect(parseTime("--since", "90m", now)).toBe("2026-11-24T10:30:00.000Z");
  expect(parseTime("--since", "7d", now)).toBe("2026-11-17T12:00:00.000Z");
  expect(parseTime("--since", "2026-11-24T10:00:00+02:00", now)).toBe("2026-11-24T08:00:00.000Z");
  for (const wrong of ["yesterday", "1", "2026-13-01", "5w"])
    expect(() => parseTime("--since", wrong, now)).toThrow("--since: expected a time");
});

test("progress has no bar where the size is not known, and none that overflows", () => {
  expect(formatProgress(job({ total: null, done: 7, failed: 1 }))).toBe("backfill  7, 1 rejected");
  expect(formatProgress(job({ total: 0, done: 0 }))).toContain("0 of 0");
  expect(formatProgress(job({ total: 2, done: 9 }))).toContain(`[${"█".repeat(24)}]`);
});
