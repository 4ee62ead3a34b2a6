import { relative } from "node:path";

export interface Welcome {
  readonly folder: string;
  readonly workingFolder: string;
  readonly url: string;
  readonly token: string;
  readonly database: string;
  readonly events: readonly string[];
}

/** What `dev` says once it is ready: all that a newcomer needs for the first delivery, ready to be copied. */
export function formatWelcome({ folder, workingFolder, url, token, database, events }: Welcome): string {
  const shownFolder = showFolder(workingFolder, folder);
  const event = events[0] ?? "YourEvent";
  const receiver = `${url}/_dev/receiver/demo`;
  return `
Ancrage is ready: ${shownFolder}

  API       ${url}
  token     ${token}
  database  psql ${database}
  events    ${events.length === 0 ? `none yet: write ${shownFolder}/events/YourEvent.ts` : events.join(", ")}
  receiver  ${receiver}   (POST is kept, GET shows)

Subscribe a URL, here the built-in receiver:

  curl -X POST ${url}/v1/subscriptions \\
    -H 'authorization: Bearer ${token}' -H 'content-type: application/json' \\
    -d '{"event":"${event}","url":"${receiver}"}'

Then change a record in psql, or make it happen: ancrage trigger ${event} <key>
`;
}

/** As one would write it from here; climbing out of here reads worse than the whole path. */
function showFolder(workingFolder: string, folder: string): string {
  const path = relative(workingFolder, folder);
  return path.startsWith("..") ? folder : path || ".";
}
