import type { SealedSecret } from "../store/subscriptions.ts";
import { describeUnknownField, notAnObject } from "./check-subscription.ts";
import { isObject, pointerTo, show, type Fault } from "./fault.ts";
import { parseSecret } from "./secret.ts";

/** What `rotateSecret` takes. */
export interface Rotation {
  /** How long the present secret signs beside the new one. 0 to 168; default 24. */
  readonly graceHours?: number;
  /** `whsec_` and the base64 of 24 to 64 bytes. Default: new random bytes. */
  readonly secret?: string;
}

/** Svix has the same two: a day, and at most ten old ones. Each costs a signature of every request. */
const defaultGraceHours = 24;
const mostOld = 10;
const mostGraceHours = 168;
const hourMs = 3_600_000;

export function checkRotation(
  input: unknown,
):
  | { readonly kind: "checked"; readonly value: { readonly graceHours: number; readonly secret: Buffer | undefined } }
  | { readonly kind: "refused"; readonly faults: readonly Fault[] } {
  if (!isObject(input)) return { kind: "refused", faults: [notAnObject(input)] };
  const fields = ["graceHours", "secret"];
  const faults: Fault[] = Object.keys(input)
    .filter((name) => !fields.includes(name))
    .map((name) => ({ pointer: pointerTo(name), detail: describeUnknownField(name, fields) }));
  const { graceHours = defaultGraceHours, secret: text } = input;
  const isGrace = typeof graceHours === "number" && graceHours >= 0 && graceHours <= mostGraceHours;
  if (!isGrace) {
    faults.push({ pointer: "/graceHours", detail: `expected a number of hours from 0 to ${mostGraceHours}, got ${show(graceHours)}` });
  }
  // The value stays out of every message: messages are logged.
  const parsed =
    typeof text === "string" ? parseSecret(text) : text === undefined ? undefined : { fault: `expected a text, got a ${typeof text}` };
  const isSecret = parsed === undefined || Buffer.isBuffer(parsed);
  if (!isSecret) faults.push({ pointer: "/secret", detail: parsed.fault });
  if (faults.length > 0 || !isGrace || !isSecret) return { kind: "refused", faults };
  return { kind: "checked", value: { graceHours, secret: parsed } };
}

/**
 * Puts a new secret before the present one, which signs on until its time is over. Those that are over leave.
 *
 * @returns newest first
 */
export function rotateSecrets(
  present: readonly SealedSecret[],
  next: SealedSecret,
  { graceHours, now }: { readonly graceHours: number; readonly now: Date },
): readonly SealedSecret[] {
  const expiresAt = new Date(now.getTime() + graceHours * hourMs).toISOString();
  const old = present
    // An earlier rotation may have promised the receiver less, or more: the earlier end of the two counts, since a secret that leaked is
    // rotated with `graceHours: 0` to be done with it.
    .map((secret) => ({ ...secret, expiresAt: secret.expiresAt === null || secret.expiresAt > expiresAt ? expiresAt : secret.expiresAt }))
    .filter((secret) => new Date(secret.expiresAt) > now);
  return [next, ...old.slice(0, mostOld)];
}
