import { isDeepStrictEqual } from "node:util";
import { nearestName } from "../nearest-name.ts";
import type { Format } from "../format.ts";
import { subscriptionFormats, subscriptionOrders, type Limits, type SubscriptionRow } from "../store/subscriptions.ts";
import { isObject, isStorable, pointerTo, show, unstorable, type Fault, type Refuse } from "./fault.ts";
import { checkFilter, type FilterSpec } from "./filter.ts";
import { checkHeaders } from "./headers.ts";
import { checkLimits } from "./limits.ts";
import { parseSecret } from "./secret.ts";

export { isStorable, unstorable, type Fault } from "./fault.ts";

/** What a subscription is made of, checked and with its defaults. */
export interface CheckedSubscription {
  readonly events: readonly string[];
  /** Normalised: the host in punycode and lower case, no default port. */
  readonly url: string;
  readonly description: string;
  readonly format: Format;
  readonly filter: FilterSpec | null;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly order: SubscriptionRow["order"];
  readonly limits: Limits;
  readonly ignoredActors: readonly string[];
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly expiresAt: Date | null;
  /** Undefined where the caller leaves it to us. */
  readonly project: string | undefined;
  readonly secret: Buffer | undefined;
}

export interface SubscriptionRules {
  /** The names of all events. */
  readonly events: Iterable<string>;
  readonly url: UrlRules;
  readonly nowMs: number;
}

export interface UrlRules {
  /** Takes `http:` too. Default: `https:` only. */
  readonly allowHttp?: boolean;
}

const mostEvents = 100;
const mostCharacters = { url: 2048, description: 1000, project: 200, metadata: 8192 };

// REST-hook clients of Zapier's first years send target_url, and some its older name beside it.
export const urlFields = ["url", "target_url", "subscription_url"] as const;
/** What a caller may set, and set anew. */
export const changeableFields = [
  ...urlFields,
  "event",
  "events",
  "description",
  "format",
  "filter",
  "headers",
  "order",
  "limits",
  "ignoredActors",
  "metadata",
  "expiresAt",
] as const;
const fields: readonly string[] = [...changeableFields, "project", "secret"];

/** Checks all of an input at once, so that whoever wrote it corrects it once. */
export function checkSubscription(
  input: unknown,
  rules: SubscriptionRules,
): { readonly kind: "checked"; readonly value: CheckedSubscription } | { readonly kind: "refused"; readonly faults: readonly Fault[] } {
  if (!isObject(input)) return { kind: "refused", faults: [notAnObject(input)] };
  const faults: Fault[] = [];
  const refuse = (pointer: string, detail: string): undefined => void faults.push({ pointer, detail });

  for (const name of Object.keys(input)) if (!fields.includes(name)) refuse(pointerTo(name), describeUnknownField(name, fields));
  const events = checkEvents(input, new Set(rules.events), refuse);
  const url = checkUrlFields(input, rules.url, refuse);
  const description = checkText(input, "description", mostCharacters.description, refuse);
  const format = checkFormat(input["format"], refuse);
  const filter = checkFilter(input["filter"], refuse);
  const headers = checkHeaders(input["headers"], refuse);
  const order = checkOrder(input["order"], refuse);
  const limits = checkLimits(input["limits"], refuse);
  const ignoredActors = checkActors(input["ignoredActors"], refuse);
  const metadata = checkMetadata(input["metadata"], refuse);
  const expiresAt = checkExpiry(input["expiresAt"], rules.nowMs, refuse);
  const project = checkText(input, "project", mostCharacters.project, refuse);
  if (project === "") refuse("/project", `expected the name of a project, got ""`);
  const secret = checkSecret(input["secret"], refuse);

  const required = { events, url, format, filter, headers, order, limits, ignoredActors, metadata, expiresAt };
  if (faults.length > 0 || !isComplete(required)) return { kind: "refused", faults };
  return { kind: "checked", value: { ...required, description: description ?? "", project, secret } };
}

type Complete<Fields> = { readonly [Name in keyof Fields]: Exclude<Fields[Name], undefined> };

