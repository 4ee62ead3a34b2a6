/** A receiver may ask for a day at most: whoever asks for years has a fault, and its messages expire meanwhile. */
const mostMs = 24 * 3_600_000;
/**
 * The one form of a date that RFC 9110 lets a server send (section 5.6.7). `Date.parse` alone takes garbage for a date: to it "-1" is
 * a day in 2001.
 */
const httpDate = /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d{2}:\d{2}:\d{2} GMT$/;

/**
 * Reads a `Retry-After` header.
 *
 * @param nowMs wall clock
 * @returns milliseconds from now, 0 to 24 h, 0 for a date that has passed; `undefined` for what is neither whole seconds nor a date
 */
export function parseRetryAfter(value: string | undefined, nowMs: number): number | undefined {
  if (value === undefined) return undefined;
  const text = value.trim();
  if (/^\d+$/.test(text)) return Math.min(Number(text) * 1000, mostMs);
  if (!httpDate.test(text)) return undefined;
  const atMs = Date.parse(text);
  return Number.isNaN(atMs) ? undefined : Math.min(Math.max(0, atMs - nowMs), mostMs);
}
