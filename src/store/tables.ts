// (being written by the owner of values)
/** A table as PostgreSQL's catalogue has it. */
export interface TableInfo {
  readonly oid: number;
  readonly schema: string;
  readonly table: string;
  /** As users write it: without the schema where that is `public`. */
  readonly name: string;
  readonly columns: readonly ColumnInfo[];
  /** The primary key's columns in its order; empty where there is none. */
  readonly keyColumns: readonly string[];
  /** `pg_class.relreplident`: d default, n nothing, f full, i index. */
  readonly replicaIdentity: "d" | "n" | "f" | "i";
  readonly isPartitioned: boolean;
}

export interface ColumnInfo {
  readonly name: string;
  readonly typeOid: number;
  /** As `format_type` names it, for messages and generated types. */
  readonly typeName: string;
  readonly isNullable: boolean;
}
