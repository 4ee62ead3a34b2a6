import { defineEvent } from "ancrage";
import { customerPayload, customerSchema } from "./_customer.ts";

export default defineEvent({
  description: "A suspect was created.",
  table: "customer",
  on: "insert",
  where: (customer) => customer.kind === "suspect",
  schema: customerSchema,
  payload: customerPayload,
});
