import { isObject, isStorable, pointerTo, show, unstorable, type Refuse } from "./fault.ts";

/**
 * Which payloads a subscription wants: paths into the payload, and what stands there. All of them must hold.
 *
 * @example
 * ```json
 * { "status": "won", "amount": { "gte": 1000 }, "customer.country": ["FR", "BE"], "owner": { "exists": true } }
 * ```
 */
export type FilterSpec = Readonly<Record<string, Condition>>;

/** A value, several of which one must be there, or comparisons, all of which must hold. */
export type Condition = Scalar | readonly Scalar[] | Comparisons;

export type Scalar = string | number | boolean | null;

export interface Comparisons {
  readonly eq?: Scalar;
  readonly ne?: Scalar;
  readonly gt?: string | number;
  readonly gte?: string | number;
  readonly lt?: string | number;
  readonly lte?: string | number;
  readonly in?: readonly Scalar[];
  readonly exists?: boolean;
}

/** Says whether a parsed payload is wanted. */
export type Filter = (payload: unknown) => boolean;

const mostPaths = 20;
const mostValues = 100;
const mostCharacters = 8192;

/**
 * Makes a checked filter ready to be asked, once a revision: it is asked for every message.
 *
 * - A path is dotted (`customer.country`, `items.0.sku`); one that begins with `/` is a JSON pointer, for names with dots in them.
 * - Where an array stands at the path, one element that is wanted is enough; `ne` holds if none is that value.
 * - Numbers compare with numbers and with texts that are numbers: `bigint` and `numeric` columns reach a payload as texts.
 *   Texts compare by their code units, which is the order of ISO 8601 times.
 * - What is not there fulfils `ne` and `exists: false`, and nothing else.
 */
export function compileFilter(spec: FilterSpec): Filter {
  const conditions = Object.entries(spec).map(([path, condition]) => ({ steps: stepsOf(path), holds: compileCondition(condition) }));
  return (payload) => conditions.every(({ steps, holds }) => holds(find(payload, steps)));
}

type Test = (value: unknown) => boolean;

function compileCondition(condition: Condition): Test {
  if (!isObject(condition)) return anyOf(equalsOneOf(Array.isArray(condition) ? condition : [condition]));
  const tests = Object.entries(condition).map(([name, operand]) => operators[name as Operator].compile(operand as never));
  return (value) => tests.every((holds) => holds(value));
}

type Operator = keyof Comparisons;

const isScalar = (value: unknown): value is Scalar => value === null || ["string", "number", "boolean"].includes(typeof value);
const isOrdered = (value: unknown): value is string | number => typeof value === "string" || typeof value === "number";
const isList = (value: unknown): value is readonly Scalar[] =>
  Array.isArray(value) && value.length > 0 && value.length <= mostValues && value.every(isScalar);

const scalar = { expected: "a text, a number, true, false or null", isOperand: isScalar };
const ordered = { expected: "a text or a number", isOperand: isOrdered };

/** Each comparison: what it takes, and the test that it is. */
const operators = {
  eq: { ...scalar, compile: (operand: Scalar) => anyOf(equalsOneOf([operand])) },
  ne: { ...scalar, compile: (operand: Scalar) => not(anyOf(equalsOneOf([operand]))) },
  gt: { ...ordered, compile: (operand: string | number) => anyOf(compares(operand, (order) => order > 0)) },
  gte: { ...ordered, compile: (operand: string | number) => anyOf(compares(operand, (order) => order >= 0)) },
  lt: { ...ordered, compile: (operand: string | number) => anyOf(compares(operand, (order) => order < 0)) },
  lte: { ...ordered, compile: (operand: string | number) => anyOf(compares(operand, (order) => order <= 0)) },
  in: {
    expected: `an array of 1 to ${mostValues} texts, numbers, true, false or null`,
    isOperand: isList,
    compile: (operand: readonly Scalar[]) => anyOf(equalsOneOf(operand)),
  },
  exists: {
    expected: "true or false",
    isOperand: (value: unknown) => typeof value === "boolean",
    compile:
      (operand: boolean): Test =>
      (value) =>
        (value !== undefined) === operand,
  },
} satisfies Record<Operator, { expected: string; isOperand: (value: unknown) => boolean; compile: (operand: never) => Test }>;

