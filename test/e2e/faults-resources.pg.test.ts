import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, expect, test } from "vitest";
import { migrate } from "../../src/create-ancrage.ts";
import { startAncrage } from "../ancrage-process.ts";
import { cloneDatabase } from "../database.ts";

const library = new URL("../../src/index.ts", import.meta.url).href;
const token = "a-token-of-the-operator";
/** Enough for itself and its sessions, and not for its receivers. */
const descriptors = 80;
const receivers = 60;

const database = await cloneDatabase();
const folder = await mkdtemp(join(tmpdir(), "ancrage-resources-"));
afterAll(async () => {
  await database.remove();
  await rm(folder, { recursive: true, force: true });
});

test("out of descriptors: no attempt counts, no receiver is blamed, the API answers again, and each message arrives once", async () => {
  await database.client.query("create table item (id integer primary key)");
  await mkdir(join(folder, "events"));
  await writeFile(
    join(folder, "events", "Made.ts"),
    `import { defineEvent } from ${JSON.stringify(library)};
export default defineEvent({ table: "item", on: "insert", payload: ({ id }) => ({ id }) });\n`,
  );
  await migrate({ database: database.url, events: folder });

  const arrived: string[] = [];
  const hung: ServerResponse[] = [];
  let isPatient = true;
  const receiver = createServer((request, response) => {
    arrived.push(String(request.headers["ancrage-subscription"]));
    if (isPatient) hung.push(response);
    else response.writeHead(200).end();
  });
  await new Promise<void>((resolve) => receiver.listen(0, resolve));
  const { port } = receiver.address() as AddressInfo;

  const started = startAncrage(
    ["start", folder, "--port", "0", "--json", "--allow-http", "--allow-network", "127.0.0.0/8"],
    {
      DATABASE_URL: database.url,
      ANCRAGE_TOKEN: token,
      ANCRAGE_SECRET_KEY: Buffer.alloc(32, 7).toString("base64"),
      ANCRAGE_DELIVERY_TIMEOUT_MS: "120000",
    },
    { descriptors },
  );
  const { url } = JSON.parse(await started.line(/^\{"ready":true/)) as { readonly url: string };
  const call = async (method: string, path: string, body?: object): Promise<{ readonly status: number; readonly body: unknown }> => {
    const answer = await fetch(url + path, {
      method,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json", connection: "close" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return { status: answer.status, body: await answer.json() };
  };
  // Each at an address of its own: connections of one origin are bounded, those of all are not.
  for (let i = 1; i <= receivers; i += 4) {
    const urls = [0, 1, 2, 3].map((more) => `http://127.0.1.${i + more}:${port}/`);
    const made = await Promise.all(urls.map((url) => call("POST", "/v1/subscriptions", { event: "Made", url, format: "bare" })));
    expect(made.map(({ status }) => status)).toEqual([201, 201, 201, 201]);
  }
  await database.client.query("insert into item values (1)");
  await started.line(/no file descriptor left \(EMFILE\)/);
  const shown = async (): Promise<readonly string[]> => {
    try {
      const { body } = await call("GET", "/v1/status");
      return (body as { readonly problems: readonly { readonly code: string }[] }).problems.map(({ code }) => code);
    } catch {
      // There may be no descriptor for whoever asks, either.
      return [];
    }
  };
  // More than descriptors allow; those that got one hang.
  expect(arrived.length).toBeLessThan(receivers);

  isPatient = false;
  for (const response of hung) response.writeHead(200).end();
  while (new Set(arrived).size < receivers) await new Promise((resolve) => setTimeout(resolve, 50));
  while (!(await shown()).includes("resources-short")) await new Promise((resolve) => setTimeout(resolve, 50));
  const delivered = "select count(*)::integer as count from ancrage.deliveries where state = 'delivered' and attempts = 1";
  while ((await database.client.query<{ count: number }>(delivered)).rows[0]?.count !== receivers)
    await new Promise((resolve) => setTimeout(resolve, 50));
  expect(arrived).toHaveLength(receivers);
  expect((await database.client.query("select from ancrage.attempts")).rowCount).toBe(0);
  expect((await database.client.query("select from ancrage.subscription_health")).rowCount).toBe(0);
  expect((await database.client.query("select from ancrage.subscriptions where state <> 'enabled'")).rowCount).toBe(0);
  expect((await call("GET", "/readyz")).status).toBe(200);
  expect(await started.end("SIGTERM")).toBe(0);
  receiver.closeAllConnections();
  await new Promise<void>((resolve) => receiver.close(() => resolve()));
}, 60_000);

test("out of local ports: what finds none is no attempt, and what has one is delivered", async (context) => {
  const child = fileURLToPath(new URL("faults-ports-child.ts", import.meta.url));
  // A network of its own, with eight ports.
  const script = `ip link set lo up && echo "40000 40007" > /proc/sys/net/ipv4/ip_local_port_range && exec "$0" "$1"`;
  let out: string;
  try {
    out = (await promisify(execFile)("unshare", ["--net", "sh", "-c", script, process.execPath, child])).stdout;
  } catch (error) {
    if (!/unshare|ip: |ENOENT|Operation not permitted/.test(String(error))) throw error;
    return context.skip("this user may not make a network");
  }
  const outcomes = JSON.parse(out) as readonly { readonly kind: string; readonly shortage?: string }[];
  const unsent = outcomes.filter(({ kind }) => kind === "unsent");
  expect(unsent.length).toBeGreaterThanOrEqual(4);
  expect(unsent.every(({ shortage }) => shortage?.includes("no local port left (EADDRNOTAVAIL)"))).toBe(true);
  expect(outcomes.filter(({ kind }) => kind === "delivered")).toHaveLength(12 - unsent.length);
});
