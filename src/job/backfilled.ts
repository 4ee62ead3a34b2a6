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
