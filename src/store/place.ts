import type { Queryable } from "./database.ts";

/** Where a session is. */
export interface Place {
  readonly database: string;
  /** Of the server that runs there: its cluster's identifier, and when it was started. */
  readonly server: string;
}

/**
 * A copy of the disk has the identifier of the first one, and databases of the same number. It was not started at the same microsecond.
 */
export async function readPlace(db: Queryable): Promise<Place> {
  const { rows } = await db.query<Place>(`
    select current_database()::text as database,
      (select system_identifier from pg_control_system()) || ', started at ' || pg_postmaster_start_time() as server`);
  const [row] = rows;
  if (row === undefined) throw new Error("a select without a from has one row");
  return row;
}
