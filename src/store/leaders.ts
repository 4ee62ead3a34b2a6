import type { Queryable } from "./database.ts";

/** Who leads, as a process that would like to sees it. */
export interface LeaderRow {
  /** 0 before the first. */
  readonly epoch: bigint;
  /** How often its lease was taken under this epoch: a leader whose session was lost takes it again. */
  readonly sessions: bigint;
  /** Host and process id, for people. */
  readonly process: string;
  /** It ended in order, and sends nothing any more. */
  readonly isGivenBack: boolean;
  /** A session holds the lease's lock now. */
  readonly isHeld: boolean;
}

/** The locks of a source: whose session holds the first may send, whose holds the others may write batches, and rows beside them. */
export const leaseLock = (source: string): string => `ancrage:${source}`;
export const journalLock = (source: string): string => `ancrage:${source}:journal`;
export const rowsLock = (source: string): string => `ancrage:${source}:rows`;

/** Session-level: held for as long as this session lives, so that it ends with its process. */
export async function tryLock(db: Queryable, lock: string): Promise<boolean> {
  const { rows } = await db.query<{ got: boolean }>(`select pg_try_advisory_lock(hashtextextended($1, 0)) as got`, [lock]);
  return rows[0]?.got === true;
}

export async function unlock(db: Queryable, lock: string): Promise<void> {
  await db.query(`select pg_advisory_unlock(hashtextextended($1, 0))`, [lock]);
}

// Both halves of the key of an advisory lock.
const isLock = (lock: string): string =>
  `k.locktype = 'advisory' and k.objsubid = 1 and k.granted
   and ((k.classid::bigint << 32) | k.objid::bigint) = hashtextextended(${lock}, 0)
   and k.database = (select oid from pg_database where datname = current_database())`;

/** @returns the row, and the server's clock in ms since the Unix epoch */
export async function readLeader(db: Queryable, source: string): Promise<LeaderRow & { readonly atMs: number }> {
  const { rows } = await db.query<{
    epoch: string;
    sessions: string;
    process: string;
    given_back: boolean;
    held: boolean;
    at_ms: number;
  }>(
    `select (extract(epoch from clock_timestamp()) * 1000)::double precision as at_ms,
       coalesce(l.epoch, 0)::text as epoch, coalesce(l.sessions, 0)::text as sessions, coalesce(l.process, '') as process,
       coalesce(l.is_given_back, true) as given_back, exists (select from pg_locks k where ${isLock("$2")}) as held
     from (select) as one left join ancrage.leaders l on l.source = $1`,
    [source, leaseLock(source)],
  );
  const [row] = rows;
  return {
    epoch: BigInt(row?.epoch ?? 0),
    sessions: BigInt(row?.sessions ?? 0),
    process: row?.process ?? "",
    isGivenBack: row?.given_back ?? true,
    isHeld: row?.held ?? false,
    atMs: row?.at_ms ?? 0,
  };
}

/**
 * Whoever leads, or has led last, and up to where it heeds changes of subscriptions; undefined before the first.
 *
 * Of the source that was led last alone: a database that was adopted keeps the rows of the sources before.
 */
export async function readLastLeader(db: Queryable): Promise<(LeaderRow & { readonly acknowledgedRevision: bigint }) | undefined> {
  const { rows } = await db.query<{
    epoch: string;
    sessions: string;
    process: string;
    is_given_back: boolean;
    held: boolean;
    acknowledged: string;
  }>(
    `select l.epoch::text, l.sessions::text, l.process, l.is_given_back, l.acknowledged_revision::text as acknowledged,
       exists (select from pg_locks k where ${isLock(`$1 || l.source`)}) as held
     from ancrage.leaders l order by l.taken_at desc limit 1`,
    [leaseLock("")],
  );
  const [row] = rows;
  return (
    row && {
      epoch: BigInt(row.epoch),
      sessions: BigInt(row.sessions),
      process: row.process,
      isGivenBack: row.is_given_back,
      isHeld: row.held,
      acknowledgedRevision: BigInt(row.acknowledged),
    }
  );
}

/**
 * Raises the epoch, where the row is still as it was seen.
 *
 * @returns the new epoch; undefined where the leader has taken its lease again meanwhile, or another process was faster
 */
export async function raiseEpoch(
  db: Queryable,
  { source, process, seen }: { readonly source: string; readonly process: string; readonly seen: LeaderRow },
): Promise<bigint | undefined> {
  const { rows } = await db.query<{ epoch: string }>(
    `insert into ancrage.leaders (source, epoch, process) values ($1, 1, $2)
     on conflict (source) do update
       set epoch = leaders.epoch + 1, process = excluded.process, taken_at = excluded.taken_at, sessions = excluded.sessions,
         is_given_back = excluded.is_given_back
       where leaders.epoch = $3 and leaders.sessions = $4
     returning epoch::text`,
    [source, process, seen.epoch.toString(), seen.sessions.toString()],
  );
  return rows[0] === undefined ? undefined : BigInt(rows[0].epoch);
}

/**
 * Notes that the leader has taken its lease on a new session.
 *
 * @returns whether it still leads: nobody has raised the epoch
 */
export async function noteSession(db: Queryable, { source, epoch }: { readonly source: string; readonly epoch: bigint }): Promise<boolean> {
  const { rowCount } = await db.query(`update ancrage.leaders set sessions = sessions + 1 where source = $1 and epoch = $2`, [
    source,
    epoch.toString(),
  ]);
  return rowCount === 1;
}

/** Says that the leader of this epoch sends nothing any more. */
export async function giveLeaseBack(db: Queryable, { source, epoch }: { readonly source: string; readonly epoch: bigint }): Promise<void> {
  await db.query(`update ancrage.leaders set is_given_back = true where source = $1 and epoch = $2`, [source, epoch.toString()]);
}

/**
 * Ends the session of a former leader that still holds a lock: of a stopped process, or of a host that is gone.
 *
 * Not one that waits for a synchronous standby: ended, its commit would count as done, and be on one machine only.
 *
 * @returns how many were ended
 * @throws `42501` where this role may not: it is not the other's, and not a member of `pg_signal_backend`
 */
export async function endHolders(db: Queryable, lock: string): Promise<number> {
  const { rows } = await db.query<{ ended: boolean }>(
    `select pg_terminate_backend(k.pid) as ended from pg_locks k join pg_stat_activity a on a.pid = k.pid
     where ${isLock("$1")} and k.pid <> pg_backend_pid() and a.wait_event is distinct from 'SyncRep'`,
    [lock],
  );
  return rows.filter(({ ended }) => ended).length;
}

/**
 * Ends the walsender that has the slot.
 *
 * @throws `42501` where this role may not
 */
export async function endSlotHolder(db: Queryable, slot: string): Promise<void> {
  await db.query(`select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1 and active_pid is not null`, [
    slot,
  ]);
}

/**
 * What a session does, as another one sees it.
 *
 * @returns `waiting`: for its client; `gone`: there is none with this pid; `working`: anything else
 */
export async function readActivity(db: Queryable, pid: number): Promise<"waiting" | "working" | "gone"> {
  const { rows } = await db.query<{ wait_event_type: string | null }>(`select wait_event_type from pg_stat_activity where pid = $1`, [pid]);
  if (rows[0] === undefined) return "gone";
  return rows[0].wait_event_type === "Client" ? "waiting" : "working";
}
