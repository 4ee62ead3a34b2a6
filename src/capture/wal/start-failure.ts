import { AncrageError, sqlStateOf } from "../../errors.ts";

/** What START_REPLICATION answered, in words: decided on the SQLSTATE, never on the text. */
export function explainStartFailure(error: unknown, slot: string): unknown {
  const because = error instanceof Error ? error.message : String(error);
  const state = sqlStateOf(error);
  if (state === "55006") {
    return new AncrageError("ANCRAGE_SLOT_BUSY", `replication slot "${slot}" is in use: ${because}.`, {
      hint: "Something else reads it: no process of Ancrage does while this one leads. Stop it, or drop its session.",
      cause: error,
    });
  }
  if (state === "42704" || state === "55000") {
    const what = state === "42704" ? "is gone" : "can no longer be read";
    return new AncrageError("ANCRAGE_SLOT_LOST", `replication slot "${slot}" ${what}: ${because}.`, {
      hint: "Changes since the last journaled position were not seen. Raise max_slot_wal_keep_size before making a new slot.",
      cause: error,
    });
  }
  return error;
}

/** The log cannot be decoded where a publication did not exist: not now, and not after any number of reconnections. */
export function publicationMissing(error: Error): AncrageError {
  return new AncrageError("ANCRAGE_CAPTURE_ALTERED", `PostgreSQL cannot decode its log here: ${error.message}.`, {
    hint: 'A publication was dropped while its changes were still to be read. Run "ancrage slot recreate FOLDER", which makes the slot anew and notes the gap, and restart.',
    cause: error,
  });
}
