import type { DayRange } from "./messages.ts";
import type { Queryable } from "./database.ts";

/** An occurrence that could not become a message, with the reason. */
export interface RejectionRow {
  readonly id: string;
  readonly project: string;
  readonly event: string;
  readonly key: string;
  readonly committedAt: Date;
  readonly reason: string;
  /** Words of the definition's own code, as bytes: they may hold a NUL. */
  readonly error: Buffer;
}

interface StoredRejection {
  readonly id: string;
  readonly project: string;
  readonly event: string;
  readonly key: string;
  readonly committed_at: Date;
  readonly reason: string;
  readonly error: Buffer;
}

export interface RejectionFilter {
  /** Undefined: of all projects. */
  readonly project: string | undefined;
  readonly event?: string | undefined;
  readonly range: DayRange;
  /** The id that the last page ended with. */
  readonly after?: string | undefined;
  readonly limit: number;
}

/** Newest first. */
export async function listRejections(db: Queryable, filter: RejectionFilter): Promise<readonly RejectionRow[]> {
  const { rows } = await db.query<StoredRejection>(
    `select id, project, event, key, committed_at, reason, error from ancrage.rejections
     where id >= 'rej_' || ancrage.base32($1, 10)
       and id < 'rej_' || ancrage.base32($2, 10)
       and ($3::text is null or project = $3)
       and ($4::text is null or event = $4)
       and ($5::text is null or id < $5)
     order by id desc
     limit $6`,
    [filter.range.fromMs, filter.range.toMs, filter.project, filter.event, filter.after, filter.limit],
  );
  return rows.map(({ committed_at, ...row }) => ({ ...row, committedAt: committed_at }));
}
