import type pg from "pg";
import { parseLsn } from "../lsn.ts";
import type { Queryable } from "./database.ts";

export const jobKinds = ["recover", "replay", "backfill", "cancel", "retry"] as const;
export type JobKindName = (typeof jobKinds)[number];

export const jobStates = ["waiting", "running", "done", "failed", "canceled"] as const;
export type JobState = (typeof jobStates)[number];

/** Long work with progress. */
export interface JobRow {
  readonly id: string;
  /** Null: of all projects. */
  readonly project: string | null;
  readonly kind: JobKindName;
  readonly subscriptionId: string | null;
  /** As its kind has checked it. */
  readonly input: unknown;
  readonly state: JobState;
  /** How many of its pages are in. */
  readonly pages: number;
  /** Where the next page begins; null before the first. */
  readonly place: unknown;
  /** An estimate; null where it could not be told. */
  readonly total: number | null;
  readonly done: number;
  readonly failed: number;
  /** Why it failed. */
  readonly error: string | null;
  /** The end of the log when it was made. */
  readonly lsn: bigint;
  readonly createdAt: Date;
  readonly endedAt: Date | null;
}

interface StoredJob {
  readonly id: string;
  readonly project: string | null;
  readonly kind: JobKindName;
  readonly subscription_id: string | null;
  readonly input: unknown;
  readonly state: JobState;
  readonly pages: number;
  readonly place: unknown;
  readonly total: string | null;
  readonly done: string;
  readonly failed: string;
  readonly error: string | null;
  readonly lsn: string;
  readonly created_at: Date;
  readonly ended_at: Date | null;
}

const columns = `id, project, kind, subscription_id, input, state, pages, place, total::text, done::text, failed::text, error, lsn::text,
  created_at, ended_at`;

export interface NewJob {
  readonly project: string | undefined;
  readonly kind: JobKindName;
  readonly subscriptionId: string | undefined;
  readonly input: unknown;
}

/** Makes a job that waits for its turn. Its id sorts as jobs are made. */
export async function insertJob(db: Queryable, job: NewJob): Promise<JobRow> {
  const { rows } = await db.query<StoredJob>(
    `insert into ancrage.jobs (id, project, kind, subscription_id, input)
     values ('job_' || ancrage.base32((extract(epoch from clock_timestamp()) * 1000)::bigint, 10)
         || ancrage.base32(('x' || left(md5(gen_random_uuid()::text), 15))::bit(60)::bigint, 12), $1, $2, $3, $4)
     returning ${columns}`,
    [job.project, job.kind, job.subscriptionId, JSON.stringify(job.input)],
  );
  const [row] = rows;
  if (row === undefined) throw new Error("expected the statement to return the job that it wrote, got no row");
  return fromStored(row);
}

export interface JobFilter {
  /** Undefined: of all projects. */
  readonly project: string | undefined;
  readonly kind?: JobKindName | undefined;
  readonly state?: JobState | undefined;
  readonly subscriptionId?: string | undefined;
  /** The id that the last page ended with. */
  readonly after?: string | undefined;
  readonly limit: number;
}

/** Newest first. */
export async function listJobs(db: Queryable, filter: JobFilter): Promise<readonly JobRow[]> {
  const { rows } = await db.query<StoredJob>(
    `select ${columns} from ancrage.jobs
     where ($1::text is null or project = $1)
       and ($2::text is null or kind = $2)
       and ($3::text is null or state = $3)
       and ($4::text is null or subscription_id = $4)
       and ($5::text is null or id < $5)
     order by id desc
     limit $6`,
    [filter.project, filter.kind, filter.state, filter.subscriptionId, filter.after, filter.limit],
  );
  return rows.map(fromStored);
}

export async function readJob(db: Queryable, id: string, project: string | undefined): Promise<JobRow | undefined> {
  const { rows } = await db.query<StoredJob>(`select ${columns} from ancrage.jobs where id = $1 and ($2::text is null or project = $2)`, [
    id,
    project,
  ]);
  return rows[0] === undefined ? undefined : fromStored(rows[0]);
}

/** Jobs that have not ended, oldest first. */
export async function readOpenJobs(db: Queryable): Promise<readonly JobRow[]> {
  const { rows } = await db.query<StoredJob>(`select ${columns} from ancrage.jobs where state in ('waiting', 'running') order by id`);
  return rows.map(fromStored);
}

/** Says that a job is under way, with what is known of its size. */
export async function beginJob(db: Queryable, job: JobRow, total: number | null): Promise<boolean> {
  const { rowCount } = await db.query(
    `update ancrage.jobs set state = 'running', total = $3, updated_at = now()
     where id = $1 and pages = $2 and state in ('waiting', 'running')`,
    [job.id, job.pages, total],
  );
  return rowCount === 1;
}

/**
 * Whether the job may go on from where its reader left it; until the transaction ends nobody cancels it.
 *
 * False where it was canceled, or another process has gone on with it.
 */
export async function lockJob(client: pg.ClientBase, { id, pages }: Pick<JobRow, "id" | "pages">): Promise<boolean> {
  const { rowCount } = await client.query(`select from ancrage.jobs where id = $1 and pages = $2 and state = 'running' for update`, [
    id,
    pages,
  ]);
  return rowCount === 1;
}

/** Writes down that a page is in, in the transaction that made it. */
export async function advanceJob(
  client: pg.ClientBase,
  id: string,
  page: { readonly place: unknown; readonly done: number; readonly failed: number },
): Promise<JobRow> {
  const { rows } = await client.query<StoredJob>(
    `update ancrage.jobs set pages = pages + 1, place = $2, done = done + $3, failed = failed + $4, updated_at = now()
     where id = $1 returning ${columns}`,
    [id, JSON.stringify(page.place), page.done, page.failed],
  );
  const [row] = rows;
  if (row === undefined) throw new Error(`expected the statement to return the job ${id}, got no row`);
  return fromStored(row);
}

/** Ends a job that has not ended yet. */
export async function endJob(
  db: Queryable,
  id: string,
  end: { readonly state: "done" | "failed" | "canceled"; readonly error: string | null },
): Promise<JobRow | undefined> {
  const { rows } = await db.query<StoredJob>(
    `update ancrage.jobs set state = $2, error = $3, ended_at = now(), updated_at = now()
     where id = $1 and state in ('waiting', 'running') returning ${columns}`,
    [id, end.state, end.error],
  );
  return rows[0] === undefined ? undefined : fromStored(rows[0]);
}

/** Forgets jobs that ended more than so many days ago. */
export async function dropEndedJobs(db: Queryable, days: number): Promise<void> {
  await db.query(`delete from ancrage.jobs where ended_at < now() - make_interval(days => $1)`, [days]);
}

/** The source of whoever leads, or has led last; the empty text before the first. */
export async function readLastSource(db: Queryable): Promise<string> {
  const { rows } = await db.query<{ source: string }>(`select source from ancrage.leaders order by taken_at desc limit 1`);
  return rows[0]?.source ?? "";
}

function fromStored(row: StoredJob): JobRow {
  return {
    id: row.id,
    project: row.project,
    kind: row.kind,
    subscriptionId: row.subscription_id,
    input: row.input,
    state: row.state,
    pages: row.pages,
    place: row.place,
    total: row.total === null ? null : Number(row.total),
    done: Number(row.done),
    failed: Number(row.failed),
    error: row.error,
    lsn: parseLsn(row.lsn),
    createdAt: row.created_at,
    endedAt: row.ended_at,
  };
}