/** An array holds what one of its elements does. */
function anyOf(test: Test): Test {
  return (value) => (Array.isArray(value) ? value.some(test) : test(value));
}

function not(test: Test): Test {
  return (value) => !test(value);
}

function equalsOneOf(operands: readonly Scalar[]): Test {
  // A set, so that a hundred values cost what one does.
  const exact: ReadonlySet<unknown> = new Set(operands);
  const numbers: ReadonlySet<number> = new Set(operands.filter((operand) => typeof operand === "number"));
  return (value) => exact.has(value) || (numbers.size > 0 && typeof value === "string" && numbers.has(numberOf(value)));
}

function compares(operand: string | number, isWanted: (order: number) => boolean): Test {
  return (value) => {
    if (typeof operand === "string") return typeof value === "string" && isWanted(orderOf(value, operand));
    const number = typeof value === "string" ? numberOf(value) : value;
    return typeof number === "number" && !Number.isNaN(number) && isWanted(orderOf(number, operand));
  };
}

function orderOf<Value extends string | number>(a: Value, b: Value): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** A text that is a decimal number, as `numeric` is written; NaN for all others (`Number("")` would be 0). */
function numberOf(text: string): number {
  return /^[+-]?\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
}

function stepsOf(path: string): readonly string[] {
  if (!path.startsWith("/")) return path.split(".");
  return path
    .slice(1)
    .split("/")
    .map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
}

/** Own members only: `constructor` is no field of a payload. */
function find(payload: unknown, steps: readonly string[]): unknown {
  let value = payload;
  for (const step of steps) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, step)) return undefined;
    value = (value as Readonly<Record<string, unknown>>)[step];
  }
  return value;
}

/** Checks a filter that somebody wrote. `null` and an empty one want everything. */
export function checkFilter(value: unknown, refuse: Refuse): FilterSpec | null | undefined {
  if (value === undefined || value === null) return null;
  const example = `such as {"status": "won", "amount": {"gte": 1000}}`;
  if (!isObject(value)) return refuse("/filter", `expected an object of paths into the payload, ${example}, got ${show(value)}`);
  const paths = Object.keys(value);
  if (paths.length > mostPaths) return refuse("/filter", `expected at most ${mostPaths} paths, got ${paths.length}`);
  const { length } = JSON.stringify(value);
  if (length > mostCharacters) return refuse("/filter", `expected at most ${mostCharacters} characters of JSON, got ${length}`);
  if (!isStorable(value)) return refuse("/filter", unstorable);
  let isRefused = false;
  const note: Refuse = (pointer, detail) => {
    isRefused = true;
    return refuse(`/filter${pointer}`, detail);
  };
  for (const [path, condition] of Object.entries(value)) {
    if (path === "") note("/", `expected a path into the payload, such as "customer.country", got ""`);
    else checkCondition(pointerTo(path), condition, note);
  }
  return isRefused ? undefined : paths.length === 0 ? null : (value as FilterSpec);
}

function checkCondition(pointer: string, condition: unknown, refuse: Refuse): void {
  if (isScalar(condition) || isList(condition)) return;
  const names = Object.keys(operators);
  if (!isObject(condition)) {
    refuse(
      pointer,
      `expected a value, an array of 1 to ${mostValues} values, or comparisons (${names.join(", ")}), got ${show(condition)}`,
    );
    return;
  }
  if (Object.keys(condition).length === 0) refuse(pointer, `expected at least one of ${names.join(", ")}, got {}`);
  for (const [name, operand] of Object.entries(condition)) {
    if (!Object.hasOwn(operators, name)) {
      const nested = `a path below it is written with a dot ("a.b")`;
      refuse(pointer + pointerTo(name), `unknown comparison; expected one of ${names.join(", ")}; ${nested}`);
      continue;
    }
    const { expected, isOperand } = operators[name as Operator];
    if (!isOperand(operand)) refuse(pointer + pointerTo(name), `expected ${expected}, got ${show(operand)}`);
  }
}
