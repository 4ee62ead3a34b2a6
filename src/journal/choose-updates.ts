import type { DeliveryUpdate } from "../message.ts";

/**
 * Which updates go with a batch that should stay small.
 *
 * What came of an attempt always goes: a process that is killed sends again what it has not journaled, and that may be no more than what
 * finished within the last batch. What only gets a row, since it has been open for long, may wait: the message is journaled, and a start
 * fans it out again. It does not wait where something came of it since, which must find its row.
 *
 * @param most rows that may wait are taken until there are so many in all
 */
export function chooseUpdates(
  updates: readonly DeliveryUpdate[],
  most: number,
): { readonly taken: DeliveryUpdate[]; readonly left: DeliveryUpdate[] } {
  const pressing = new Set<string>();
  let room = most;
  for (const update of updates) {
    if (mayWait(update)) continue;
    pressing.add(keyOf(update));
    room--;
  }
  const taken: DeliveryUpdate[] = [];
  const left: DeliveryUpdate[] = [];
  for (const update of updates) {
    if (!mayWait(update) || pressing.has(keyOf(update))) taken.push(update);
    else if (room > 0) {
      room--;
      taken.push(update);
    } else left.push(update);
  }
  return { taken, left };
}

/** A first row without an attempt. */
const mayWait = ({ row, from }: DeliveryUpdate): boolean => from === undefined && row.state === "pending" && row.attempts === 0;

const keyOf = ({ row }: DeliveryUpdate): string => `${row.messageId} ${row.subscriptionId}`;
