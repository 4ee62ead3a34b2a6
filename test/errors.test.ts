import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { errorCodes, sqlStateOf } from "../src/errors.ts";
import { rejectionFaults } from "../src/payload/reject.ts";

const root = new URL("..", import.meta.url).pathname;
const page = await readFile(join(root, "docs/reference/errors.md"), "utf8");

test("each error code has its row in docs/reference/errors.md, and no other has one", () => {
  const documented = [...page.matchAll(/^\| `(ANCRAGE_\w+)` \|/gm)].map((match) => match[1]);
  expect(documented).toEqual(Object.keys(errorCodes));
});

test("each error code is used", async () => {
  const files = (await readdir(join(root, "src"), { recursive: true })).filter(
    (name) => name.endsWith(".ts") && !name.endsWith(".test.ts"),
  );
  const sources = await Promise.all(files.filter((name) => name !== "errors.ts").map((name) => readFile(join(root, "src", name), "utf8")));
  const all = sources.join("\n");
  expect(Object.keys(errorCodes).filter((code) => !all.includes(`"${code}"`))).toEqual([]);
});

test("each reason of a rejection is documented", () => {
  const section = page.slice(page.indexOf("## Rejections"));
  expect(Object.keys(rejectionFaults).filter((reason) => !section.includes(`\`${reason}\``))).toEqual([]);
});

test("a SQLSTATE is told from Node's own codes", () => {
  expect(sqlStateOf({ code: "57P01" })).toBe("57P01");
  expect(sqlStateOf({ code: "42601" })).toBe("42601");
  for (const code of ["EPIPE", "ECONNRESET", "EBUSY", 23_505, undefined]) expect(sqlStateOf({ code })).toBeUndefined();
  expect(sqlStateOf(undefined)).toBeUndefined();
});
