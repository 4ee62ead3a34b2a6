import type pg from "pg";
import type { Logger } from "../log.ts";
import type { PayloadDeps } from "../payload/build.ts";
import type { Catalogue } from "../event/catalogue.ts";
import type { JobRow } from "../store/jobs.ts";
import type { DeliveryKey } from "../store/deliveries.ts";

/** What a job works with. */
export interface WorkDeps {
  /** Delivery's own sessions. */
  readonly db: pg.Pool;
  /** What records are read with. */
  readonly reads: pg.Pool;
  readonly sourceId: string;
  readonly catalogue: Catalogue;
  readonly payload: PayloadDeps;
  /** All that was committed before this place of the log is in the journal. */
  readonly passedLsn: () => bigint;
  /** The code of an event, or of a tracking file, works again. */
  readonly unpark: (name: string) => void;
  /** Their rows were ended: what is in memory of them is not sent any more. */
  readonly onCanceled: (deliveries: readonly DeliveryKey[]) => void;
  /** Their rows were made: lanes that nobody fills by itself. */
  readonly wake: (subscriptionId: string, jobId?: string) => void;
  readonly log: Logger;
  /** The process is to end: what takes long looks at it between its steps, and throws. */
  readonly stopping: AbortSignal;
}

/** What a kind of job does. A page is read first, then written in one transaction with the job's own row. */
export interface Work {
  /**
   * Before the first page. It may be called again after a crash.
   *
   * @returns how much there is to do; null where that cannot be told
   */
  begin(job: JobRow): Promise<number | null>;
  /** @param limit how much it may make at most */
  read(job: JobRow, limit: number): Promise<Page>;
  /** After the last page, in a transaction of its own; also where the job was canceled or has failed. */
  end?(job: JobRow): Promise<void>;
}

export interface Page {
  /** Where the next one begins. */
  readonly place: unknown;
  /** Nothing comes after it. */
  readonly isLast: boolean;
  /** It waits for something: the next one is not asked for at once. */
  readonly isIdle?: boolean;
  /** What it wants to make. */
  readonly count: number;
  write(client: pg.ClientBase): Promise<Written>;
  /** Once the transaction is in. */
  readonly after?: () => void;
  /** Where PostgreSQL cannot store what a page of one wants to make. */
  readonly refused?: (client: pg.ClientBase, error: unknown) => Promise<Written>;
}

export interface Written {
  readonly done: number;
  readonly failed: number;
}
