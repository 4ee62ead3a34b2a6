import pg from "pg";
import { AncrageError, sqlStateOf } from "../errors.ts";
import type { Queryable } from "../store/database.ts";

/**
 * Runs `work`; where PostgreSQL denies something (SQLSTATE 42501) it says which role lacked what for, and the SQL that gives it.
 *
 * @throws AncrageError `ANCRAGE_NOT_PERMITTED`
 */
export async function explainDenied<Result>(db: Queryable, work: () => Promise<Result>, statement?: string): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    if (sqlStateOf(error) !== "42501") throw error;
    throw notPermitted(error, await readWho(db), statement);
  }
}

interface Who {
  readonly role: string;
  readonly database: string;
}

async function readWho(db: Queryable): Promise<Who> {
  const unknown: Who = { role: "<role>", database: "<database>" };
  // A transaction that failed answers nothing any more; the words do without then.
  const answer = await db.query<Who>(`select current_user::text as role, current_database()::text as database`).catch(() => undefined);
  return answer?.rows[0] ?? unknown;
}

/** In words, with the SQL that a superuser or the owner runs. */
export function notPermitted(error: unknown, who: Who, statement?: string): AncrageError {
  const because = error instanceof Error ? error.message : String(error);
  const doing = statement === undefined ? "" : ` It was to run: ${statement};`;
  return new AncrageError("ANCRAGE_NOT_PERMITTED", `PostgreSQL refused the role "${who.role}": ${because}.${doing}`, {
    hint: cure(who, statement),
    cause: error,
  });
}

function cure({ role, database }: Who, statement: string | undefined): string {
  const quotedRole = pg.escapeIdentifier(role);
  if (statement === undefined) {
    return `Run "ancrage migrate FOLDER --grant-to ${role}" as the owner of the schema "ancrage": it grants what a running Ancrage needs. "ancrage doctor FOLDER" lists what is missing.`;
  }
  if (statement.includes("pg_create_logical_replication_slot") || statement.includes("pg_drop_replication_slot")) {
    return `As a superuser: alter role ${quotedRole} replication; (managed servers: see docs/guides/databases.md). Or give a role that may in ANCRAGE_REPLICATION_URL.`;
  }
  if (/^create (schema|publication)/.test(statement)) {
    return `As a superuser or the owner of the database: grant create on database ${pg.escapeIdentifier(database)} to ${quotedRole}; a table that is published must belong to the role as well.`;
  }
  if (/^alter (table|publication)/.test(statement)) {
    return `Run "ancrage migrate" as the owner of the table, or as a member of the role that owns it: grant <owner> to ${quotedRole};`;
  }
  return `Run it as the owner of the tracked tables, with "create" on the database: grant create on database ${pg.escapeIdentifier(database)} to ${quotedRole};`;
}
