import type pg from "pg";
import { inPoolTransaction, type Queryable } from "./database.ts";

interface NewTrigger {
  readonly event: string;
  readonly key: string;
  readonly data: unknown;
}

/**
 * `ancrage.trigger(event, key, data)` in a transaction of its own.
 *
 * @param onId called with the trigger's UUID before the transaction is committed
 */
export async function emitTrigger(pool: pg.Pool, trigger: NewTrigger, onId: (id: string) => void): Promise<string> {
  return await inPoolTransaction(pool, async (client) => {
    const id = await callTrigger(client, trigger);
    onId(id);
    return id;
  });
}

/** `ancrage.trigger(event, key, data)`; it happens if the transaction commits. @returns its UUID */
export async function callTrigger(client: Queryable, { event, key, data }: NewTrigger): Promise<string> {
  const { rows } = await client.query<{ id: string }>(`select ancrage.trigger($1, $2, $3::jsonb) as id`, [
    event,
    key,
    data === undefined ? null : JSON.stringify(data),
  ]);
  return rows[0]?.id ?? "";
}
