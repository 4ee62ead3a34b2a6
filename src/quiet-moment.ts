import type pg from "pg";
import { AncrageError, sqlStateOf } from "./errors.ts";
import { pause } from "./pause.ts";
import { inTransaction } from "./store/database.ts";

const attempts = 10;
const pauseMs = 400;
/**
 * Whoever uses the table waits behind a lock that is waited for: each attempt is short. But an autovacuum gives way only to one that has
 * waited for `deadlock_timeout` (1 s by default): one that gave up before would never have the lock.
 */
const setLockTimeout = `select set_config('lock_timeout', (setting::integer + 200)::text, true) from pg_settings where name = 'deadlock_timeout'`;

/**
 * Runs `work` in a transaction that takes locks of the application's tables, and waits for none of them for long.
 *
 * @throws AncrageError `ANCRAGE_COMMAND_FAILED` where a lock was not to be had for a quarter of a minute
 */
export async function inQuietMoment<Result>(client: pg.Client, work: () => Promise<Result>): Promise<Result> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await inTransaction(client, async () => {
        await client.query(setLockTimeout);
        return await work();
      });
    } catch (error) {
      const state = sqlStateOf(error);
      // Not there in time, or each waits for the other.
      if (state !== "55P03" && state !== "40P01") throw error;
      if (attempt === attempts) {
        throw new AncrageError(
          "ANCRAGE_COMMAND_FAILED",
          "the tracked tables could not be locked: a transaction that uses them stays open.",
          {
            hint: "Run it again when that transaction has ended (see pg_stat_activity). Of this step nothing was changed.",
            cause: error,
          },
        );
      }
    }
    await pause(pauseMs, new AbortController().signal);
  }
}
