import { expect, test } from "vitest";
import { formatMessage, type Format } from "./format.ts";

const message = { id: "msg_1", event: "deal.won", key: 'a"b', committedAtUs: 1_698_710_400_123_456n, body: Buffer.from('{"name":"Été"}') };
const parse = (format: Format): unknown => JSON.parse(formatMessage(format, message).toString("utf8"));

test("each format puts its envelope around the same payload", () => {
  const data = { name: "Été" };
  expect(parse("standard")).toEqual({ id: "msg_1", type: "deal.won", timestamp: "2023-10-31T00:00:00.123Z", data });
  expect(parse("result")).toEqual({ result: data });
  expect(parse("bare")).toEqual(data);
  expect(parse("cloudevents")).toEqual({
    specversion: "1.0",
    id: "msg_1",
    source: "urn:ancrage",
    type: "deal.won",
    subject: 'a"b',
    time: "2023-10-31T00:00:00.123Z",
    datacontenttype: "application/json",
    data,
  });
});

test("the same message gives the same bytes", () => {
  expect(formatMessage("standard", message).equals(formatMessage("standard", message))).toBe(true);
});
