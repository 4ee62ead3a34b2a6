import { fire } from "ancrage/testing";
import { expect, test } from "vitest";
import CustomerDeleted from "./events/CustomerDeleted.ts";
import DealWon from "./events/DealWon.ts";
import ImportFinished from "./events/ImportFinished.ts";
import NewCustomer from "./events/NewCustomer.ts";
import NewOpportunity from "./events/NewOpportunity.ts";
import NewProspect from "./events/NewProspect.ts";
import NewSuspect from "./events/NewSuspect.ts";
import deals from "./tracking/deal.ts";

// What an event sends, and when, without a database.

const deal = {
  id: 14,
  codedeal: "2010000000014",
  customer_id: 7,
  label: "Ma nouvelle opportunité",
  type: "Appel d'offres",
  deal_number: "",
  status: "Active",
  amount: "1200.00",
  is_project: true,
  created_at: "2023-10-31T00:00:00.000000Z",
};
const rows = { customer: [{ id: 7, name: "A L'ATELIER DE DIJON" }] };

test("NewOpportunity sends what weavy sends, when the tracking handler sees a project", async () => {
  const { messages } = await fire({ NewOpportunity, deals }, { table: "deal", insert: deal, rows });
  expect(messages).toEqual([
    {
      event: "NewOpportunity",
      key: "14",
      payload: {
        codedeal: "2010000000014",
        customerName: "A L'ATELIER DE DIJON",
        label: "Ma nouvelle opportunité",
        type: "Appel d'offres",
        dealNumber: "",
        status: "Active",
        creationDate: "2023-10-31 00:00:00",
        url: "https://crm.example.com/page/project/2010000000014",
      },
    },
  ]);
});

test("a deal that is no project, or that is only changed, is no opportunity", async () => {
  expect((await fire({ NewOpportunity, deals }, { table: "deal", insert: { ...deal, is_project: false }, rows })).messages).toEqual([]);
  expect((await fire({ NewOpportunity, deals }, { table: "deal", update: deal, before: deal, rows })).messages).toEqual([]);
});

test("a deal without a customer is sent all the same", async () => {
  const { payloads } = await fire(NewOpportunity, { trigger: 14, rows: { deal: [{ ...deal, customer_id: null }], customer: [] } });
  expect(payloads).toMatchObject([{ customerName: "", label: "Ma nouvelle opportunité" }]);
});

test("a deal is won once", async () => {
  const won = { ...deal, status: "Won" };
  const contact = [{ id: 1, customer_id: 7, name: "Mme Colombe" }];
  const { payloads } = await fire(DealWon, { update: won, before: deal, rows: { ...rows, contact } });
  expect(payloads).toEqual([
    {
      codedeal: "2010000000014",
      label: "Ma nouvelle opportunité",
      amount: "1200.00",
      customerName: "A L'ATELIER DE DIJON",
      contacts: ["Mme Colombe"],
    },
  ]);
  expect((await fire(DealWon, { update: { ...won, amount: "1300.00" }, before: won, rows })).payloads).toEqual([]);
});

const customer = {
  id: 1,
  codecustomer: "COLOMB",
  name: "COLOMBE DIAMANTS",
  address1: "Rue Maurice Barres",
  address2: "",
  address3: "",
  postal_code: "78000",
  city: "VERSAILLES",
  phone_number: "111220520",
  fax_number: "",
};

test("NewCustomer sends what weavy sends", async () => {
  expect((await fire(NewCustomer, { insert: { ...customer, kind: "customer" } })).payloads).toEqual([
    {
      codecustomer: "COLOMB",
      name: "COLOMBE DIAMANTS",
      address1: "Rue Maurice Barres",
      address2: "",
      address3: "",
      postalCode: "78000",
      city: "VERSAILLES",
      phoneNumber: "111220520",
      faxNumber: "",
    },
  ]);
});

test.each(["customer", "prospect", "suspect"])("a new %s is one event of three", async (kind) => {
  const definitions = { customer: NewCustomer, prospect: NewProspect, suspect: NewSuspect };
  const { messages } = await fire(definitions, { table: "customer", insert: { ...customer, kind } });
  expect(messages.map(({ event }) => event)).toEqual([kind]);
});

test("a customer that is gone is named", async () => {
  expect((await fire(CustomerDeleted, { delete: { ...customer, kind: "prospect" } })).payloads).toEqual([
    { codecustomer: "COLOMB", name: "COLOMBE DIAMANTS", kind: "prospect" },
  ]);
});

test("ImportFinished takes what its data schema takes", async () => {
  const { payloads } = await fire(ImportFinished, { trigger: "deals-2026-11", data: { source: "ERP", rows: 3 } });
  expect(payloads).toEqual([{ import: "deals-2026-11", source: "ERP", rows: 3 }]);
  const { rejections } = await fire(ImportFinished, { trigger: "deals-2026-11", data: { source: "ERP", rows: -1 } });
  expect(rejections).toMatchObject([{ reason: "data-invalid", error: expect.stringContaining("rows") }]);
});
