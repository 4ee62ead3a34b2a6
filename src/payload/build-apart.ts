import { buildPayloads, rejectedForTime, type Payload, type PayloadDeps, type PayloadInput } from "./build.ts";
import { BatchFault } from "./fault.ts";

/** Reads that run out of time in a row: then no more is asked, each would take as long. */
const mostInARow = 3;

/**
 * Builds each by itself, in the given order, which must be of one event. What cannot read PostgreSQL in time is rejected alone, and after
 * three in a row so is the rest, unasked: others wait for all of this.
 *
 * @param most how many in a row may run out of time
 * @throws BatchFault PostgreSQL could not be read for another reason
 */
export async function buildApart(inputs: readonly PayloadInput[], deps: PayloadDeps, most = mostInARow): Promise<readonly Payload[]> {
  const payloads: Payload[] = [];
  let inARow = 0;
  let last: BatchFault | undefined;
  for (const input of inputs) {
    if (last !== undefined && inARow >= most) {
      payloads.push(rejectedForTime(input, `not asked: its reads had run out of time ${inARow} times in a row (${last.words})`, deps));
      continue;
    }
    try {
      const [payload] = await buildPayloads([input], deps);
      if (payload === undefined) throw new RangeError("no payload for one occurrence");
      payloads.push(payload);
      inARow = 0;
    } catch (error) {
      if (!(error instanceof BatchFault) || !error.isOfStatement) throw error;
      last = error;
      inARow++;
      payloads.push(rejectedForTime(input, error.words, deps));
    }
  }
  return payloads;
}
