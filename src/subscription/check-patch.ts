import type { SubscriptionFields, SubscriptionRow } from "../store/subscriptions.ts";
import {
  changeableFields,
  checkSubscription,
  describeUnknownField,
  notAnObject,
  urlFields,
  type SubscriptionRules,
} from "./check-subscription.ts";
import { isObject, pointerTo, type Fault } from "./fault.ts";
import { hiddenValue } from "./headers.ts";
import { mergePatch } from "./merge-patch.ts";

const isChangeable = (name: string): boolean => changeableFields.some((one) => one === name);

type WithOpenHeaders<Fields> = Omit<Fields, "headers"> & { readonly headers: Readonly<Record<string, string>> };

/** A row whose headers were opened: a change may be merged with them. */
export type OpenRow = WithOpenHeaders<SubscriptionRow>;
export type OpenFields = WithOpenHeaders<SubscriptionFields>;

/** What no change may touch, and what to do instead. */
const unchangeable: Readonly<Record<string, string>> = {
  project: "the project of a subscription stays: create another subscription there",
  secret: "a secret is rotated: POST …/rotate-secret",
  state: "the state is changed with POST …/pause, …/resume and …/enable",
  stateReason: "the state is changed with POST …/pause, …/resume and …/enable",
  id: "it stays as it is",
  createdAt: "it stays as it is",
};

/**
 * Checks a change: a merge patch (RFC 7396) on what a caller may set. All faults at once, each where the patch has it.
 *
 * A filter is replaced as a whole. What the patch does not touch is not held against it: an event that is no longer defined, a URL that was allowed before.
 */
export function checkSubscriptionPatch(
  row: OpenRow,
  patch: unknown,
  rules: SubscriptionRules,
): { readonly kind: "checked"; readonly value: OpenFields } | { readonly kind: "refused"; readonly faults: readonly Fault[] } {
  if (!isObject(patch)) return { kind: "refused", faults: [notAnObject(patch)] };
  const faults = Object.keys(patch)
    .filter((name) => !isChangeable(name))
    .map((name) => ({ pointer: pointerTo(name), detail: unchangeable[name] ?? describeUnknownField(name, changeableFields) }));
  const touched = Object.fromEntries(Object.entries(patch).filter(([name]) => isChangeable(name)));
  const patchesUrl = urlFields.some((name) => name in touched);
  const patchesExpiry = "expiresAt" in touched;
  const { expiresAt, ...fields } = fieldsOf(row);
  const present: Record<string, unknown> = { ...fields };
  // The other names of a field are its own: what the row has under the first must not stand beside them.
  if (patchesUrl) delete present["url"];
  if ("event" in touched || "events" in touched) delete present["events"];
  const { filter = row.filter, ...others } = touched;
  const patched = "headers" in others ? { ...others, headers: withoutHidden(others["headers"], row.headers) } : others;
  // A filter is one value: merged with the one before, {"gte": 10} on {"lt": 10} would want nothing, and say so to nobody.
  const merged = { ...(mergePatch(present, patched) as object), filter };
  const checked = checkSubscription(merged, {
    events: [...rules.events, ...row.events],
    url: patchesUrl ? rules.url : { allowHttp: true },
    nowMs: rules.nowMs,
  });
  if (checked.kind === "refused") return { kind: "refused", faults: [...faults, ...checked.faults] };
  if (faults.length > 0) return { kind: "refused", faults };
  const { project: _project, secret: _secret, ...value } = checked.value;
  return { kind: "checked", value: patchesExpiry ? value : { ...value, expiresAt } };
}

/** What a caller may set, of a row. */
export function fieldsOf(row: OpenRow): OpenFields {
  const { events, url, description, format, filter, headers, order, limits, ignoredActors, metadata, expiresAt } = row;
  return { events, url, description, format, filter, headers, order, limits, ignoredActors, metadata, expiresAt };
}

/** Whoever hands back what the API showed them leaves the values as they are. */
function withoutHidden(headers: unknown, present: Readonly<Record<string, string>>): unknown {
  if (!isObject(headers)) return headers;
  const entries = Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value] as const);
  // Two names that differ in case only are for `checkHeaders` to refuse.
  if (new Set(entries.map(([name]) => name)).size < entries.length) return headers;
  return Object.fromEntries(entries.filter(([name, value]) => value !== hiddenValue || !Object.hasOwn(present, name)));
}
