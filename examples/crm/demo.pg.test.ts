import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { createInterface } from "node:readline";
import pg from "pg";
import { expect, test } from "vitest";

const demo = fileURLToPath(new URL("./demo.ts", import.meta.url));

function startDemo(...words: readonly string[]) {
  // Another program's database must not get the demo's rows: this one does not answer, so the demo would fail.
  const env = { ...process.env, DATABASE_URL: "postgres://127.0.0.1:1/production", ANCRAGE_TOKEN: "a-token-of-another-program" };
  return spawn(process.execPath, ["-C", "ancrage-source", demo, "--rows", "300", ...words], { env, stdio: ["ignore", "pipe", "pipe"] });
}

test("--once: every message that is owed arrives verified and once, in a last line of JSON", { timeout: 120_000 }, async () => {
  const child = startDemo("--once");
  const [out, err, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, "close")]);
  expect(err).toBe("");
  const last = JSON.parse(out.trimEnd().split("\n").at(-1) ?? "") as Record<string, number>;
  // The customer, 20 + 1 + 1 + 1 deals of their own, two updates, the trigger, and the COPY.
  expect(last).toEqual({ committed: 327, expected: 649, received: 649, verified: 649, duplicates: 0, p50Ms: expect.any(Number) });
  expect(out).toContain("nothing of it was journaled or sent");
  expect(code).toBe(0);
});

test("without it everything goes on running: a row by hand arrives; Ctrl-C ends it and its database", { timeout: 120_000 }, async () => {
  const child = startDemo();
  const lines: string[] = [];
  const shown = Promise.withResolvers<void>();
  const arrived = Promise.withResolvers<void>();
  createInterface({ input: child.stdout }).on("line", (line) => {
    lines.push(line);
    if (line.startsWith("It goes on running")) shown.resolve();
    if (line.includes("/weavy ← NewOpportunity") && line.includes('"By hand"')) arrived.resolve();
  });
  const closed = once(child, "close");
  const early = closed.then(([code]) => Promise.reject(new Error(`the demo ended with ${String(code)}:\n${lines.join("\n")}`)));
  await Promise.race([shown.promise, early]);
  await expect.poll(() => lines.find((line) => line.includes("psql "))).toBeDefined();
  const database = /psql (\S+)/.exec(lines.find((line) => line.includes("psql ")) ?? "")?.[1];
  const client = new pg.Client({ connectionString: database });
  await client.connect();
  await client.query("insert into deal (label) values ('By hand')");
  await client.end();
  await Promise.race([arrived.promise, early]);
  early.catch(() => undefined);
  child.kill("SIGINT");
  expect(await closed).toEqual([0, null]);
  await expect(new pg.Client({ connectionString: database }).connect()).rejects.toThrow("ECONNREFUSED");
});
