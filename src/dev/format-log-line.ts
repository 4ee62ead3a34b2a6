/**
 * A line of the pipeline's log as a person at a terminal reads it; what is not JSON (a `console.log` in an event file) as it is.
 *
 * @example formatLogLine('{"level":"warn","time":"2026-11-24T04:20:00.000Z","event":"deal.won","msg":"parked"}')
 * // "04:20:00 warn parked event=deal.won"
 * @returns undefined for an empty line
 */
export function formatLogLine(line: string): string | undefined {
  if (line.trim() === "") return undefined;
  const entry = parseEntry(line);
  if (entry === undefined) return line;
  const { level, time, msg, err, ...fields } = entry;
  const head = [
    typeof time === "string" ? time.slice(11, 19) : undefined,
    // The usual level says nothing.
    typeof level !== "string" || level === "info" ? undefined : level,
    typeof msg === "string" ? msg : undefined,
    ...Object.entries(fields).map(([name, value]) => `${name}=${formatField(value)}`),
  ];
  return head.filter((part) => part !== undefined).join(" ") + formatLoggedError(err);
}

function parseEntry(line: string): Record<string, unknown> | undefined {
  if (!line.startsWith("{")) return undefined;
  try {
    const entry: unknown = JSON.parse(line);
    return typeof entry === "object" && entry !== null && "level" in entry ? { ...entry } : undefined;
  } catch {
    return undefined;
  }
}

function formatField(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return /^[^\s"=]+$/.test(text) ? text : JSON.stringify(text);
}

/** As `log.ts` writes errors. One of ours says what to do and needs no stack. */
function formatLoggedError(error: unknown): string {
  if (typeof error !== "object" || error === null || !("message" in error)) return "";
  const code = "code" in error && typeof error.code === "string" ? `${error.code}: ` : "";
  const hint = "hint" in error && typeof error.hint === "string" ? `\n  ${error.hint}` : "";
  const stack = code.startsWith("ANCRAGE_") || !("stack" in error) ? "" : `\n${String(error.stack)}`;
  return `\n  ${code}${String(error.message)}${hint}${stack}`;
}
