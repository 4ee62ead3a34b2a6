import type { Row } from "../capture/change.ts";
import type { Catalogue, CatalogueEvent } from "../event/catalogue.ts";
import type { PayloadInput } from "../payload/build.ts";

/** What the rejection of a backfill is made from: no change is behind it, and it is for one subscription. */
export interface Backfilled {
  readonly event: string;
  readonly key: string;
  readonly jobId: string;
  readonly subscriptionId: string;
}

export function formatBackfilled(backfilled: Backfilled): Buffer {
  return Buffer.from(JSON.stringify({ kind: "backfill", ...backfilled }));
}

/** Undefined where it is the occurrence of another rejection. */
export function parseBackfilled(bytes: Buffer): Backfilled | undefined {
  const parsed = JSON.parse(bytes.toString()) as Partial<Backfilled> & { readonly kind?: unknown };
  const { kind, event, key, jobId, subscriptionId } = parsed;
  if (kind !== "backfill" || event === undefined || key === undefined || jobId === undefined || subscriptionId === undefined)
    return undefined;
  return { event, key, jobId, subscriptionId };
}

/** What the payload of a record is built from that was there before. */
export function inputOf(event: CatalogueEvent, key: string, record: Row): PayloadInput {
  return { event, key, record, reason: "backfill", action: undefined, before: undefined, data: undefined, actor: undefined };
}

/** Whose a record is, or what the code threw. */
export function askProject(event: CatalogueEvent, record: Row, catalogue: Pick<Catalogue, "projectOf">): string | Error {
  try {
    return catalogue.projectOf(event, record);
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}
