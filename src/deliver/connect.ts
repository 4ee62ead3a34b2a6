import { Resolver } from "node:dns/promises";
import { isIP, type LookupFunction } from "node:net";
import { buildConnector } from "undici";
import type { Clock } from "../clock.ts";
import { AncrageError } from "../errors.ts";
import { createAddressPolicy, type AddressPolicy } from "./guard.ts";

export interface ConnectorOptions {
  /** Networks that are allowed although they are not public. */
  readonly allowNetworks: readonly string[];
  readonly clock: Clock;
  readonly timeoutMs?: number;
}

const addressesMs = 30_000;
const failureMs = 5_000;
const maxCachedNames = 10_000;

/**
 * THE outbound connector: every request of ours to a URL that somebody else gave goes through it.
 *
 * The check stands in the connector and not before it: a name is resolved once, all of its addresses are checked, and the socket
 * goes to one of those that were (no rebinding). Node never calls `lookup` for a literal, so literals are checked apart. [M: with
 * `lookup` alone 13 of 20 spellings of 127.0.0.1 reached a server on loopback.]
 */
export function createConnector(options: ConnectorOptions): buildConnector.connector {
  const policy = createAddressPolicy(options.allowNetworks);
  const resolve = createNameResolver(options.clock, policy);
  const lookup: LookupFunction = (hostname, lookupOptions, callback) => {
    resolve(hostname).then(
      (addresses) => {
        const found = addresses.map((address) => ({ address, family: isIP(address) }));
        if (lookupOptions.all === true) callback(null, found);
        else callback(null, found[0]?.address ?? "", found[0]?.family);
      },
      (error: NodeJS.ErrnoException) => callback(error, ""),
    );
  };
  const connect = buildConnector({ lookup, timeout: options.timeoutMs ?? 10_000, allowH2: false, maxCachedSessions: 1_000 });
  return (target, callback) => {
    const hostname = target.hostname.replace(/^\[|\]$/g, "");
    const refusal = isIP(hostname) === 0 ? undefined : policy.refusal(hostname);
    if (refusal !== undefined) {
      // Later, as a socket would: undici does not expect the answer within its call.
      setImmediate(() => callback(refused(refusal), null));
      return;
    }
    connect(target, callback);
  };
}

/**
 * Resolves through c-ares: `dns.lookup` shares four threads with all file access, so that one tenant's dead name server would delay
 * everybody.
 */
function createNameResolver(clock: Clock, policy: AddressPolicy): (hostname: string) => Promise<readonly string[]> {
  const resolver = new Resolver({ timeout: 2_000, tries: 2 });
  const cache = new Map<string, { readonly untilMs: number; readonly answer: Promise<readonly string[]> }>();
  const ask = async (hostname: string): Promise<readonly string[]> => {
    const addresses = await findAddresses(resolver, hostname);
    for (const address of addresses) {
      const refusal = policy.refusal(address);
      if (refusal !== undefined) throw refused(`${hostname} resolves to ${refusal}`);
    }
    return addresses;
  };
  return (hostname) => {
    const nowMs = clock.monotonicMs();
    const found = cache.get(hostname);
    if (found !== undefined && found.untilMs > nowMs) return found.answer;
    if (cache.size >= maxCachedNames) cache.clear();
    const answer = ask(hostname);
    cache.set(hostname, { untilMs: nowMs + addressesMs, answer });
    answer.catch(() => cache.set(hostname, { untilMs: nowMs + failureMs, answer }));
    return answer;
  };
}

async function findAddresses(resolver: Resolver, hostname: string): Promise<readonly string[]> {
  // Known without a name server (RFC 6761); c-ares does not read /etc/hosts.
  if (/^(?:.*\.)?localhost\.?$/.test(hostname)) return ["127.0.0.1", "::1"];
  const answers = await Promise.allSettled([resolver.resolve4(hostname), resolver.resolve6(hostname)]);
  const addresses = answers.flatMap((answer) => (answer.status === "fulfilled" ? answer.value : []));
  if (addresses.length > 0) return addresses;
  const [first] = answers;
  throw first?.status === "rejected"
    ? first.reason
    : Object.assign(new Error(`${hostname} has no address`), { code: "ENODATA", syscall: "queryA" });
}

function refused(why: string): AncrageError {
  return new AncrageError("ANCRAGE_ADDRESS_REFUSED", `${why}.`, {
    hint: "If this network is yours, allow it with --allow-network or ANCRAGE_ALLOW_NETWORKS.",
  });
}
