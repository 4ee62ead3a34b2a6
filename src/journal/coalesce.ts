import { deliveryNameOf, type DeliveryUpdate } from "../message.ts";

/** What happened to one delivery, one after the other, as a single write. */
export interface Chain {
  /** The state and attempts that the row must have, those the first began from; undefined: there is no row yet. */
  readonly from: DeliveryUpdate["from"];
  /** As it stands after the last of them. */
  readonly row: DeliveryUpdate["row"];
  /** What it was made of, in order. */
  readonly updates: readonly DeliveryUpdate[];
}

/**
 * The updates of a batch as chains, in the waves in which they must be written.
 *
 * One statement sees each row as it was before it: of two outcomes of one delivery in one statement, the second would find the row
 * that the first began from, and be dropped as late. So what follows on becomes one write (and a delivery that failed and then
 * succeeded within a batch costs one row), and what does not follow on comes in a statement after.
 */
export function coalesceUpdates(updates: readonly DeliveryUpdate[]): readonly (readonly Chain[])[] {
  const waves: { from: DeliveryUpdate["from"]; row: DeliveryUpdate["row"]; updates: DeliveryUpdate[] }[][] = [];
  const last = new Map<string, { readonly wave: number; readonly index: number }>();
  for (const update of updates) {
    const delivery = deliveryNameOf(update.row);
    const place = last.get(delivery);
    const chain = place === undefined ? undefined : waves[place.wave]?.[place.index];
    if (chain !== undefined && followsOn(chain.row, update)) {
      chain.row = update.row;
      chain.updates.push(update);
      continue;
    }
    const number = place === undefined ? 0 : place.wave + 1;
    const wave = (waves[number] ??= []);
    last.set(delivery, { wave: number, index: wave.length });
    wave.push({ from: update.from, row: update.row, updates: [update] });
  }
  return waves;
}

const followsOn = (row: DeliveryUpdate["row"], { from, row: next }: DeliveryUpdate): boolean =>
  from !== undefined && from.state === row.state && from.attempts === row.attempts && next.round === row.round;
