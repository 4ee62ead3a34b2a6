import { createRoute as declareRoute, z, type Hook, type OpenAPIHono } from "@hono/zod-openapi";
import { isStorable, unstorable, type Fault } from "../subscription/check-subscription.ts";
import { nearestName } from "../nearest-name.ts";
import type { ApiEnv } from "./auth.ts";
import { refusal } from "./problem.ts";
import { problemSchema } from "./schemas.ts";

/** The parts that routes are declared from. */

export type Api = OpenAPIHono<ApiEnv>;

export const json = <Schema extends z.ZodType>(description: string, schema: Schema) => ({
  description,
  content: { "application/json": { schema } },
});

/** Every route may answer with a problem. */
export const problems = {
  default: { description: "A problem (RFC 9457).", content: { "application/problem+json": { schema: problemSchema } } },
};

export const bearer = [{ bearer: [] }];

/** A page of a list; `next` is what `after` takes to go on, null at the end. */
export const page = <Item extends z.ZodType>(item: Item) => z.object({ data: z.array(item), next: z.string().nullable() });

export const pageOf = <Row, View>(rows: readonly Row[], limit: number, cursorOf: (row: Row) => string, view: (row: Row) => View) => {
  // One row more than the page was read: it says whether there is a next page, and is not shown.
  const shown = rows.slice(0, limit);
  const last = shown.at(-1);
  return { data: shown.map(view), next: rows.length > limit && last !== undefined ? cursorOf(last) : null };
};

/** The parameters of a query; an unknown one is refused with those there are. */
export const query = <const Shape extends z.ZodRawShape>(shape: Shape) => {
  const names = Object.keys(shape);
  return z.strictObject(shape, {
    error: ({ code, keys }) => {
      if (code !== "unrecognized_keys") return undefined;
      if (names.length === 0) return "unknown; expected no parameters";
      const meant = Array.isArray(keys) && keys.length === 1 ? nearestName(String(keys[0]), names) : undefined;
      return `unknown; ${meant === undefined ? "" : `did you mean "${meant}"? `}expected one of ${names.join(", ")}`;
    },
  });
};

/** Declares a route. One that names no parameters of the query takes none: what is unknown is refused everywhere. */
export const createRoute = ((route) => declareRoute({ ...route, request: { query: query({}), ...route.request } })) as typeof declareRoute;

const wholeNumber = (least: number, most: number) => {
  const error = `expected a whole number from ${least} to ${most}`;
  return z
    .string({ error })
    .regex(/^\d{1,9}$/, error)
    .transform(Number)
    .pipe(z.int().min(least, error).max(most, error))
    .openapi({ type: "integer", minimum: least, maximum: most });
};

export const limit = (fallback: number, most: number) =>
  wholeNumber(1, most)
    .optional()
    .transform((value) => value ?? fallback)
    .openapi({ type: "integer", minimum: 1, maximum: most, default: fallback });

/** A parameter that goes into a statement. */
export const text = (what: string) =>
  z
    .string({ error: `expected ${what}, once` })
    .min(1, `expected ${what}`)
    .max(500, "expected at most 500 characters")
    .refine(isStorable, unstorable);

/** Where a list goes on: an id that the page before ended with. Any other text would skip rows, or show none, and say so to nobody. */
export const cursor = (prefix: string, { orSealed }: { readonly orSealed?: boolean } = {}) =>
  text("the next of the page before")
    .regex(
      new RegExp(`^(?:${prefix}[0-9A-Z]{1,60}${orSealed === true ? String.raw`|cur_[\w-]{1,400}` : ""})$`),
      "expected the next of the page before",
    )
    .optional();

/** The parameters that all lists share. */
export const listQuery = {
  project: text("the name of a project").optional().openapi({ description: "Only for tokens of all projects, which otherwise list all." }),
  after: text("the next of the page before").optional(),
  limit: limit(50, 200),
};

export const time = z.iso.datetime({ offset: true, error: "expected a time in ISO 8601 such as 2026-11-24T10:22:00Z" });

/** Lists of the journal are bounded to a range of days, so that each reads few partitions. */
export const rangeQuery = {
  from: time.optional().openapi({ description: "Default: 7 days before to." }),
  to: time.optional().openapi({ description: "Default: now. At most 31 days after from." }),
};

const dayMs = 86_400_000;
const mostDays = 31;

/** The range that a request names, in ms since the epoch: `from` included, `to` not. */
export function rangeOf(query: { readonly from?: string | undefined; readonly to?: string | undefined }, nowMs: number) {
  // The clock of the database gave the times; a minute more, so that nothing new is hidden where ours goes slow.
  const toMs = query.to === undefined ? nowMs + 60_000 : Date.parse(query.to);
  const fromMs = query.from === undefined ? toMs - 7 * dayMs : Date.parse(query.from);
  if (fromMs >= toMs) throw invalid([{ pointer: "?from", detail: "expected a time before to" }]);
  if (toMs - fromMs > mostDays * dayMs + 60_000) {
    throw invalid([
      { pointer: "?from", detail: `expected a range of at most ${mostDays} days, got ${Math.ceil((toMs - fromMs) / dayMs)}` },
    ]);
  }
  return { fromMs: Math.max(0, fromMs), toMs: Math.max(0, toMs) };
}

export function invalid(errors: readonly Fault[]): Error {
  const count = errors.length === 1 ? "one fault" : `${errors.length} faults`;
  return refusal({
    code: "invalid",
    detail: `the request has ${count}: ${errors.map((fault) => `${fault.pointer}: ${fault.detail}`).join("; ")}`,
    hint: "Correct what errors lists and send it again.",
    errors,
  });
}

/** Turns what a schema refused into a problem. */
export const refuseInvalid: Hook<unknown, ApiEnv, string, undefined> = (result) => {
  if (result.success) return undefined;
  const given: unknown = "data" in result ? result.data : undefined;
  throw invalid(result.error.issues.flatMap((issue) => faultsOf(issue, result.target, given)));
};

type Issue = z.core.$ZodIssue;

function faultsOf(issue: Issue, target: string, given: unknown): readonly Fault[] {
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({ pointer: pointerOf([...issue.path, key], target), detail: issue.message }));
  }
  const value = issue.path.reduce<unknown>((inner, name) => (isObject(inner) ? inner[String(name)] : undefined), given);
  const got = value === undefined ? "none" : JSON.stringify(value).slice(0, 200);
  return [{ pointer: pointerOf(issue.path, target), detail: `${issue.message}, got ${got}` }];
}

function pointerOf(path: readonly PropertyKey[], target: string): string {
  const names = path.map((name) => String(name).replaceAll("~", "~0").replaceAll("/", "~1"));
  if (target === "json") return names.map((name) => `/${name}`).join("");
  return target === "query" ? `?${names.join(".")}` : `{${names.join(".")}}`;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}
