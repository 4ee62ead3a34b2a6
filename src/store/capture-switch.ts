import type { Queryable } from "./database.ts";

/** No row of these tables, and no mark, is written until this transaction ends; and all that were are committed. */
export async function lockForSwitch(db: Queryable, tables: readonly string[]): Promise<void> {
  await db.query("select pg_advisory_xact_lock(hashtext('ancrage.capture'))");
  if (tables.length > 0) await db.query(`lock table ${tables.join(", ")} in share row exclusive mode`);
}

/** @returns where changes are written, which stays so until this transaction ends */
export async function holdCapture(db: Queryable): Promise<"wal" | "outbox" | undefined> {
  await db.query("select pg_advisory_xact_lock_shared(hashtext('ancrage.capture'))");
  const { rows } = await db.query<{ capture: "wal" | "outbox" }>("select capture from ancrage.settings");
  return rows[0]?.capture;
}

/** The mark goes where changes are written at this moment of the transaction. */
export async function writeSwitchMark(db: Queryable, to: "wal" | "outbox"): Promise<void> {
  await db.query("select ancrage.emit('ancrage.switch', jsonb_build_object('to', $1::text))", [to]);
}

/** Says where changes are written from here on. */
export async function writeCapture(db: Queryable, capture: "wal" | "outbox"): Promise<void> {
  await db.query("update ancrage.settings set capture = $1", [capture]);
}

export async function emptyOutbox(db: Queryable): Promise<void> {
  await db.query("truncate ancrage.outbox_a, ancrage.outbox_b");
}

export async function isOutboxEmpty(db: Queryable): Promise<boolean> {
  const { rows } = await db.query<{ empty: boolean }>(
    "select not exists (select from ancrage.outbox_a) and not exists (select from ancrage.outbox_b) as empty",
  );
  return rows[0]?.empty === true;
}
