import type pg from "pg";
import { z } from "zod";
import { callTrigger } from "../store/triggers.ts";
import type { EventDefinition } from "./define.ts";

/**
 * Ancrage's own events: what happened to subscriptions, events and deliveries, for whoever subscribes to it.
 *
 * They are emitted as `ancrage.trigger` emits, in the transaction that does what they tell of, and go the ordinary way: through the log,
 * the journal and the fan-out. None of them tells of deliveries of another of them (`isOperationalEvent`): a receiver that is down would
 * otherwise be told so for ever.
 */

const schemas = {
  "subscription.disabled": z.object({
    project: z.string(),
    subscriptionId: z.string(),
    url: z.string(),
    events: z.array(z.string()),
    reason: z.enum(["gone", "asked", "failing", "expired"]),
    at: z.iso.datetime(),
  }),
  "event.parked": z.object({
    project: z.string(),
    /** Null where it is a file of tracking handlers. */
    event: z.string().nullable(),
    file: z.string(),
    /** In a row. */
    rejections: z.int(),
    at: z.iso.datetime(),
  }),
  "delivery.expired": z.object({
    project: z.string(),
    subscriptionId: z.string(),
    /** Of messages that were older than is kept. */
    deliveries: z.int(),
    /** The oldest and the newest of them. */
    fromMessageId: z.string(),
    toMessageId: z.string(),
    at: z.iso.datetime(),
  }),
} as const;

export type OperationalEvent = keyof typeof schemas;

export type OperationalData<Name extends OperationalEvent> = z.infer<(typeof schemas)[Name]>;

const described: {
  readonly [Name in OperationalEvent]: { readonly description: string; readonly example: OperationalData<Name> };
} = {
  "subscription.disabled": {
    description:
      "A subscription was disabled: its receiver answered 410 (gone) or asked for it (asked), took nothing for days (failing), or its time is over (expired).",
    example: {
      project: "default",
      subscriptionId: "sub_01K9ZQ4W7M3V2C8H5T6R0XNBEP",
      url: "https://hooks.example.com/1",
      events: ["NewOpportunity"],
      reason: "gone",
      at: "2026-11-24T10:22:00.000Z",
    },
  },
  "event.parked": {
    description: "The code of an event, or of a tracking file, failed so often in a row that it is not run until a restart.",
    example: {
      project: "default",
      event: "NewOpportunity",
      file: "events/NewOpportunity.ts",
      rejections: 1_000,
      at: "2026-11-24T10:22:00.000Z",
    },
  },
  "delivery.expired": {
    description: "Deliveries of a subscription were canceled: their messages are older than is kept.",
    example: {
      project: "default",
      subscriptionId: "sub_01K9ZQ4W7M3V2C8H5T6R0XNBEP",
      deliveries: 12,
      fromMessageId: "msg_01KA0000000000000000000000",
      toMessageId: "msg_01KA0000000000000000000001",
      at: "2026-11-24T10:22:00.000Z",
    },
  },
};

/** The payload is what was emitted, so each of them is whole in itself. */
export const operationalEvents: readonly { readonly name: string; readonly definition: EventDefinition }[] = Object.entries(schemas).map(
  ([name, schema]) => {
    const { description, example } = described[name as OperationalEvent];
    const definition: EventDefinition = {
      kind: "event",
      description,
      schema,
      data: schema,
      example,
      // The catalogue asks before the data is checked.
      project: ({ data }) => (data as { readonly project?: string } | undefined)?.project ?? "",
      payload: ({ data }: { readonly data: unknown }) => data,
    };
    return { name, definition };
  },
);

const names: ReadonlySet<string> = new Set(Object.keys(schemas));

/** Whether it is one of Ancrage's own. No file may define an event of such a name, and none may be triggered by hand. */
export function isOperationalEvent(name: string): name is OperationalEvent {
  return names.has(name);
}

/**
 * Tells of something, in the transaction that does it.
 *
 * @param key what it is about: the id of a subscription, the name of an event
 */
export async function emitOperational<Name extends OperationalEvent>(
  client: Pick<pg.ClientBase, "query">,
  event: Name,
  key: string,
  data: OperationalData<Name>,
): Promise<void> {
  await callTrigger(client, { event, key, data });
}
