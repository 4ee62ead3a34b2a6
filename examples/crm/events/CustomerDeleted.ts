import { defineEvent } from "ancrage";
import { z } from "zod";

export default defineEvent({
  description: "A customer, prospect or suspect was deleted.",
  table: "customer",
  on: "delete",
  schema: z.object({ codecustomer: z.string(), name: z.string(), kind: z.string() }),
  // No row is left that could serve as a sample.
  example: { codecustomer: "COLOMB", name: "COLOMBE DIAMANTS", kind: "customer" },
  payload: ({ codecustomer, name, kind }) => ({ codecustomer, name, kind }),
});
