import ipaddr from "ipaddr.js";

export type Report = (place: string, expected: string, got: unknown) => void;

/** How a value is recognised, as it stands in a config, and how it is read out of the text of a variable or a flag. */
export interface Kind<Value> {
  /** What it takes, for faults and docs. */
  readonly expected: string;
  check(value: unknown, place: string, report: Report): value is Value;
  /** A text that cannot be read stays as it is: `check` then refuses it and shows it. */
  parse(text: string): unknown;
}

export function kind<Value>(
  expected: string,
  accepts: (value: unknown) => boolean,
  parse: (text: string) => unknown = (text) => text,
): Kind<Value> {
  return {
    expected,
    parse,
    check(value, place, report): value is Value {
      const isGood = accepts(value);
      if (!isGood) report(place, expected, value);
      return isGood;
    },
  };
}

export function text(expected: string, pattern: RegExp): Kind<string> {
  return kind(expected, (value) => typeof value === "string" && pattern.test(value));
}

export function oneOf<const Word extends string>(...words: readonly Word[]): Kind<Word> {
  return kind(words.map((word) => `"${word}"`).join(" or "), (value) => words.some((word) => word === value));
}

export function boolean(): Kind<boolean> {
  const words: Readonly<Record<string, boolean>> = { true: true, "1": true, false: false, "0": false };
  return kind(
    "true or false",
    (value) => typeof value === "boolean",
    (text) => words[text] ?? text,
  );
}

export function integer(minimum: number, maximum: number): Kind<number> {
  return kind(
    `a whole number from ${minimum} to ${maximum}`,
    (value) => Number.isInteger(value) && Number(value) >= minimum && Number(value) <= maximum,
    parseNumber,
  );
}

export function fraction(): Kind<number> {
  return kind("a number from 0 to 1", (value) => typeof value === "number" && value >= 0 && value <= 1, parseNumber);
}

export function seconds(bound: "> 0" | ">= 0"): Kind<number> {
  const isAbove = (value: number): boolean => (bound === "> 0" ? value > 0 : value >= 0);
  return kind(
    `a number of seconds ${bound}`,
    (value) => typeof value === "number" && Number.isFinite(value) && isAbove(value),
    parseNumber,
  );
}

function parseNumber(text: string): unknown {
  return /^-?\d+(\.\d+)?$/.test(text.trim()) ? Number(text) : text;
}

export function postgresUrl(): Kind<string> {
  return kind(
    "a connection string postgres://user:password@host:port/database",
    (value) => typeof value === "string" && /^postgres(ql)?:\/\//.test(value) && URL.canParse(value),
  );
}

export function httpUrl(): Kind<string> {
  return kind("an http: or https: URL without query and fragment", (value) => {
    if (typeof value !== "string" || !URL.canParse(value)) return false;
    const url = new URL(value);
    return /^https?:$/.test(url.protocol) && url.search === "" && url.hash === "" && url.username === "";
  });
}

export function network(): Kind<string> {
  return kind('a network such as "10.20.0.0/16"', (value) => typeof value === "string" && ipaddr.isValidCIDR(value));
}

export function functionOf<Signature extends (...values: never) => unknown>(expected: string): Kind<Signature> {
  return kind(expected, (value) => typeof value === "function");
}

export function list<Value>(
  element: Kind<Value>,
  bounds: { readonly minimum: number; readonly first?: Kind<Value> },
): Kind<readonly Value[]> {
  const expected = `a list, each ${element.expected}`;
  return {
    expected,
    parse: (text) => text.split(",").map((part) => element.parse(part.trim())),
    check(value, place, report): value is readonly Value[] {
      if (!Array.isArray(value) || value.length < bounds.minimum) {
        report(place, expected, value);
        return false;
      }
      return value
        .map((item, index) => (index === 0 ? (bounds.first ?? element) : element).check(item, `${place}[${index}]`, report))
        .every(Boolean);
    },
  };
}

export function isPlainObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function show(value: unknown): string {
  if (typeof value === "function") return "a function";
  const shown = typeof value === "bigint" ? `${value}n` : (JSON.stringify(value) ?? String(value));
  return shown.length > 80 ? `${shown.slice(0, 79)}…` : shown;
}

/** A fault ends up in logs: of a secret it tells the kind and the length. */
export function showSecret(value: unknown): string {
  return typeof value === "string" ? `a text of ${value.length} characters` : `a value of type ${typeof value}`;
}
