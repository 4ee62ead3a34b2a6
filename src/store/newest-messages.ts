import type pg from "pg";

/** The newest messages of an event, newest first; of any project where that is undefined. */
export async function readNewestMessages(
  db: Pick<pg.ClientBase, "query">,
  event: string,
  project: string | undefined,
  limit: number,
): Promise<readonly { readonly key: string; readonly project: string; readonly body: Buffer }[]> {
  // Ids begin with the commit time; the newest two days bound what is read where an event is rare.
  const { rows } = await db.query<{ key: string; project: string; body: Buffer }>(
    `select key, project, body from ancrage.messages where event = $1 and ($2::text is null or project = $2) order by id desc limit $3`,
    [event, project ?? null, limit],
  );
  return rows;
}
