import type { Partition } from "../store/retention.ts";

export interface RetentionDays {
  /** Days that messages and rejections are kept: what payloads hold. */
  readonly messagesDays: number;
  /** Days that deliveries and attempts are kept; never fewer than messages. */
  readonly deliveriesDays: number;
}

const dayMs = 86_400_000;

/**
 * The partitions whose time is over, in the order in which they go: of a day, messages before deliveries, so that nobody finds a message
 * without its deliveries and takes it for one that a subscription never had.
 *
 * @param today the server's day, as `2026-11-24`
 */
export function computeExpired(partitions: readonly Partition[], today: string, days: RetentionDays): readonly Partition[] {
  const deliveriesDays = Math.max(days.messagesDays, days.deliveriesDays);
  const keptDays = { messages: days.messagesDays, rejections: days.messagesDays, deliveries: deliveriesDays, attempts: deliveriesDays };
  const order = Object.keys(keptDays);
  // Whole days: of the oldest one that is kept, all of it is.
  const isOver = ({ parent, day, state }: Partition): boolean => state !== "attached" || day < addDays(today, -keptDays[parent]);
  return partitions
    .filter(isOver)
    .toSorted((a, b) => (a.day === b.day ? order.indexOf(a.parent) - order.indexOf(b.parent) : a.day < b.day ? -1 : 1));
}

/** @param day `2026-11-24` */
export function addDays(day: string, days: number): string {
  return new Date(Date.parse(day) + days * dayMs).toISOString().slice(0, 10);
}
