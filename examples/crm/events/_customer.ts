import { z } from "zod";

/** What NewCustomer, NewProspect and NewSuspect send. */
export const customerSchema = z.object({
  codecustomer: z.string(),
  name: z.string(),
  address1: z.string(),
  address2: z.string(),
  address3: z.string(),
  postalCode: z.string(),
  city: z.string(),
  phoneNumber: z.string(),
  faxNumber: z.string(),
});

/** The columns that it is built from. */
interface Customer {
  readonly codecustomer: string;
  readonly name: string;
  readonly address1: string;
  readonly address2: string;
  readonly address3: string;
  readonly postal_code: string;
  readonly city: string;
  readonly phone_number: string;
  readonly fax_number: string;
}

export function customerPayload(customer: Customer): z.input<typeof customerSchema> {
  const { codecustomer, name, address1, address2, address3, city } = customer;
  return {
    codecustomer,
    name,
    address1,
    address2,
    address3,
    postalCode: customer.postal_code,
    city,
    phoneNumber: customer.phone_number,
    faxNumber: customer.fax_number,
  };
}
