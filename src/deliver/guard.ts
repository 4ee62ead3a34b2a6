import ipaddr from "ipaddr.js";

/**
 * Which addresses a request may go to. Pure, on parsed bytes: string tests let `::ffff:7f00:1` or `0x7f.1` through.
 *
 * Public unicast only, in IPv6 inside 2000::/3 only; `ipaddr.js` knows the special ranges, all but Azure's wire server.
 */
export interface AddressPolicy {
  /** @returns why it is refused, in words; `undefined` where it is allowed */
  refusal(address: string): string | undefined;
}

const denied = [ipaddr.parseCIDR("168.63.129.16/32")];
/** Never opened by an operator's list: where clouds keep their credentials. */
const neverAllowed = [ipaddr.parseCIDR("169.254.0.0/16"), ipaddr.parseCIDR("fe80::/10"), ipaddr.parseCIDR("fd00:ec2::254/128")];
const globalUnicast = ipaddr.parseCIDR("2000::/3");

/** @param allowNetworks CIDR ranges that an operator opens, such as `10.20.0.0/16` */
export function createAddressPolicy(allowNetworks: readonly string[]): AddressPolicy {
  const allowed = allowNetworks.map((network) => ipaddr.parseCIDR(network));
  return {
    refusal(address) {
      let parsed: Address;
      try {
        parsed = ipaddr.process(address);
      } catch {
        return `${address} is no IP address`;
      }
      if (neverAllowed.some((range) => isIn(parsed, range))) return `${address} is link-local, which is never allowed`;
      if (allowed.some((range) => isIn(parsed, range))) return undefined;
      if (denied.some((range) => isIn(parsed, range))) return `${address} belongs to the cloud's own network`;
      const range = parsed.range();
      if (range !== "unicast") return `${address} is not public (${range})`;
      if (parsed.kind() === "ipv6" && !isIn(parsed, globalUnicast)) return `${address} is not public (unallocated)`;
      return undefined;
    },
  };
}

type Address = ipaddr.IPv4 | ipaddr.IPv6;

function isIn(address: Address, range: [Address, number]): boolean {
  return address.kind() === range[0].kind() && address.match(range);
}
