/** One thing that is wrong with an input, and where: a JSON pointer. */
export interface Fault {
  readonly pointer: string;
  readonly detail: string;
}

/** Takes a fault; answers undefined, so that a check may end with it. */
export type Refuse = (pointer: string, detail: string) => undefined;

/** A JSON pointer to a member (RFC 6901). */
export function pointerTo(name: string): string {
  return `/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
}

/** A value as a message shows it, cut where it is long. */
export function show(value: unknown): string {
  if (value === undefined) return "nothing";
  const text = JSON.stringify(value);
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** What a text or JSON must be without, in words. */
export const unstorable = "expected no character U+0000 and no half of a surrogate pair, which PostgreSQL cannot store";

/** Whether PostgreSQL takes a value as `jsonb`, and its texts as `text`. Of all that JSON can say it refuses these two. */
export function isStorable(value: unknown): boolean {
  // JSON writes both as escapes; an even number of backslashes before one is a text that merely looks like it.
  return !/(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/.test(JSON.stringify(value) ?? "");
}
