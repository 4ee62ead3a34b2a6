import { defineEvent } from "ancrage";
import { customerPayload, customerSchema } from "./_customer.ts";

export default defineEvent({
  description: "A prospect was created.",
  table: "customer",
  on: "insert",
  where: (customer) => customer.kind === "prospect",
  schema: customerSchema,
  payload: customerPayload,
});
