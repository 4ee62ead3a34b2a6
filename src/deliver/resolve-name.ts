import { Resolver } from "node:dns/promises";
import type { Clock } from "../clock.ts";
import { AncrageError } from "../errors.ts";
import type { AddressPolicy } from "./guard.ts";

export interface NameServers {
  /** Instead of the system's, such as `["127.0.0.1:5353"]`. */
  readonly dnsServers?: readonly string[] | undefined;
  /** Milliseconds that one question may take; there are two tries. @default 2000 */
  readonly dnsTimeoutMs?: number | undefined;
}

/** Resolves a name to addresses that were all checked. */
export type NameResolver = (hostname: string) => Promise<readonly string[]>;

const addressesMs = 30_000;
const failureMs = 5_000;
const maxCachedNames = 10_000;

/**
 * Resolves through c-ares: `dns.lookup` shares four threads with all file access, so that one tenant's dead name server would delay
 * everybody. One address that is not allowed refuses the name: which of its addresses a socket takes is chance.
 */
export function createNameResolver(clock: Clock, policy: AddressPolicy, servers: NameServers): NameResolver {
  const resolver = new Resolver({ timeout: servers.dnsTimeoutMs ?? 2_000, tries: 2 });
  if (servers.dnsServers !== undefined) resolver.setServers(servers.dnsServers);
  const cache = new Map<string, { readonly untilMs: number; readonly answer: Promise<readonly string[]> }>();
  const ask = async (hostname: string): Promise<readonly string[]> => {
    const addresses = await findAddresses(resolver, hostname);
    for (const address of addresses) {
      const refusal = policy.refusal(address);
      if (refusal !== undefined) throw refuseAddress(`${hostname} resolves to ${refusal}`);
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

export function refuseAddress(why: string): AncrageError {
  return new AncrageError("ANCRAGE_ADDRESS_REFUSED", `${why}.`, {
    hint: "If this network is yours, allow it with --allow-network or ANCRAGE_ALLOW_NETWORKS.",
  });
}

async function findAddresses(resolver: Resolver, hostname: string): Promise<readonly string[]> {
  // Known without a name server (RFC 6761); c-ares does not read /etc/hosts.
  if (/^(?:.*\.)?localhost\.?$/.test(hostname)) return ["127.0.0.1", "::1"];
  const answers = await Promise.allSettled([resolver.resolve4(hostname), resolver.resolve6(hostname)]);
  const addresses = answers.flatMap((answer) => (answer.status === "fulfilled" ? answer.value : []));
  if (addresses.length > 0) return addresses;
  // The name server's silence about one kind says more than that there is none of the other.
  const failures = answers.flatMap((answer) => (answer.status === "rejected" ? [answer.reason as NodeJS.ErrnoException] : []));
  throw failures.find(({ code }) => code !== "ENODATA") ?? noAddress(hostname);
}

/** As c-ares says it, for the case that it said nothing. */
function noAddress(hostname: string): Error {
  return Object.assign(new Error(`${hostname} has no address`), { code: "ENODATA", syscall: "queryA" });
}
