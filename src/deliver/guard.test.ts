import { expect, test } from "vitest";
import { createAddressPolicy } from "./guard.ts";

const policy = createAddressPolicy([]);

test.each([
  "0.0.0.0",
  "10.0.0.1",
  "100.64.0.1",
  "127.0.0.1",
  "127.255.255.254",
  "169.254.169.254",
  "172.16.0.1",
  "172.31.255.255",
  "192.0.0.1",
  "192.0.2.1",
  "192.88.99.1",
  "192.168.1.1",
  "198.18.0.1",
  "198.51.100.1",
  "203.0.113.1",
  "224.0.0.1",
  "240.0.0.1",
  "255.255.255.255",
  "168.63.129.16",
  "::",
  "::1",
  "::127.0.0.1",
  "::ffff:127.0.0.1",
  "::ffff:7f00:1",
  "::ffff:a9fe:a9fe",
  "::ffff:0:127.0.0.1",
  "64:ff9b::7f00:1",
  "64:ff9b:1::1",
  "100::1",
  "100:0:0:1::1",
  "2001::1",
  "2001:db8::1",
  "2002:7f00:1::",
  "3fff::1",
  "5f00::1",
  "fc00::1",
  "fd00:ec2::254",
  "fe80::1",
  "fec0::1",
  "ff02::1",
  "not an address",
  "",
])("%s is refused", (address) => {
  expect(policy.refusal(address)).toEqual(expect.any(String));
});

test.each(["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700:4700::1111", "2a00:1450:4007:80c::200e", "::ffff:1.1.1.1"])(
  "%s is public",
  (address) => {
    expect(policy.refusal(address)).toBeUndefined();
  },
);

test("an operator opens a network, and no more than that", () => {
  const open = createAddressPolicy(["10.20.0.0/16", "127.0.0.0/8", "::1/128"]);
  expect(open.refusal("10.20.3.4")).toBeUndefined();
  expect(open.refusal("127.0.0.1")).toBeUndefined();
  expect(open.refusal("::ffff:127.0.0.1")).toBeUndefined();
  expect(open.refusal("::1")).toBeUndefined();
  expect(open.refusal("10.21.0.1")).toContain("not public");
});

test("link-local stays shut whatever an operator opens", () => {
  const open = createAddressPolicy(["0.0.0.0/0", "::/0"]);
  expect(open.refusal("169.254.169.254")).toContain("never allowed");
  expect(open.refusal("fe80::1")).toContain("never allowed");
  expect(open.refusal("fd00:ec2::254")).toContain("never allowed");
});
