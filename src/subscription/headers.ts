import { isObject, pointerTo, show, type Refuse } from "./fault.ts";

const mostHeaders = 20;
const mostValueBytes = 1024;
const mostBytes = 8192;

/**
 * Names that a subscription cannot set. They frame the request, are our own, are cookies, or tell a proxy on the way who asks and for
 * what: with such a header GitLab's webhooks reached internal services (CVE-2025-6454).
 */
const deniedNames: ReadonlySet<string> = new Set([
  "host",
  "connection",
  "transfer-encoding",
  "te",
  "trailer",
  "upgrade",
  "expect",
  "keep-alive",
  "http2-settings",
  "cookie",
  "cookie2",
  "set-cookie",
  "user-agent",
  "accept-encoding",
  "forwarded",
  "via",
  "x-real-ip",
  "x-original-url",
  "x-rewrite-url",
]);
const deniedPrefixes = ["content-", "proxy-", "webhook-", "ancrage-", "x-forwarded-", "x-http-method"];

/** How the API shows the value of a header. Handed back in a change, it leaves the value as it is. */
export const hiddenValue = "…";

/**
 * Checks the headers that are sent with every request of a subscription.
 *
 * Their values are the receiver's own credentials as a rule, so no message shows one.
 *
 * @returns names in lower case → values
 */
export function checkHeaders(value: unknown, refuse: Refuse): Readonly<Record<string, string>> | undefined {
  if (value === undefined) return {};
  if (!isObject(value))
    return refuse("/headers", `expected an object of names and values, got ${Array.isArray(value) ? "an array" : typeof value}`);
  const entries = Object.entries(value);
  if (entries.length > mostHeaders) return refuse("/headers", `expected at most ${mostHeaders} headers, got ${entries.length}`);
  const headers = new Map<string, string>();
  let isRefused = false;
  for (const [name, text] of entries) {
    const fault = faultOfName(name, headers) ?? faultOfValue(text);
    if (fault === undefined) headers.set(name.toLowerCase(), text as string);
    else {
      isRefused = true;
      refuse(`/headers${pointerTo(name)}`, fault);
    }
  }
  const bytes = [...headers].reduce((sum, [name, text]) => sum + name.length + text.length, 0);
  if (bytes > mostBytes) return refuse("/headers", `expected at most ${mostBytes} bytes of names and values, got ${bytes}`);
  return isRefused ? undefined : Object.fromEntries(headers);
}

/** As the sender appends them: name, value, name, value. */
export function flattenHeaders(headers: Readonly<Record<string, string>>): readonly string[] {
  return Object.entries(headers).flat();
}

function faultOfName(name: string, before: ReadonlyMap<string, string>): string | undefined {
  const lower = name.toLowerCase();
  if (!/^[A-Za-z0-9-]{1,100}$/.test(name)) return `expected a name of 1 to 100 letters, digits and hyphens, got ${show(name)}`;
  if (deniedNames.has(lower) || deniedPrefixes.some((prefix) => lower.startsWith(prefix))) {
    return `${lower} cannot be set: it frames the request, is one of Ancrage's own, or speaks to proxies on the way`;
  }
  return before.has(lower) ? `expected each name once, got ${lower} twice: upper and lower case are the same` : undefined;
}

function faultOfValue(value: unknown): string | undefined {
  if (typeof value !== "string") return `expected a text, got a value of type ${value === null ? "null" : typeof value}`;
  if (value.length > mostValueBytes) return `expected at most ${mostValueBytes} characters, got ${value.length}`;
  // A space at either end is lost on the way, so that the receiver would not find the value that was set.
  return /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(value)
    ? undefined
    : "expected printable ASCII characters, with no space at either end, got others or none";
}
