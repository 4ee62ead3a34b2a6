import pg from "pg";
import type { Queryable } from "./database.ts";

/** A transaction that wrote the outbox. */
export interface OutboxTransaction {
  /** With its epoch. */
  readonly xid: string;
  readonly rows: number;
}

/** One row of the outbox. */
export interface OutboxRow {
  readonly id: string;
  readonly xid: string;
  readonly at_us: string;
  /** Insert, update, delete, truncate, or a mark. */
  readonly kind: "i" | "u" | "d" | "t" | "m";
  readonly root: number | null;
  readonly columns: string | null;
  readonly new_row: string | null;
  readonly old_row: string | null;
  readonly prefix: string | null;
  readonly content: Buffer | null;
}

/** A stretch of the outbox: what is visible now, or in `to`, and was not in `from`. */
export interface Stretch {
  readonly from: string;
  readonly to: string | undefined;
}

export interface OutboxLook {
  /** Up to where the log was written before the look. */
  readonly lsn: string;
  readonly snapshot: string;
  readonly atUs: string;
  readonly transactions: readonly OutboxTransaction[];
}

const bothTables = ["ancrage.outbox_a", "ancrage.outbox_b"];
const columns = `id::text, xid::text, (extract(epoch from at) * 1000000)::bigint::text as at_us, kind, root::oid as root, columns, new_row,
  old_row, prefix, content`;

/**
 * Looks at a stretch: its transactions in their order, at most `limit` after the first `skip`.
 *
 * What one transaction wrote after another had committed comes after it: by the last row of each, since rows are numbered while their
 * records are locked. A subscription's mark carries what was visible to it, and cuts the stretch in two.
 *
 * In one round trip. The log's end is read before the snapshot is taken: nobody who saw what the snapshot does not show has written
 * before it.
 */
export async function lookAtOutbox(
  db: Queryable,
  stretch: Stretch,
  page: { readonly skip: number; readonly limit: number },
): Promise<OutboxLook> {
  const isNew = newIn(stretch);
  const to = stretch.to === undefined ? "pg_current_snapshot()" : snapshotLiteral(stretch.to);
  const answer: unknown = await db.query(`select pg_current_wal_insert_lsn()::text as lsn;
    with fresh as materialized (${bothTables.map((table) => `select xid, id from ${table} where ${isNew}`).join(" union all ")}),
      cuts as materialized (${bothTables.map((table) => `select xid, cut from ${table} where cut is not null and ${isNew}`).join(" union all ")}),
      -- It cuts behind what it sees, and before itself.
      found as (
        select xid, count(*)::integer as rows, (select count(*) from cuts c where not pg_visible_in_snapshot(f.xid, c.cut)) as stage,
          not exists (select from cuts c where c.xid = f.xid) as is_behind, max(id) as last
        from fresh f group by xid
      )
    select ${to}::text as snapshot, (extract(epoch from clock_timestamp()) * 1000000)::bigint::text as "atUs",
      array(select json_build_object('xid', xid::text, 'rows', rows) from found order by stage, is_behind, last
        offset ${page.skip} limit ${page.limit}) as transactions`);
  const [lsn, look] = answer as readonly [pg.QueryResult<{ lsn: string }>, pg.QueryResult<Omit<OutboxLook, "lsn">>];
  const [row] = look.rows;
  if (row === undefined) throw new Error("expected a look at the outbox to return a row, got none");
  return { ...row, lsn: lsn.rows[0]?.lsn ?? "0/0" };
}

/** Exact by the index on (xid, id), however long a transaction is open. */
function newIn({ from, to }: Stretch): string {
  const [, xmax = "1", running = ""] = from.split(":");
  const after = `xid >= ${xidLiteral(xmax)}`;
  const isAfter = running === "" ? after : `(${after} or xid = any('{${running}}'::xid8[]))`;
  return to === undefined ? isAfter : `${isAfter} and pg_visible_in_snapshot(xid, ${snapshotLiteral(to)})`;
}

const snapshotLiteral = (snapshot: string): string => `${pg.escapeLiteral(snapshot)}::pg_snapshot`;
const xidLiteral = (xid: string): string => `${pg.escapeLiteral(xid)}::xid8`;

/** All rows of some transactions, in no order. */
export async function readOutboxRows(db: Queryable, xids: readonly string[]): Promise<readonly OutboxRow[]> {
  const { rows } = await db.query<OutboxRow>({
    name: "outbox-rows",
    text: bothTables.map((table) => `select ${columns} from ${table} where xid = any($1::xid8[])`).join(" union all "),
    values: [xids],
  });
  return rows;
}

/** The rows of one transaction after one of them, in order, a page at a time. */
export async function readOutboxPage(
  db: Queryable,
  page: { readonly xid: string; readonly after: string; readonly limit: number },
): Promise<readonly OutboxRow[]> {
  const { rows } = await db.query<OutboxRow>({
    name: "outbox-page",
    text: `select * from (${bothTables
      .map(
        (table) =>
          `(select ${columns}, t.id as number from ${table} t where t.xid = $1::xid8 and t.id > $2::bigint order by t.id limit $3)`,
      )
      .join(" union all ")}) as page order by number limit $3`,
    values: [page.xid, page.after, page.limit],
  });
  return rows;
}

export interface OutboxSizes {
  /** Which one transactions write that begin now. */
  readonly turn: "a" | "b";
  /** With indexes and large values. */
  readonly a: number;
  readonly b: number;
}

export async function readOutboxSizes(db: Queryable): Promise<OutboxSizes> {
  const { rows } = await db.query<{ turn: "a" | "b"; a: string; b: string }>(`
    select case when last_value & 4294967296 = 0 then 'a' else 'b' end as turn,
      pg_total_relation_size('ancrage.outbox_a')::text as a, pg_total_relation_size('ancrage.outbox_b')::text as b
    from ancrage.outbox_id`);
  const [row] = rows;
  return { turn: row?.turn ?? "a", a: Number(row?.a ?? 0), b: Number(row?.b ?? 0) };
}

/** Transactions that begin now write the other one. */
export async function turnOutbox(db: Queryable): Promise<void> {
  await db.query("select ancrage.turn_outbox()");
}

/** @returns whether it was emptied: not while anybody writes it, or anything in it is not visible in `consumed` */
export async function truncateOutbox(db: Queryable, turn: "a" | "b", consumed: string): Promise<boolean> {
  const { rows } = await db.query<{ done: boolean }>("select ancrage.truncate_outbox($1, $2::pg_snapshot) as done", [turn, consumed]);
  return rows[0]?.done === true;
}
