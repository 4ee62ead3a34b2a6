import type pg from "pg";

/** As `server_version_num` has it: 150000 and up. Below what a test is about, it skips itself with the reason. */
export async function serverVersion(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ version: number }>("select current_setting('server_version_num')::integer as version");
  const [row] = rows;
  if (row === undefined) throw new Error("the server tells no version");
  return row.version;
}
