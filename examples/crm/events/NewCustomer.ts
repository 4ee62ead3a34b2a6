import { defineEvent } from "ancrage";
import { customerPayload, customerSchema } from "./_customer.ts";

export default defineEvent({
  description: "A customer was created.",
  table: "customer",
  on: "insert",
  where: (customer) => customer.kind === "customer",
  schema: customerSchema,
  payload: customerPayload,
});
