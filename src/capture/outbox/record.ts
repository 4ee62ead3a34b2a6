import { AncrageError } from "../../errors.ts";

/**
 * The texts of a row's columns, as `record_out` writes them: `(42,"a ""b"" \\ c",,"")`. Nothing between two commas is NULL; quotes stand
 * around what is empty or has a comma, a parenthesis, a quote, a backslash or a space; in them quotes and backslashes are doubled.
 *
 * @see https://www.postgresql.org/docs/current/rowtypes.html#ROWTYPES-IO-SYNTAX
 * @throws AncrageError `ANCRAGE_PROTOCOL` for a text that is none
 */
export function parseRecord(text: string): (string | null)[] {
  if (!text.startsWith("(") || !text.endsWith(")")) throw unreadable(text);
  const end = text.length - 1;
  const columns: (string | null)[] = [];
  for (let at = 1; ;) {
    if (text.charCodeAt(at) === quote) {
      const closed = closingQuote(text, at + 1, end);
      columns.push(text.slice(at + 1, closed).replaceAll(/""|\\\\/g, (twice) => twice.charAt(0)));
      at = closed + 1;
    } else {
      const next = text.indexOf(",", at);
      const until = next === -1 ? end : next;
      columns.push(until === at ? null : text.slice(at, until));
      at = until;
    }
    if (at === end) return columns;
    if (text.charCodeAt(at) !== comma) throw unreadable(text);
    at++;
  }
}

const quote = 0x22;
const comma = 0x2c;

/** The first quote that is not one of two. */
function closingQuote(text: string, from: number, end: number): number {
  for (let at = text.indexOf('"', from); at !== -1 && at < end; at = text.indexOf('"', at + 2)) {
    if (text.charCodeAt(at + 1) !== quote) return at;
  }
  throw unreadable(text);
}

function unreadable(text: string): AncrageError {
  const shown = text.length > 80 ? `${text.slice(0, 80)}…` : text;
  return new AncrageError("ANCRAGE_PROTOCOL", `could not read ${JSON.stringify(shown)} as a row of the outbox.`);
}
