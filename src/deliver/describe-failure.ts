import { AncrageError } from "../errors.ts";
import type { Fault } from "./answer-parser.ts";
import type { FailureReason } from "./outcome.ts";

export interface Failure {
  readonly reason: FailureReason;
  /** For the receiver's owner: what happened, and what to mend. */
  readonly words: string;
}

type Describe = (host: string, error: CodedError) => string;

interface CodedError extends Error {
  readonly code?: unknown;
  /** `queryA` and the like, where c-ares failed. */
  readonly syscall?: unknown;
  /** Of `ERR_TLS_CERT_ALTNAME_INVALID`: the names that the certificate is for. */
  readonly cert?: { readonly subjectaltname?: string };
  /** When the certificate ended, where the connector saw it. */
  readonly certificateEndedAt?: string;
}

/**
 * What a socket, a resolver or TLS said, as a reason and in words. Decided on codes, never on message text: texts change with the
 * versions of Node and OpenSSL.
 *
 * @param origin where the request went, such as `https://example.com:8443`
 */
export function describeFailure(error: unknown, origin: string): Failure {
  const first = firstFailure(error);
  if (first instanceof AncrageError && first.code === "ANCRAGE_ADDRESS_REFUSED") return { reason: "blocked", words: first.message };
  const coded: CodedError = first;
  const code = typeof coded.code === "string" ? coded.code : "";
  const { host, hostname } = new URL(origin);
  // A resolver has codes of its own, and some that sockets have too.
  const isQuery = typeof coded.syscall === "string" && coded.syscall.startsWith("query");
  const known = isQuery ? (dnsByCode[code] ?? silentNameServer) : byCode[code];
  if (typeof known === "function") return { reason: "dns", words: known(hostname, coded) };
  if (known !== undefined) return { reason: known[0], words: known[1](host, coded) };
  if (/^(?:ERR_SSL_|ERR_TLS_|CERT_|ERR_OSSL_)/.test(code)) {
    return { reason: "tls", words: `no TLS connection with ${host} (${code}): check its certificate and its TLS settings` };
  }
  return { reason: "connection", words: `no request to ${host}: ${code === "" ? coded.message : code}` };
}

/** What is wrong with an answer, in words. */
export function describeFault({ reason, words }: Fault, origin: string): Failure {
  const { host } = new URL(origin);
  switch (reason) {
    case "protocol":
      return { reason, words: `the answer of ${host} is no HTTP/1.1: ${words}` };
    case "too-large":
      return { reason, words: `the headers of the answer of ${host} are longer than 16 KiB: send fewer` };
    case "reset":
      return { reason, words: `${host} ${words}: check the server, and what stands before it` };
    default:
      return reason satisfies never;
  }
}

/** Where several addresses were tried, the first one's failure speaks for all. */
export function firstFailure(error: unknown): Error {
  if (error instanceof AggregateError && error.errors.length > 0) return firstFailure(error.errors[0]);
  return error instanceof Error ? error : new Error(String(error));
}

const unreachable: Describe = (host, { code }) => `no way leads to ${host} (${String(code)}): check its address and its firewall`;
const silentNameServer: Describe = (host, { code }) =>
  `the name server of ${host} did not say its address (${String(code)}): check its DNS zone`;
const ended: Describe = (host, { code }) =>
  `${host} closed the connection before its answer was whole (${String(code)}): check the server, and what stands before it`;
const untrusted: Describe = (host, { code }) =>
  `the certificate of ${host} was issued by nobody who is trusted (${String(code)}): install one of a public authority, with its intermediate certificates`;
const selfSigned: Describe = (host) => `the certificate of ${host} is self-signed: install one of a public authority`;
const oldProtocol: Describe = (host, { code }) => `${host} does not speak TLS 1.2 or newer (${String(code)}): enable it there`;
const tooLate: Describe = (host) => `no connection to ${host} in time: check that the server runs and its firewall lets requests in`;

/** Of c-ares; all other codes of it mean that a name server did not say. */
const dnsByCode: Readonly<Record<string, Describe | undefined>> = {
  ENOTFOUND: (host) => `${host} does not exist (NXDOMAIN): check the name in the URL`,
  ENODATA: (host) => `${host} has no address (neither A nor AAAA record): check its DNS zone`,
  EBADNAME: (host) => `${host} is no name that DNS can hold: check the name in the URL`,
};

const byCode: Readonly<Record<string, readonly [FailureReason, Describe] | undefined>> = {
  ECONNREFUSED: ["refused", (host) => `nobody listens on ${host}: check that the server runs and the port in the URL`],
  EHOSTUNREACH: ["refused", unreachable],
  ENETUNREACH: ["refused", unreachable],
  EADDRNOTAVAIL: ["refused", unreachable],
  EHOSTDOWN: ["refused", unreachable],
  ETIMEDOUT: ["timeout", tooLate],
  ECONNRESET: ["reset", ended],
  EPIPE: ["reset", ended],
  ECONNABORTED: ["reset", ended],
  CERT_HAS_EXPIRED: [
    "tls",
    (host, { certificateEndedAt }) =>
      `the certificate of ${host} ${certificateEndedAt === undefined ? "has expired" : `expired on ${certificateEndedAt}`}: renew it`,
  ],
  CERT_NOT_YET_VALID: ["tls", (host) => `the certificate of ${host} is not valid yet: check the clock that it was made by`],
  CERT_REVOKED: ["tls", (host) => `the certificate of ${host} was revoked: install a new one`],
  ERR_TLS_CERT_ALTNAME_INVALID: [
    "tls",
    (host, { cert }) =>
      `the certificate of ${host} is for other names (${(cert?.subjectaltname ?? "none").slice(0, 200)}): install one for the name in the URL`,
  ],
  DEPTH_ZERO_SELF_SIGNED_CERT: ["tls", selfSigned],
  SELF_SIGNED_CERT_IN_CHAIN: ["tls", untrusted],
  UNABLE_TO_GET_ISSUER_CERT: ["tls", untrusted],
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: ["tls", untrusted],
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: ["tls", untrusted],
  CERT_UNTRUSTED: ["tls", untrusted],
  EPROTO: ["tls", (host) => `no TLS connection with ${host}: check that this port speaks TLS 1.2 or newer`],
  ERR_SSL_WRONG_VERSION_NUMBER: ["tls", (host) => `${host} does not speak TLS on this port: check the port, or the scheme of the URL`],
  ERR_SSL_PACKET_LENGTH_TOO_LONG: ["tls", (host) => `${host} does not speak TLS on this port: check the port, or the scheme of the URL`],
  ERR_SSL_UNSUPPORTED_PROTOCOL: ["tls", oldProtocol],
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: ["tls", oldProtocol],
  ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE: [
    "tls",
    (host) => `${host} and Ancrage have no cipher in common: enable those of TLS 1.2 or newer there`,
  ],
};
