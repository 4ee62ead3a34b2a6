import { isIPv6 } from "node:net";
import { firstFailure } from "./describe-failure.ts";

interface SocketError extends Error {
  readonly code?: unknown;
  readonly syscall?: unknown;
  /** Where it was to connect to. */
  readonly address?: unknown;
}

/**
 * What this machine lacked when it could not connect, in words for whoever runs it; undefined where the failure is the receiver's.
 *
 * Nothing was sent and the receiver knows nothing of it, so it is no attempt: descriptors that run out would else open the breaker of
 * every receiver, and after days disable them all.
 */
export function describeShortage(error: unknown): string | undefined {
  const { code, syscall, address }: SocketError = firstFailure(error);
  // c-ares says this where it reached none of the machine's own name servers; a zone's server that refuses says EREFUSED.
  if (typeof syscall === "string" && syscall.startsWith("query")) return code === "ECONNREFUSED" ? noNameServer : undefined;
  // An IPv6 address that a machine without IPv6 cannot reach is told with the same code, and waiting does not mend that.
  if (code === "EADDRNOTAVAIL") return typeof address === "string" && isIPv6(address) ? undefined : noPort;
  return typeof code === "string" ? words[code] : undefined;
}

const noNameServer =
  "no name server of this machine answers (ECONNREFUSED): check /etc/resolv.conf, that its name servers run, and that descriptors are left (ulimit -n)";
const noPort = "this machine has no local port left (EADDRNOTAVAIL): widen net.ipv4.ip_local_port_range, or add addresses to it";
const noMemory = "the kernel has no memory left for sockets";

const words: Readonly<Record<string, string | undefined>> = {
  EMFILE: "this process has no file descriptor left (EMFILE): raise its limit (ulimit -n, LimitNOFILE= of systemd)",
  ENFILE: "this machine has no file descriptor left (ENFILE): raise fs.file-max",
  ENOBUFS: `${noMemory} (ENOBUFS): raise net.ipv4.tcp_mem, or free some`,
  ENOMEM: `${noMemory} (ENOMEM): free some`,
};
