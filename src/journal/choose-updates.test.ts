import { expect, test } from "vitest";
import type { DeliveryUpdate } from "../message.ts";
import { chooseUpdates } from "./choose-updates.ts";

const update = (messageId: string, state: "pending" | "delivered", hasRow = false): DeliveryUpdate =>
  ({
    row: { messageId, subscriptionId: "sub", state, round: 1, attempts: state === "pending" ? 0 : 1 },
    from: hasRow ? { state: "pending", attempts: 0 } : undefined,
  }) as DeliveryUpdate;
const idsOf = (updates: readonly DeliveryUpdate[]): readonly string[] => updates.map(({ row }) => `${row.messageId} ${row.state}`);

test("all outcomes go, however many; first rows only while there is room", () => {
  const updates = [
    update("a", "pending"),
    update("b", "pending"),
    update("c", "delivered"),
    update("d", "delivered"),
    update("e", "delivered"),
  ];
  const few = chooseUpdates(updates, 4);
  expect(idsOf(few.taken)).toEqual(["a pending", "c delivered", "d delivered", "e delivered"]);
  expect(idsOf(few.left)).toEqual(["b pending"]);
  expect(idsOf(chooseUpdates(updates, 1).taken)).toEqual(["c delivered", "d delivered", "e delivered"]);
});

test("a first row goes before what came of it, in the same batch", () => {
  const { taken, left } = chooseUpdates([update("a", "pending"), update("b", "pending"), update("b", "delivered", true)], 0);
  expect(idsOf(taken)).toEqual(["b pending", "b delivered"]);
  expect(idsOf(left)).toEqual(["a pending"]);
});
