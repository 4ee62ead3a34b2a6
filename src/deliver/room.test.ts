import { setTimeout as after } from "node:timers/promises";
import { expect, test } from "vitest";
import { Room } from "./room.ts";

test("a process with time to spare waits for nobody, however full the lane of a receiver that hangs", async () => {
  const room = new Room();
  await after(50);
  let isLater = false;
  setImmediate(() => (isLater = true));
  await room.wait(() => true);
  expect(isLater).toBe(false);
});

test("a busy one waits until there is room, or it has time to spare", async () => {
  let looks = 0;
  await new Room(() => 0.95).wait(() => ++looks < 4);
  expect(looks).toBe(4);
  const busy = [0.95, 0.9, 0.1];
  await new Room(() => busy.shift() ?? Number.NaN).wait(() => true);
  expect(busy).toEqual([]);
});
