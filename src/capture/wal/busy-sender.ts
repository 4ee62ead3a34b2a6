import { askWithin, connectClient, endClient } from "../../store/database.ts";
import { isWalSenderBusy } from "../../store/wal-sender.ts";

interface SilentSender {
  /** Of the role that reads the log: another one may not be shown what its session does. */
  readonly connectionString: string;
  readonly pid: number;
  readonly withinMs: number;
}

/** Asks by another session whether the walsender that is silent is at work; one of which nothing is heard there either is not. */
export async function isSenderBusy({ connectionString, pid, withinMs }: SilentSender): Promise<boolean> {
  try {
    const client = await connectClient({ connectionString, applicationName: "ancrage liveness", connectTimeoutMs: withinMs });
    try {
      return await askWithin(client, withinMs, (session) => isWalSenderBusy(session, pid));
    } finally {
      await endClient(client);
    }
  } catch {
    return false;
  }
}
