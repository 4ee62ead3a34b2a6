import type { Row, Value } from "./change.ts";

/**
 * A value that nothing can be written into, what lies in it included.
 *
 * One row serves every event of its change, and again when its batch is built anew: what one payload changed in it the next would
 * send, and the bytes of a message would depend on what ran before. Only the bytes of a Buffer cannot be frozen.
 */
export function freezeValue(value: Value): Value {
  if (!isFreezable(value)) return value;
  // Its own list, since a document may be nested deeper than the stack.
  const open: object[] = [value];
  for (let one = open.pop(); one !== undefined; one = open.pop()) {
    Object.freeze(one);
    for (const inner of Object.values(one)) if (isFreezable(inner)) open.push(inner);
  }
  return value;
}

/** A record as it was read, whose columns are all there. */
export function freezeRow(row: Row): Row {
  freezeValue(row);
  return row;
}

function isFreezable(value: Value): value is object {
  return typeof value === "object" && value !== null && !ArrayBuffer.isView(value) && !Object.isFrozen(value);
}
