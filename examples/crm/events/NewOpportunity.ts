import { defineEvent } from "ancrage";
import { z } from "zod";
import { formatDate } from "./_format.ts";

/** When it happens is said in tracking/deal.ts, as weavy does it. */
export default defineEvent({
  description: "An opportunity was created.",
  table: "deal",
  where: (deal) => deal.is_project,
  schema: z.object({
    codedeal: z.string(),
    customerName: z.string(),
    label: z.string(),
    type: z.string(),
    dealNumber: z.string(),
    status: z.string(),
    creationDate: z.string().meta({ description: "YYYY-MM-DD HH:MM:SS in UTC" }),
    url: z.url(),
  }),
  example: {
    codedeal: "2010000000014",
    customerName: "A L'ATELIER DE DIJON",
    label: "Ma nouvelle opportunité",
    type: "Appel d'offres",
    dealNumber: "",
    status: "Active",
    creationDate: "2023-10-31 00:00:00",
    url: "https://crm.example.com/page/project/2010000000014",
  },
  async payload(deal, { load }) {
    const customer = await load("customer", deal.customer_id);
    return {
      codedeal: deal.codedeal,
      customerName: customer?.name ?? "",
      label: deal.label,
      type: deal.type,
      dealNumber: deal.deal_number,
      status: deal.status,
      creationDate: formatDate(deal.created_at),
      url: `https://crm.example.com/page/project/${deal.codedeal}`,
    };
  },
});
