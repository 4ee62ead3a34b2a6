import { connect as connectTcp, isIP, type LookupFunction, type OnReadOpts, type Socket } from "node:net";
import { connect as connectTls, createSecureContext, type TLSSocket } from "node:tls";
import type { Clock } from "../clock.ts";
import { createAddressPolicy } from "./guard.ts";
import { createNameResolver, refuseAddress, type NameServers } from "./resolve-name.ts";

export interface ConnectorOptions extends NameServers {
  /** Networks that are allowed although they are not public. */
  readonly allowNetworks: readonly string[];
  readonly clock: Clock;
  /** Certificates of authorities, in PEM, that are trusted instead of the public ones. */
  readonly certificateAuthorities?: string | undefined;
}

export interface Target {
  readonly isTls: boolean;
  /** A name, or an address without brackets. */
  readonly hostname: string;
  readonly port: number;
}

export interface SocketEvents {
  readonly onread: OnReadOpts;
  /** The socket may be written to: it leads to an address that was checked, and to the name's own server where TLS proves that. */
  onOpen(): void;
  /** It never opened, or broke; at most once. */
  onError(error: Error): void;
}

/** Opens a socket; throws `ANCRAGE_ADDRESS_REFUSED` where the target is an address that is not allowed. */
export type Connector = (target: Target, events: SocketEvents) => Socket;

const maxSessions = 1_000;
/** Until the next address of a name is tried. Node's 250 ms give up a server on the other side of the world. */
const nextAddressMs = 2_500;

/**
 * THE outbound connector: every request of ours to a URL that somebody else gave goes through it.
 *
 * The check stands in the connector and not before it: a name is resolved once, all of its addresses are checked, and the socket
 * goes to one of those that were (no rebinding). Node never calls `lookup` for a literal, so literals are checked apart. [M: with
 * `lookup` alone 13 of 20 spellings of 127.0.0.1 reached a server on loopback.]
 */
export function createConnector(options: ConnectorOptions): Connector {
  const policy = createAddressPolicy(options.allowNetworks);
  const resolve = createNameResolver(options.clock, policy, options);
  // Made once: each would read all authorities anew.
  const secureContext = createSecureContext({ ca: options.certificateAuthorities, minVersion: "TLSv1.2" });
  const sessions = createSessions();

  const lookup: LookupFunction = (hostname, { all }, callback) => {
    resolve(hostname).then(
      (addresses) => {
        const found = addresses.map((address) => ({ address, family: isIP(address) }));
        if (all === true) callback(null, found);
        else callback(null, found[0]?.address ?? "", found[0]?.family);
      },
      (error: NodeJS.ErrnoException) => callback(error, ""),
    );
  };

  return ({ isTls, hostname, port }, { onread, onOpen, onError }) => {
    const isName = isIP(hostname) === 0;
    const refusal = isName ? undefined : policy.refusal(hostname);
    if (refusal !== undefined) throw refuseAddress(refusal);
    const to = { host: hostname, port, lookup, onread, autoSelectFamilyAttemptTimeout: nextAddressMs };
    const key = `${hostname}:${port}`;
    const socket = isTls
      ? connectTls({
          ...to,
          secureContext,
          servername: isName ? hostname : "",
          ALPNProtocols: ["http/1.1"],
          session: sessions.get(key),
          // Said, so that NODE_TLS_REJECT_UNAUTHORIZED=0 in the environment changes nothing.
          rejectUnauthorized: true,
        })
      : connectTcp(to);
    socket.setNoDelay(true);
    const end = isTls ? watchTls(socket as TLSSocket, (session) => sessions.set(key, session)) : undefined;
    socket.once(isTls ? "secureConnect" : "connect", () => {
      // Once more, of the address that it was in the end: whatever chose it, nothing is written to one that is not allowed.
      const wrong = policy.refusal(socket.remoteAddress ?? "");
      if (wrong === undefined) onOpen();
      else socket.destroy(refuseAddress(wrong));
    });
    socket.on("error", (error) => {
      sessions.delete(key);
      onError(Object.assign(error, { certificateEndedAt: end?.() }));
    });
    return socket;
  };
}

/** @returns when the receiver's certificate ends, `2026-03-01`, once it was seen */
function watchTls(socket: TLSSocket, onSession: (session: Buffer) => void): () => string | undefined {
  let endedAt: string | undefined;
  socket.on("session", onSession);
  // Node judges the certificate in its own listener of this event, and an expired one is gone with its socket after that. Should a
  // version of Node not emit it, the words lack a date and nothing else. (Not `getPeerX509Certificate`: on Node 24 the judge then
  // finds a certificate without names and refuses all.)
  socket.prependListener("secure", () => {
    const validTo = Date.parse(socket.getPeerCertificate().valid_to);
    if (validTo < Date.now()) endedAt = new Date(validTo).toISOString().slice(0, 10);
  });
  return () => endedAt;
}

interface Sessions {
  get(key: string): Buffer | undefined;
  set(key: string, session: Buffer): void;
  delete(key: string): void;
}

/** TLS sessions to take up again: a handshake without them costs both sides a signature. The oldest goes first. */
function createSessions(): Sessions {
  const byKey = new Map<string, Buffer>();
  return {
    get: (key) => byKey.get(key),
    set(key, session) {
      byKey.delete(key);
      byKey.set(key, session);
      const [oldest] = byKey.keys();
      if (byKey.size > maxSessions && oldest !== undefined) byKey.delete(oldest);
    },
    delete: (key) => void byKey.delete(key),
  };
}
