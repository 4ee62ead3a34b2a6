import type { Queryable } from "./database.ts";

/** Where a session is. */
export interface Place {
  readonly database: string;
  /** When the server that runs there was started, in seconds since 1970: no two were at the same microsecond. */
  readonly startedAtS: string;
}

/**
 * A copy of the disk has the identifier of the first one, and databases of the same number, and not everybody may read it. When it was
 * started anybody may, and it is written alike in every time zone.
 */
export async function readPlace(db: Queryable): Promise<Place> {
  const { rows } = await db.query<Place>(
    `select current_database()::text as database, extract(epoch from pg_postmaster_start_time())::text as "startedAtS"`,
  );
  const [row] = rows;
  if (row === undefined) throw new Error("a select without a from has one row");
  return row;
}
