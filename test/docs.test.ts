import { execFile } from "node:child_process";
import { access, mkdir, mkdtemp, readFile, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, expect, test } from "vitest";

/** Pages whose code no guide of `e2e/guides.pg.test.ts` follows: what they show compiles, and what verifies signatures is run. */
const run = promisify(execFile);
const root = new URL("..", import.meta.url).pathname;
const secret = `whsec_${Buffer.alloc(32, 7).toString("base64")}`;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "ancrage-docs-"));
  await mkdir(join(folder, "node_modules"));
  await symlink(root, join(folder, "node_modules/ancrage"));
  for (const name of ["zod", "@types", "standardwebhooks", "express", "hono", "kysely", "drizzle-orm", "pg"])
    await symlink(join(root, "node_modules", name), join(folder, "node_modules", name));
  await writeFile(join(folder, "package.json"), '{ "type": "module" }');
  await writeFile(join(folder, "tsconfig.json"), JSON.stringify({ extends: join(root, "tsconfig.json"), include: [join(folder, "*.ts")] }));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

test(
  "the TypeScript of the event reference, of the guide for receivers and of the one on echoes compiles",
  { timeout: 120_000 },
  async () => {
    const pages = ["docs/reference/events.md", "docs/guides/receive.md", "docs/guides/avoid-echoes.md"];
    const names = (await Promise.all(pages.map(writeBlocks))).flat();
    // A page that no longer shows anything would compile as well.
    expect(names.length).toBeGreaterThanOrEqual(10);
    const tsc = await run(join(root, "node_modules/.bin/tsc"), ["-p", folder]).catch((error: unknown) => error as { stdout: string });
    expect(tsc.stdout).toBe("");
  },
);

test("both ways of verifying take what is signed as we sign it, and nothing else", async () => {
  await writeBlocks("docs/guides/receive.md");
  await writeFile(join(folder, "check.ts"), checkOfReceiver);
  const env = { ...process.env, PORT: "0", WEBHOOK_SECRET: secret };
  const { stdout } = await run(process.execPath, ["check.ts"], { cwd: folder, env });
  expect(stdout.trim().split("\n")).toEqual([
    "DealMade { label: 'Roof' }",
    "signed: 204, by hand true",
    "again: 204, by hand true",
    "changed: 401, by hand false",
    "old: 401, by hand false",
  ]);
});

test("each link of the docs to a file of ours leads to one", async () => {
  const docs = (await readdir(join(root, "docs"), { recursive: true })).filter((name) => name.endsWith(".md"));
  const pages = ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", ...docs.map((name) => join("docs", name))];
  const dead: string[] = [];
  for (const page of pages) {
    const text = await readFile(join(root, page), "utf8");
    for (const { 1: link = "" } of text.matchAll(/\]\(([^)#\s]+)[^)]*\)/g)) {
      if (/^\w+:/.test(link)) continue;
      await access(join(root, dirname(page), link)).catch(() => dead.push(`${page}: ${link}`));
    }
  }
  expect(dead).toEqual([]);
});

/** Writes the blocks of a page; the first line may name the file. */
async function writeBlocks(page: string): Promise<readonly string[]> {
  const text = await readFile(join(root, page), "utf8");
  const blocks = [...text.matchAll(/^```ts\n(.*?)^```$/gms)].map(({ 1: block = "" }) => block);
  const names = blocks.map((block, index) => /^\/\/ ([\w-]+\.ts)\n/.exec(block)?.[1] ?? `${basename(page, ".md")}-${index}.ts`);
  for (const [index, block] of blocks.entries()) await writeFile(join(folder, names[index] ?? ""), block);
  return names;
}

const checkOfReceiver = `
import { createSecretKey } from "node:crypto";
import { once } from "node:events";
import { computeSignature } from ${JSON.stringify(join(root, "src/deliver/sign.ts"))};
import { server } from "./receiver.ts";
import { isSigned } from "./verify.ts";

if (!server.listening) await once(server, "listening");
const url = \`http://127.0.0.1:\${server.address().port}/\`;
const secret = process.env.WEBHOOK_SECRET;
const key = createSecretKey(Buffer.from(secret.slice("whsec_".length), "base64"));
const body = Buffer.from('{"id":"msg_1","type":"DealMade","timestamp":"2026-11-24T05:59:37.038Z","data":{"label":"Roof"}}');

async function post(what, sent, ageS) {
  const timestamp = Math.floor(Date.now() / 1000) - ageS;
  const headers = {
    "webhook-id": "msg_1",
    "webhook-timestamp": String(timestamp),
    "webhook-signature": computeSignature([key], "msg_1", timestamp, body),
  };
  const { status } = await fetch(url, { method: "POST", headers, body: sent });
  console.log(\`\${what}: \${status}, by hand \${isSigned(secret, headers, sent)}\`);
}
await post("signed", body, 0);
await post("again", body, 10);
await post("changed", Buffer.from(String(body).replace("Roof", "Root")), 0);
await post("old", body, 600);
server.close();
server.closeAllConnections();
`;
