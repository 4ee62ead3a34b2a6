import { expect, test } from "vitest";
import { describeShortage } from "./describe-shortage.ts";

const coded = (code: string, more: object = {}): Error => Object.assign(new Error(`said ${code}`), { code, ...more });
const query = { syscall: "queryA" };

test.each([
  [coded("EMFILE"), "no file descriptor left (EMFILE)"],
  [coded("ENFILE"), "no file descriptor left (ENFILE)"],
  [coded("ENOBUFS"), "no memory left for sockets (ENOBUFS)"],
  [coded("EADDRNOTAVAIL", { address: "192.0.2.1" }), "no local port left (EADDRNOTAVAIL)"],
  [coded("ECONNREFUSED", query), "no name server of this machine answers"],
  [new AggregateError([coded("EMFILE"), coded("ECONNREFUSED")]), "(EMFILE)"],
])("%s is this machine's", (error, words) => {
  expect(describeShortage(error)).toContain(words);
});

test.each([
  coded("ECONNREFUSED"),
  coded("ETIMEDOUT"),
  coded("ESERVFAIL", query),
  coded("EREFUSED", query),
  coded("ENOTFOUND", query),
  // As a machine without IPv6 says it.
  coded("EADDRNOTAVAIL", { address: "2001:db8::1" }),
  new AggregateError([coded("ECONNREFUSED"), coded("EMFILE")]),
  new Error("whatever"),
  "a text",
])("%s is the receiver's", (error) => {
  expect(describeShortage(error)).toBeUndefined();
});
