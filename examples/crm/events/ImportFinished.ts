import { defineEvent } from "ancrage";
import { z } from "zod";

/**
 * About no table: the import says so itself, in its own transaction.
 *
 * ```sql
 * select ancrage.trigger('ImportFinished', 'deals-2026-11', '{"source": "ERP", "rows": 10000}')
 * ```
 */
export default defineEvent({
  description: "An import was finished.",
  data: z.object({ source: z.string(), rows: z.int().nonnegative() }),
  schema: z.object({ import: z.string(), source: z.string(), rows: z.int() }),
  example: { import: "deals-2026-11", source: "ERP", rows: 10_000 },
  payload: ({ key, data }) => ({ import: key, ...data }),
});
