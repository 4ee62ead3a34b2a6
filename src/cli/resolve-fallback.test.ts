import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { afterEach, beforeEach, expect, test } from "vitest";

const run = promisify(execFile);

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "ancrage-test-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** Imports a file of the folder in a process of its own, and shows its default export. */
async function importFile(source: string, { isRegistered = true } = {}): Promise<{ readonly out: string; readonly err: string }> {
  const file = join(folder, "definition.ts");
  await writeFile(file, source);
  const register = `import { registerResolveFallback } from ${JSON.stringify(new URL("./resolve-fallback.ts", import.meta.url).href)};
    registerResolveFallback(); registerResolveFallback();`;
  const code = `${isRegistered ? register : ""} console.log((await import(${JSON.stringify(pathToFileURL(file).href)})).default)`;
  const { stdout, stderr } = await run(process.execPath, ["--input-type=module", "-e", code], { cwd: folder }).catch(
    (error: { stdout: string; stderr: string }) => error,
  );
  return { out: stdout.trim(), err: stderr };
}

const definition = `
import { defineEvent } from "ancrage";
import { z } from "zod";
import * as mini from "zod/mini";
export default [defineEvent({ payload: () => 1 }).kind, z.string().parse("a"), typeof mini.string].join()`;

test("a folder that has neither ancrage nor zod is given those that run, without a warning", async () => {
  expect(await importFile(definition)).toEqual({ out: "event,a,function", err: "" });
  expect((await importFile(definition, { isRegistered: false })).err).toContain("ERR_MODULE_NOT_FOUND");
});

test("what a folder has of its own goes first", async () => {
  const own = join(folder, "node_modules", "zod");
  await mkdir(own, { recursive: true });
  await writeFile(join(own, "package.json"), JSON.stringify({ name: "zod", type: "module", exports: "./index.js" }));
  await writeFile(join(own, "index.js"), "export const z = 'its own';");
  expect((await importFile(`import { z } from "zod"; export default z;`)).out).toBe("its own");
});

test("no other package is found that way, though the installation has it", async () => {
  const { out, err } = await importFile(`import pg from "pg"; export default pg;`);
  expect(out).toBe("");
  expect(err).toContain("ERR_MODULE_NOT_FOUND");
  expect(err).toContain("'pg'");
});

test.each([
  ["a package", "no-such-package"],
  ["a file beside it", "./_shared.ts"],
])("an import of %s that is not there is a fault at the author's own line", async (_what, specifier) => {
  await mkdir(join(folder, "events"));
  await writeFile(join(folder, "events", "A.ts"), `// A comment.\nimport x from "${specifier}";\nexport default x;\n`);
  const url = (path: string): string => JSON.stringify(new URL(path, import.meta.url).href);
  const code = `import { registerResolveFallback } from ${url("./resolve-fallback.ts")};
    import { discover } from ${url("../event/discover.ts")};
    registerResolveFallback();
    console.log(JSON.stringify((await discover(${JSON.stringify(folder)})).faults));`;
  const { stdout } = await run(process.execPath, ["--input-type=module", "-e", code]);
  expect(JSON.parse(stdout)).toMatchObject([{ file: "events/A.ts", message: expect.stringMatching(/\(events\/A\.ts:2\)\.$/) }]);
});
