import type { OutboxRow } from "../../store/outbox.ts";
import type { TableInfo } from "../../store/tables.ts";
import type { ValueTypes } from "../../store/types.ts";
import type { Change, Position, Transaction } from "../change.ts";
import type { PgOutputMessage } from "../wal/pgoutput.ts";
import { compileRelation, type Relation } from "../wal/relation.ts";
import { toChange } from "../wal/to-change.ts";
import { parseRecord } from "./record.ts";

/** A table as its rows were written: the columns that their texts have. */
interface Shape {
  readonly relation: Relation;
  /** Where the columns stand that PostgreSQL computes when they are read: what a trigger sees of them is nothing. */
  readonly virtual: ReadonlySet<number>;
}

export interface RowReader {
  /** The change that a row of kind `i`, `u` or `d` says. */
  toChange(row: OutboxRow, transaction: Transaction, position: Position): Change;
  tableName(oid: number | null): string;
}

/** Rows of the outbox become what the log would have said. */
export function createRowReader(tables: ReadonlyMap<string, TableInfo>, types: ValueTypes): RowReader {
  const tableOf = new Map([...tables.values()].map((table) => [table.oid, table]));
  // By table and columns, as they stand in the row.
  const shapes = new Map<string, Shape>();

  const tableName = (oid: number | null): string => tableOf.get(oid ?? 0)?.name ?? String(oid);
  const shapeOf = (root: number, columns: string): Shape => {
    const name = `${root} ${columns}`;
    const found = shapes.get(name);
    if (found !== undefined) return found;
    const shape = compileShape(root, columns, tableOf.get(root), types);
    shapes.set(name, shape);
    return shape;
  };

  return {
    tableName,
    toChange(row, transaction, position) {
      const { relation, virtual } = shapeOf(row.root ?? 0, row.columns ?? "[]");
      const tuple = (text: string): (string | null)[] => parseRecord(text).filter((_, index) => !virtual.has(index));
      return { kind: "change", transaction, position, ...toChange(toMessage(row, tuple), relation) };
    },
  };
}

function compileShape(root: number, text: string, table: TableInfo | undefined, types: ValueTypes): Shape {
  const columns = JSON.parse(text) as readonly (readonly [name: string, typeOid: number, generated: string])[];
  const logged = columns.filter(([, , generated]) => generated !== "v");
  return {
    relation: compileRelation(
      {
        kind: "relation",
        oid: root,
        schema: table?.schema ?? "",
        table: table?.table ?? String(root),
        replicaIdentity: "f",
        columns: logged.map(([name, typeOid]) => ({ name, typeOid, isKey: true, typeModifier: -1 })),
      },
      table,
      types,
    ),
    virtual: new Set(columns.flatMap(([, , generated], index) => (generated === "v" ? [index] : []))),
  };
}

type RowMessage = Extract<PgOutputMessage, { readonly kind: "insert" | "update" | "delete" }>;

function toMessage(row: OutboxRow, tuple: (text: string) => (string | null)[]): RowMessage {
  const relationOid = row.root ?? 0;
  const newTuple = tuple(row.new_row ?? "()");
  const oldTuple = row.old_row === null ? undefined : tuple(row.old_row);
  if (row.kind === "d") return { kind: "delete", relationOid, oldKey: undefined, oldTuple };
  if (row.kind === "u") return { kind: "update", relationOid, oldKey: undefined, oldTuple, newTuple };
  return { kind: "insert", relationOid, newTuple };
}
