import { defineEvent } from "ancrage";
import { z } from "zod";

export default defineEvent({
  description: "A deal was won.",
  table: "deal",
  // Once when it is won, whatever else changes afterwards; also for a deal that is inserted as won.
  on: "enter",
  where: (deal) => deal.status === "Won",
  schema: z.object({
    codedeal: z.string(),
    label: z.string(),
    amount: z.string().nullable(),
    customerName: z.string(),
    contacts: z.array(z.string()),
  }),
  async payload(deal, { load }) {
    const [customer, contacts] = await Promise.all([
      load("customer", deal.customer_id),
      deal.customer_id === null ? [] : load.all("contact", { customer_id: deal.customer_id }),
    ]);
    return {
      codedeal: deal.codedeal,
      label: deal.label,
      amount: deal.amount,
      customerName: customer?.name ?? "",
      contacts: contacts.map((contact) => contact.name),
    };
  },
});
