import type { Change } from "../change.ts";
import type { PgOutputMessage } from "./pgoutput.ts";
import type { Relation } from "./relation.ts";

/** A change but for its place in the log. */
export type RowChange = Omit<Change, "kind" | "transaction" | "position">;

/** What a message about one row says, in the columns of its relation. */
export function toChange(
  message: Extract<PgOutputMessage, { readonly kind: "insert" | "update" | "delete" }>,
  relation: Relation,
): RowChange {
  const { table } = relation;
  switch (message.kind) {
    case "insert": {
      const { newTuple } = message;
      return {
        table,
        action: "insert",
        key: relation.toKey(newTuple, undefined),
        before: undefined,
        after: relation.toRow(newTuple, undefined),
      };
    }
    case "update": {
      const { newTuple, oldTuple, oldKey } = message;
      return {
        table,
        action: "update",
        key: relation.toKey(newTuple, oldTuple ?? oldKey),
        before: oldTuple === undefined ? undefined : relation.toOldRow(oldTuple),
        after: relation.toRow(newTuple, oldTuple),
      };
    }
    case "delete": {
      const { oldTuple, oldKey } = message;
      const old = oldTuple ?? oldKey ?? [];
      return {
        table,
        action: "delete",
        key: relation.toKey(old, undefined),
        before: oldTuple === undefined ? relation.toKeyRow(old) : relation.toOldRow(old),
        after: undefined,
      };
    }
    default:
      return message satisfies never;
  }
}
