import type pg from "pg";
import { inPoolTransaction } from "./database.ts";

/**
 * `ancrage.trigger(event, key, data)` in a transaction of its own.
 *
 * @param onId called with the trigger's UUID before the transaction is committed
 */
export async function emitTrigger(
  pool: pg.Pool,
  trigger: { readonly event: string; readonly key: string; readonly data: unknown },
  onId: (id: string) => void,
): Promise<string> {
  return await inPoolTransaction(pool, async (client) => {
    const data = trigger.data === undefined ? null : JSON.stringify(trigger.data);
    const { rows } = await client.query<{ id: string }>(`select ancrage.trigger($1, $2, $3::jsonb) as id`, [
      trigger.event,
      trigger.key,
      data,
    ]);
    const id = rows[0]?.id ?? "";
    onId(id);
    return id;
  });
}
