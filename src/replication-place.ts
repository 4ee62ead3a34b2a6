import { AncrageError } from "./errors.ts";
import { connectClient, endClient, type Queryable } from "./store/database.ts";
import { type Place, readPlace } from "./store/place.ts";

/**
 * Refuses a `replicationUrl` that leads elsewhere than `database`: a slot would be made, or dropped, on a server that nobody meant, and a
 * log be read that has nothing to do with the journal.
 *
 * @throws AncrageError `ANCRAGE_OPTION_INVALID`
 */
export async function refuseElsewhere(owner: Queryable, replication: Queryable): Promise<void> {
  const error = await findElsewhere(owner, replication);
  if (error !== undefined) throw error;
}

/** The same, for a `replicationUrl` that nobody is connected to yet. */
export async function refuseUrlElsewhere(owner: Queryable, replicationUrl: string): Promise<void> {
  const replication = await connectClient({ connectionString: replicationUrl, applicationName: "ancrage slot" });
  try {
    await refuseElsewhere(owner, replication);
  } finally {
    await endClient(replication);
  }
}

/** @returns what is wrong, or `undefined` where both sessions are in one database of one server */
export async function findElsewhere(owner: Queryable, replication: Queryable): Promise<AncrageError | undefined> {
  const before = await readPlace(owner);
  const there = await readPlace(replication);
  if (isSame(before, there)) return undefined;
  // The pool's session may have been of a server that was just restarted, or failed over.
  const here = await readPlace(owner);
  if (isSame(here, there)) return undefined;
  return new AncrageError(
    "ANCRAGE_OPTION_INVALID",
    `options.replicationUrl: expected the server and the database of options.database (${describe(here)}), got ${describe(there)}`,
    {
      hint: "Let ANCRAGE_REPLICATION_URL name the database of DATABASE_URL, without a pooler between. Leave it out where DATABASE_URL has none, and its role may replicate.",
    },
  );
}

const isSame = (one: Place, other: Place): boolean => one.database === other.database && one.startedAtS === other.startedAtS;

const describe = ({ database, startedAtS }: Place): string =>
  `"${database}" of the server that was started at ${new Date(Number(startedAtS) * 1000).toISOString()}`;
