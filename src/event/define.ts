// (being written: types by the owner of event/)
import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { Action, Row } from "../capture/change.ts";

/** Why a payload is being built. */
export type Reason = "change" | "trigger" | "sample" | "backfill";

export type Rule = "insert" | "update" | "delete" | "enter" | "leave" | { readonly update: readonly string[] };

export interface Load {
  (table: string, key: unknown): Promise<Row | undefined>;
  all(table: string, where: Readonly<Record<string, unknown>>): Promise<readonly Row[]>;
}

export type Sql = (strings: TemplateStringsArray, ...values: readonly unknown[]) => Promise<readonly Row[]>;

/** What a payload function gets beside the record, as the running system hands it over. */
export interface PayloadContext {
  readonly reason: Reason;
  readonly action: Action | undefined;
  readonly before: Row | undefined;
  changed(column: string): boolean;
  readonly project: string;
  readonly actor: string | undefined;
  readonly data: unknown;
  readonly load: Load;
  readonly sql: Sql;
}

/** A definition as the running system sees it, whatever its static types were. */
export interface EventDefinition {
  readonly kind: "event";
  readonly description?: string;
  readonly table?: string;
  readonly on?: Rule | readonly Rule[];
  readonly where?: (record: Row) => boolean;
  readonly schema?: StandardSchemaV1;
  readonly jsonSchema?: unknown;
  readonly data?: StandardSchemaV1;
  readonly example?: unknown;
  readonly newest?: string;
  readonly oldValues?: boolean;
  readonly echo?: boolean;
  readonly project?: (record: Row) => string;
  readonly payload: (record: never, context: never) => unknown;
}