function isComplete<Fields extends object>(fields: Fields): fields is Fields & Complete<Fields> {
  return Object.values(fields).every((value) => value !== undefined);
}

type Input = Readonly<Record<string, unknown>>;

function checkEvents(input: Input, known: ReadonlySet<string>, refuse: Refuse): readonly string[] | undefined {
  const { event, events } = input;
  if (event !== undefined && events !== undefined && !isDeepStrictEqual([event], events)) {
    return refuse("/events", `expected either event or events, got both: ${show(event)} and ${show(events)}`);
  }
  if (event === undefined && events === undefined)
    return refuse("/event", "expected the name of an event (or several in events), got none");
  const names = event === undefined ? events : [event];
  const pointerOf = (index: number): string => (event === undefined ? `/events/${index}` : "/event");
  if (!Array.isArray(names)) return refuse("/events", `expected an array of names of events, got ${show(names)}`);
  if (names.length === 0) return refuse("/events", "expected at least one name of an event, got an empty array");
  if (names.length > mostEvents) return refuse("/events", `expected at most ${mostEvents} names of events, got ${names.length}`);
  for (const [index, name] of names.entries()) {
    if (typeof name !== "string") refuse(pointerOf(index), `expected the name of an event, got ${show(name)}`);
    else if (!known.has(name)) refuse(pointerOf(index), describeUnknownEvent(name, known));
  }
  return [...new Set(names.filter((name): name is string => typeof name === "string"))];
}

/** As many names as a person reads. */
const shownEvents = 12;

/** Says that no event has this name, and which one comes nearest. */
export function describeUnknownEvent(name: string, known: Iterable<string>): string {
  const names = [...known];
  const meant = nearestName(name, names);
  if (meant !== undefined) return `no event is called ${show(name)}; did you mean "${meant}"?`;
  if (names.length === 0) return `no event is called ${show(name)}; none is defined`;
  const more = names.length > shownEvents ? ` and ${names.length - shownEvents} more` : "";
  return `no event is called ${show(name)}; there are ${names.slice(0, shownEvents).join(", ")}${more}`;
}

function checkUrlFields(input: Input, rules: UrlRules, refuse: Refuse): string | undefined {
  const given = urlFields.filter((name) => input[name] !== undefined);
  const [first, ...others] = given;
  if (first === undefined) return refuse("/url", `expected the URL to send to (as ${urlFields.join(" or ")}), got none`);
  const different = others.find((name) => input[name] !== input[first]);
  if (different !== undefined) {
    return refuse(`/${different}`, `expected one URL, got ${show(input[first])} in ${first} and ${show(input[different])}`);
  }
  const checked = checkUrl(input[first], rules);
  return "fault" in checked ? refuse(`/${first}`, checked.fault) : checked.href;
}

/** Checks how a URL is written. Whether the address behind it may be reached is decided when it is connected to. */
export function checkUrl(value: unknown, rules: UrlRules): { readonly href: string } | { readonly fault: string } {
  const schemes = rules.allowHttp === true ? "an https: or http: URL" : "an https: URL";
  if (typeof value !== "string") return { fault: `expected ${schemes}, got ${show(value)}` };
  if (value.length > mostCharacters.url) return { fault: `expected at most ${mostCharacters.url} characters, got ${value.length}` };
  // WHATWG parsing drops such characters without a word, and the URL that is sent to would not be the one that was written.
  if (/[\p{Cc}\s]/u.test(value)) return { fault: `expected ${schemes} without spaces and control characters, got ${show(value)}` };
  if (!URL.canParse(value)) return { fault: `expected ${schemes}, got ${show(value)}` };
  const url = new URL(value);
  if (url.username !== "" || url.password !== "") return { fault: "expected a URL without user and password, got one with them" };
  if (url.protocol !== "https:" && !(url.protocol === "http:" && rules.allowHttp === true)) {
    return { fault: `expected ${schemes}, got ${show(value)}` };
  }
  // A fragment is never sent: whoever writes one expects something that will not happen. `hash` is empty for a bare "#".
  if (url.href.includes("#")) return { fault: `expected a URL without a fragment, got ${show(value)}` };
  if (url.href.length > mostCharacters.url) {
    return { fault: `expected at most ${mostCharacters.url} characters once encoded, got ${url.href.length}` };
  }
  return { href: url.href };
}

