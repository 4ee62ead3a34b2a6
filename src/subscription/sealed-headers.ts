import type { SealedValue, SubscriptionRow } from "../store/subscriptions.ts";
import { seal, unseal, type SecretKey, type SecretOwner } from "./secret.ts";

/** Headers of a receiver's own, as rows hold them: names, and values that are sealed, since most of them are its credentials. */
export function sealHeaders(
  key: SecretKey,
  owner: SecretOwner,
  headers: Readonly<Record<string, string>>,
): Readonly<Record<string, SealedValue>> {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [
      name,
      { sealed: seal(key, boundTo(owner, name), Buffer.from(value, "latin1")), keyId: key.id },
    ]),
  );
}

/** @throws AncrageError `ANCRAGE_SECRET_KEY_INVALID` where another key sealed one of them, or the row was altered */
export function openHeaders(key: SecretKey, row: Pick<SubscriptionRow, "id" | "project" | "headers">): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(row.headers).map(([name, value]) => [
      name,
      unseal(key, boundTo(row, name), value, {
        what: `the header ${name} of subscription ${row.id}`,
        cure: `start with the key that sealed it, or delete the subscription and create it anew`,
      }).toString("latin1"),
    ]),
  );
}

/** Its name too: a value that is moved to another header does not open there. */
const boundTo = ({ project, id }: SecretOwner, name: string): readonly string[] => [project, id, "header", name];
