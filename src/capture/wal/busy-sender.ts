import { askWithin, connectClient, endClient } from "../../store/database.ts";
import { isWalSenderBusy } from "../../store/wal-sender.ts";

interface SilentSender {
  /** Of the role that reads the log: another one may not be shown what its session does. */
  readonly connectionString: string;
  readonly pid: number;
  readonly withinMs: number;
}

/** `unknown`: the question had no answer, which says nothing of the walsender. */
export type SenderWork = "busy" | "waiting" | "unknown";

/** Asks by another session whether the walsender that is silent is at work; one that is gone counts as waiting. */
export async function askSenderWork({ connectionString, pid, withinMs }: SilentSender): Promise<SenderWork> {
  try {
    const client = await connectClient({ connectionString, applicationName: "ancrage liveness", connectTimeoutMs: withinMs });
    try {
      return (await askWithin(client, withinMs, (session) => isWalSenderBusy(session, pid))) ? "busy" : "waiting";
    } finally {
      await endClient(client);
    }
  } catch {
    return "unknown";
  }
}
