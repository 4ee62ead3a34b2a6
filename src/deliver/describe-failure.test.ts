import { expect, test } from "vitest";
import { AncrageError } from "../errors.ts";
import { describeFailure } from "./describe-failure.ts";

const coded = (code: string, more: object = {}): Error => Object.assign(new Error(`said ${code}`), { code, ...more });
const query = { syscall: "queryA" };

test.each([
  [coded("ENOTFOUND", query), "dns", "example.com does not exist (NXDOMAIN): check the name in the URL"],
  [coded("ENODATA", query), "dns", "example.com has no address (neither A nor AAAA record): check its DNS zone"],
  [coded("ESERVFAIL", query), "dns", "the name server of example.com did not say its address (ESERVFAIL): check its DNS zone"],
  [coded("ETIMEOUT", query), "dns", "the name server of example.com did not say its address (ETIMEOUT): check its DNS zone"],
  [coded("ECONNREFUSED", query), "dns", "the name server of example.com did not say its address (ECONNREFUSED): check its DNS zone"],
  [coded("ECONNREFUSED"), "refused", "nobody listens on example.com:8443: check that the server runs and the port in the URL"],
  [coded("EHOSTUNREACH"), "refused", "no way leads to example.com:8443 (EHOSTUNREACH): check its address and its firewall"],
  [coded("ENETUNREACH"), "refused", "no way leads to example.com:8443 (ENETUNREACH): check its address and its firewall"],
  [
    coded("ETIMEDOUT"),
    "timeout",
    "no connection to example.com:8443 in time: check that the server runs and its firewall lets requests in",
  ],
  [coded("CERT_HAS_EXPIRED"), "tls", "the certificate of example.com:8443 has expired: renew it"],
  [
    coded("CERT_HAS_EXPIRED", { certificateEndedAt: "2026-03-01" }),
    "tls",
    "the certificate of example.com:8443 expired on 2026-03-01: renew it",
  ],
  [
    coded("ERR_TLS_CERT_ALTNAME_INVALID", { cert: { subjectaltname: "DNS:other.example" } }),
    "tls",
    "the certificate of example.com:8443 is for other names (DNS:other.example): install one for the name in the URL",
  ],
  [coded("DEPTH_ZERO_SELF_SIGNED_CERT"), "tls", "the certificate of example.com:8443 is self-signed: install one of a public authority"],
  [coded("EPROTO"), "tls", "no TLS connection with example.com:8443: check that this port speaks TLS 1.2 or newer"],
  [
    coded("ERR_SSL_NO_SUCH_CODE"),
    "tls",
    "no TLS connection with example.com:8443 (ERR_SSL_NO_SUCH_CODE): check its certificate and its TLS settings",
  ],
  [
    coded("ECONNRESET"),
    "reset",
    "example.com:8443 closed the connection before its answer was whole (ECONNRESET): check the server, and what stands before it",
  ],
  [coded("EMFILE"), "connection", "no request to example.com:8443: EMFILE"],
  [new Error("whatever"), "connection", "no request to example.com:8443: whatever"],
  ["a text", "connection", "no request to example.com:8443: a text"],
  [new AncrageError("ANCRAGE_ADDRESS_REFUSED", "10.0.0.1 is not public (private)."), "blocked", "10.0.0.1 is not public (private)."],
])("%s", (error, reason, words) => {
  expect(describeFailure(error, "https://example.com:8443")).toEqual({ reason, words });
});

test("of several addresses the first one's failure is told", () => {
  const error = new AggregateError([coded("ECONNREFUSED"), coded("ENETUNREACH")]);
  expect(describeFailure(error, "https://example.com")).toMatchObject({ reason: "refused" });
  expect(describeFailure(new AggregateError([]), "https://example.com")).toMatchObject({ reason: "connection" });
});