function checkText(input: Input, name: "description" | "project", most: number, refuse: Refuse): string | undefined {
  const value = input[name];
  if (value === undefined) return undefined;
  if (typeof value !== "string") return refuse(`/${name}`, `expected a text, got ${show(value)}`);
  if (value.length > most) return refuse(`/${name}`, `expected at most ${most} characters, got ${value.length}`);
  return isStorable(value) ? value : refuse(`/${name}`, unstorable);
}

function checkOrder(value: unknown, refuse: Refuse): SubscriptionRow["order"] | undefined {
  if (value === undefined) return "none";
  const order = subscriptionOrders.find((name) => name === value);
  return order ?? refuse("/order", `expected one of ${subscriptionOrders.join(", ")}, got ${show(value)}`);
}

const mostActors = 20;

function checkActors(value: unknown, refuse: Refuse): readonly string[] | undefined {
  if (value === undefined) return [];
  // As `ancrage.actor` takes them.
  const isActor = (one: unknown): one is string => typeof one === "string" && one !== "" && one.length <= 256 && isStorable(one);
  if (Array.isArray(value) && value.length <= mostActors && value.every(isActor)) return [...new Set(value)];
  return refuse("/ignoredActors", `expected an array of at most ${mostActors} texts of 1 to 256 characters, got ${show(value)}`);
}

const isoTime = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)$/;

function checkExpiry(value: unknown, nowMs: number, refuse: Refuse): Date | null | undefined {
  if (value === undefined || value === null) return null;
  const expected = "expected a time in ISO 8601 with its zone, such as 2027-01-31T00:00:00Z";
  // `Date` takes much more, and means local time where no zone is named.
  if (typeof value !== "string" || !isoTime.test(value)) return refuse("/expiresAt", `${expected}, got ${show(value)}`);
  const ms = Date.parse(value);
  if (Number.isNaN(ms)) return refuse("/expiresAt", `${expected}, got ${show(value)}`);
  return ms > nowMs ? new Date(ms) : refuse("/expiresAt", `expected a time to come, got ${show(value)}`);
}

function checkFormat(value: unknown, refuse: Refuse): Format | undefined {
  if (value === undefined) return "standard";
  const format = subscriptionFormats.find((name) => name === value);
  return format ?? refuse("/format", `expected one of ${subscriptionFormats.join(", ")}, got ${show(value)}`);
}

function checkMetadata(value: unknown, refuse: Refuse): Readonly<Record<string, unknown>> | undefined {
  if (value === undefined) return {};
  if (!isObject(value)) return refuse("/metadata", `expected an object, got ${show(value)}`);
  const text = JSON.stringify(value);
  if (text.length > mostCharacters.metadata) {
    return refuse("/metadata", `expected at most ${mostCharacters.metadata} characters of JSON, got ${text.length}`);
  }
  return isStorable(value) ? value : refuse("/metadata", unstorable);
}

function checkSecret(value: unknown, refuse: Refuse): Buffer | undefined {
  if (value === undefined) return undefined;
  // The value stays out of every message: messages are logged.
  if (typeof value !== "string") return refuse("/secret", `expected a text that begins with "whsec_", got a ${typeof value}`);
  const secret = parseSecret(value);
  return Buffer.isBuffer(secret) ? secret : refuse("/secret", secret.fault);
}

/** What is wrong with an input that has no fields. */
export function notAnObject(input: unknown): Fault {
  return { pointer: "", detail: `expected an object, got ${show(input)}` };
}

/** Names the nearest one that there is. */
export function describeUnknownField(name: string, known: readonly string[]): string {
  const meant = nearestName(name, known);
  return `unknown field; ${meant === undefined ? "" : `did you mean "${meant}"? `}expected one of ${known.join(", ")}`;
}
