// Written by "ancrage generate" from the database and the events of this folder. Do not edit it: run the command again
// (`ancrage dev` does) after a migration, or when an event file comes or goes.
import "ancrage";

interface ContactRecord {
  /** integer */
  readonly id: number;
  /** integer */
  readonly customer_id: number | null;
  /** text */
  readonly name: string;
  /** text */
  readonly email: string;
  /** text */
  readonly phone_number: string;
  /** timestamp with time zone */
  readonly created_at: string;
}

interface CustomerRecord {
  /** integer */
  readonly id: number;
  /** text */
  readonly codecustomer: string;
  /** text */
  readonly name: string;
  /** text */
  readonly kind: string;
  /** text */
  readonly address1: string;
  /** text */
  readonly address2: string;
  /** text */
  readonly address3: string;
  /** text */
  readonly postal_code: string;
  /** text */
  readonly city: string;
  /** text */
  readonly phone_number: string;
  /** text */
  readonly fax_number: string;
  /** timestamp with time zone */
  readonly created_at: string;
}

interface DealRecord {
  /** integer */
  readonly id: number;
  /** text */
  readonly codedeal: string;
  /** integer */
  readonly customer_id: number | null;
  /** text */
  readonly label: string;
  /** text */
  readonly type: string;
  /** text */
  readonly deal_number: string;
  /** text */
  readonly status: string;
  /** numeric(12,2) */
  readonly amount: string | null;
  /** boolean */
  readonly is_project: boolean;
  /** timestamp with time zone */
  readonly created_at: string;
}

declare module "ancrage" {
  interface Register {
    tables: {
      contact: ContactRecord;
      customer: CustomerRecord;
      deal: DealRecord;
    };
    events: {
      CustomerDeleted: typeof import("./events/CustomerDeleted.ts").default;
      DealWon: typeof import("./events/DealWon.ts").default;
      ImportFinished: typeof import("./events/ImportFinished.ts").default;
      NewCustomer: typeof import("./events/NewCustomer.ts").default;
      NewOpportunity: typeof import("./events/NewOpportunity.ts").default;
      NewProspect: typeof import("./events/NewProspect.ts").default;
      NewSuspect: typeof import("./events/NewSuspect.ts").default;
    };
  }
}
