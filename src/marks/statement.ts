/**
 * What a statement means for the transaction that it is sent in:
 *
 * - `begin`: one begins; `begin-read-only`: one that changes nothing
 * - `end`: it is over, or the text has it whole
 * - `back`: to a savepoint, which takes marks back that were made after it
 * - `setting`: must come before anything else (`set transaction`, `lock table`), and changes no rows; `setting-read-only` and
 *   `setting-read-write`: what the transaction is from then on
 * - `write`: certainly changes rows; outside a transaction it is one by itself
 * - `other`: may change rows (a function that is selected)
 */
export type StatementKind =
  | "begin"
  | "begin-read-only"
  | "end"
  | "back"
  | "setting"
  | "setting-read-only"
  | "setting-read-write"
  | "write"
  | "other";

/** Of one statement only the beginning is read: what is quoted inside can say anything. */
export function statementKind(text: string): StatementKind {
  const sql = text.replace(/^(?:\s+|--[^\n]*(?:\n|$)|\/\*[^]*?\*\/)+/, "");
  const word = (/^[a-z]+/i.exec(sql)?.[0] ?? "").toLowerCase();
  // The body of an SQL function has an `end` of its own.
  const inside = word === "create" ? undefined : lastControl(sql);
  if (inside !== undefined) return inside;
  switch (word) {
    case "begin":
    case "start":
      return /^[^;]*\bread\s+only\b/i.test(sql) ? "begin-read-only" : "begin";
    case "rollback":
      if (/^rollback(?:\s+(?:work|transaction))?\s+to\b/i.test(sql)) return "back";
      return endOf(sql);
    case "commit":
    case "end":
    case "abort":
      return endOf(sql);
    case "prepare":
      return /^prepare\s+transaction\b/i.test(sql) ? "end" : "setting";
    case "set": {
      const mode = /^set\s+transaction\b[^;]*\bread\s+(only|write)\b/i.exec(sql)?.[1]?.toLowerCase();
      return mode === undefined ? "setting" : mode === "only" ? "setting-read-only" : "setting-read-write";
    }
    case "lock":
    case "show":
    case "savepoint":
    case "release":
    case "discard":
      return "setting";
    case "insert":
    case "update":
    case "delete":
    case "merge":
      return "write";
    case "with":
      return /\b(?:insert|update|delete|merge)\b/i.test(sql) ? "write" : "other";
    default:
      return "other";
  }
}

/**
 * Whether a text of several statements begins or ends a transaction after its first one, and which of both comes last. It cannot be put
 * into a transaction of its own: that one's commit would end what the text leaves open.
 */
function lastControl(sql: string): "begin" | "end" | undefined {
  if (!/;\s*\S/.test(sql)) return undefined;
  const last = [...sql.replace(quoted, "''").matchAll(control)].at(-1)?.[1];
  if (last === undefined) return undefined;
  return /^(?:begin|start)/i.test(last) ? "begin" : "end";
}

/** But for `rollback to` a savepoint. */
const control = /;\s*(begin|start\s+transaction|commit|end|rollback(?!\s+(?:(?:work|transaction)\s+)?to\b)|abort)\b/gi;
/** Texts, names, bodies between dollars, comments. */
const quoted = /\be'(?:[^'\\]|\\[^]|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$((?:[a-z_]\w*)?)\$[^]*?\$\1\$|--[^\n]*|\/\*[^]*?\*\//gi;

const endOf = (sql: string): StatementKind => (/\band\s+chain\b/i.test(sql) && !/\bno\s+chain\b/i.test(sql) ? "begin" : "end");
