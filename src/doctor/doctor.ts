import type pg from "pg";
import { readCapturePlan, readOutboxPlan, refuseCopy } from "../capture/check.ts";
import { computeHealth, formatBytes, formatDuration, healthProblems } from "../capture/health.ts";
import { describeGap, LossError } from "../capture/loss.ts";
import { captureNames, sourceIdOf } from "../capture/wal/slot.ts";
import type { Clock } from "../clock.ts";
import { AncrageError } from "../errors.ts";
import { buildCatalogue, type Catalogue } from "../event/catalogue.ts";
import { discover } from "../event/discover.ts";
import { migrate } from "../migrate.ts";
import type { CheckedOptions } from "../options.ts";
import { readResume } from "../read-resume.ts";
import { findElsewhere } from "../replication-place.ts";
import { readLastBatch } from "../store/batches.ts";
import { readServerIdentity, readSlot, type ServerIdentity } from "../store/capture-state.ts";
import { connectClient } from "../store/database.ts";
import { readDeniedOfOurs, readRole, readServerSettings, readTableRights, readUsage, type RoleRow } from "../store/doctor.ts";
import { readJournalEnd, readOpenGaps } from "../store/gaps.ts";
import { pendingMigrations } from "../store/migrate.ts";
import { readSettings, type SettingsRow } from "../store/settings.ts";
import { readSlotFacts } from "../store/slot-facts.ts";
import { readTables } from "../store/tables.ts";
import { fault, fine, type Finding } from "./finding.ts";
import { judgeRoles, judgeServer, settingNames } from "./judge-server.ts";
import { judgeOurs, judgePlan, judgeTables, tablesOf } from "./judge-tables.ts";
import { isRefusalOfPooler, recognisePooler } from "./pooler.ts";

export interface DoctorRun {
  readonly options: CheckedOptions & { readonly database: string };
  /** As the user wrote it; undefined: without definitions, so that only the server and the roles are looked at. */
  readonly folder: string | undefined;
  readonly clock: Clock;
}

/**
 * Looks at everything that capture needs, and changes nothing.
 *
 * @throws AncrageError `ANCRAGE_DEFINITION_INVALID`
 */
export async function examine(run: DoctorRun): Promise<readonly Finding[]> {
  const { options } = run;
  const urls = [options.database, ...(options.replicationUrl === undefined ? [] : [options.replicationUrl])];
  const poolers = urls.flatMap(judgeUrl);
  const connected = await connect(options.database);
  if (!("client" in connected)) return [...poolers, connected];
  const { client } = connected;
  try {
    const replication =
      options.replicationUrl === undefined ? await readRole(client) : await readReplicationRole(client, options.replicationUrl);
    const found = "check" in replication ? [replication] : [];
    const role = "check" in replication ? await readRole(client) : replication;
    return [...poolers, ...found, ...(await examineDatabase(client, run, role)), ...judgeSecrets(options)];
  } finally {
    await client.end();
  }
}

/** Does what `--fix` may: what `ancrage migrate` does. Everything else is for whoever owns the server. */
export async function fix(findings: readonly Finding[], run: DoctorRun, onStep: (step: string) => void): Promise<void> {
  if (findings.some(({ isFixable }) => isFixable)) await migrate(run.options, { onStep });
}

function judgeUrl(connectionString: string): readonly Finding[] {
  const pooler = recognisePooler(connectionString);
  if (pooler === undefined) return [];
  const what = `the URL names ${pooler.name}: sessions are shared there, and the log cannot be read through it.`;
  return [fault("error", "pooler", what, pooler.instead)];
}

/** What `start` takes beside the database, and nobody who comes new has yet. */
function judgeSecrets({ token, secretKey }: CheckedOptions): readonly Finding[] {
  const lacks = [
    ...(token === undefined ? ["export ANCRAGE_TOKEN=$(openssl rand -hex 32)   # what calls the API"] : []),
    ...(secretKey === undefined
      ? ["export ANCRAGE_SECRET_KEY=$(openssl rand -base64 32)   # keep it: it opens the subscriptions' secrets"]
      : []),
  ];
  if (lacks.length === 0) return [];
  return [fault("warning", "secrets", "`ancrage start` needs a token and a key, and this shell has not both.", ...lacks)];
}

async function connect(connectionString: string): Promise<{ readonly client: pg.Client } | Finding> {
  try {
    return { client: await connectClient({ connectionString, applicationName: "ancrage doctor" }) };
  } catch (error) {
    if (!(error instanceof AncrageError)) throw error;
    const isPooler = isRefusalOfPooler(error.message);
    return fault(
      "error",
      isPooler ? "pooler" : "connection",
      error.message,
      isPooler ? "This is a pooler: let the URL name PostgreSQL itself." : (error.hint ?? ""),
    );
  }
}

async function readReplicationRole(owner: pg.Client, connectionString: string): Promise<RoleRow | Finding> {
  const connected = await connect(connectionString);
  if (!("client" in connected)) return { ...connected, message: `ANCRAGE_REPLICATION_URL: ${connected.message}` };
  try {
    const elsewhere = await findElsewhere(owner, connected.client);
    if (elsewhere !== undefined) return fault("error", "replication-url", elsewhere.message, elsewhere.hint ?? "");
    return await readRole(connected.client);
  } finally {
    await connected.client.end();
  }
}

async function examineDatabase(client: pg.Client, run: DoctorRun, replication: RoleRow): Promise<readonly Finding[]> {
  const server = await readServerIdentity(client);
  const role = await readRole(client);
  const names = captureNames(server.databaseOid);
  const slot = await readSlot(client, names.slot);
  const denied = await readDeniedOfOurs(client);
  const command = `ancrage migrate ${run.folder ?? "FOLDER"}`;
  const findings = [
    ...judgeServer({
      server,
      settings: await readServerSettings(client, settingNames),
      usage: await readUsage(client),
      hasSlot: slot !== undefined,
      isSlotRead: (slot?.activePid ?? null) !== null,
      capture: run.options.capture,
      nowS: run.clock.nowMs() / 1000,
    }),
    ...judgeRoles({ role, database: server.databaseName, replication, capture: run.options.capture }, denied !== undefined),
    ...judgeOurs(denied, role.name, command),
  ];
  // What the server refuses makes the rest moot; and what the role may not read cannot be told.
  if (server.version < 150_000 || server.isReplica || server.encoding === "SQL_ASCII") return findings;
  const isReadable = denied?.length === 0;
  const settings = isReadable ? await readSettings(client) : undefined;
  if (settings !== undefined) {
    const copy = judgeCopy(settings, server, run.options.environment);
    findings.push(copy);
    // What it lacks is for its adoption to make: a migration refuses before it.
    if (copy.severity === "error") return findings;
  }
  const catalogue = run.folder === undefined ? undefined : await readCatalogue(client, run);
  if (catalogue !== undefined) {
    const rights = await readTableRights(
      client,
      tablesOf(catalogue).map(({ oid }) => oid),
    );
    findings.push(...judgeTables({ catalogue, rights, role }));
    const pending = denied === undefined ? 1 : isReadable ? (await pendingMigrations(client)).length : 0;
    findings.push(...(await planFindings(client, catalogue, { server, pending, command, capture: run.options.capture })));
  } else if (denied === undefined) {
    findings.push({ ...fault("error", "schema", 'the schema "ancrage" is not there.', command) });
  }
  if (settings !== undefined) findings.push(...(await examineCapture(client, run, server, settings)));
  return findings;
}

async function readCatalogue(client: pg.Client, { options }: DoctorRun): Promise<Catalogue> {
  return buildCatalogue({ ...(await discover(options.events ?? ".")), tables: await readTables(client), config: options });
}

async function planFindings(
  client: pg.Client,
  catalogue: Catalogue,
  on: { readonly server: ServerIdentity; readonly pending: number; readonly command: string; readonly capture: "wal" | "outbox" },
): Promise<readonly Finding[]> {
  const { server, pending, command, capture } = on;
  try {
    // Its functions are made with the schema: without that all of it is to be made, and nothing can be compared.
    if (capture === "outbox") return judgePlan(pending > 0 ? [] : await readOutboxPlan(client, catalogue), pending, command);
    return judgePlan(await readCapturePlan(client, catalogue, captureNames(server.databaseOid)), pending, command);
  } catch (error) {
    if (!(error instanceof AncrageError)) throw error;
    return [fault("error", "plan", error.message, error.hint ?? "")];
  }
}

function judgeCopy(settings: SettingsRow, server: ServerIdentity, environment: string): Finding {
  try {
    refuseCopy(settings, server, environment);
    return fine("copy", `this database is its own, of the environment "${settings.environment}"`);
  } catch (error) {
    if (!(error instanceof AncrageError)) throw error;
    return fault("error", "copy", error.message, error.hint ?? "");
  }
}

/** Where capture stands, and what it has missed. */
async function examineCapture(
  client: pg.Client,
  { options, clock }: DoctorRun,
  server: ServerIdentity,
  settings: SettingsRow,
): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  const { slot: slotName } = captureNames(server.databaseOid);
  const sourceId = sourceIdOf({ ...server, generation: settings.generation });
  const journal = await readJournalEnd(client, sourceId);
  const slot = await readSlot(client, slotName);
  const isLeft = options.capture === "outbox" && (await readLastBatch(client, sourceId))?.cursor === undefined && slot !== undefined;
  if (isLeft || (options.capture === "wal" && (slot !== undefined || journal !== undefined))) {
    const resume = await readResume(client, { sourceId, slotName, slot, server, settings });
    if (resume.kind === "lost") {
      const error = new LossError({ ...resume, isLeft });
      findings.push(fault("error", "slot", error.message, error.hint ?? ""));
    } else findings.push(...(await examineHealth(client, slotName, clock)));
  }
  if (options.capture === "outbox" && settings.capture === "outbox") findings.push(...(await examineOutbox(client, clock)));
  for (const gap of await readOpenGaps(client)) {
    findings.push(fault("warning", "gap", describeGap(gap), `ancrage gaps resolve ${gap.id}   -- once what was missed is dealt with`));
  }
  return findings;
}

async function examineOutbox(client: pg.Client, clock: Clock): Promise<readonly Finding[]> {
  const health = computeHealth([await readSlotFacts(client, undefined, clock.monotonicMs())]);
  if (health === undefined) return [];
  return [
    fine("outbox", `the outbox takes ${formatBytes(health.outboxBytes ?? 0)}`),
    ...healthProblems(health).map(({ code, message, hint }) => fault("warning", code, message, hint)),
  ];
}

async function examineHealth(client: pg.Client, slotName: string, clock: Clock): Promise<readonly Finding[]> {
  const health = computeHealth([await readSlotFacts(client, slotName, clock.monotonicMs())]);
  if (health === undefined) return [];
  const read = health.isActive ? "a process reads it" : "nobody reads it now";
  // How fast that goes takes a process that looks more than once: `slot_seconds_left` of its metrics.
  const left = health.safeBytes === undefined ? "" : `; after ${formatBytes(health.safeBytes)} more of it the slot is given up`;
  const old = health.oldestTransaction;
  return [
    fine("slot", `${read}; ${formatBytes(health.lagBytes)} are not journaled, ${formatBytes(health.keptBytes)} of the log are kept${left}`),
    ...(old === undefined ? [] : [fine("oldest-transaction", `${old.who} is the oldest that is open: for ${formatDuration(old.ageS)}`)]),
    ...healthProblems(health).map(({ code, message, hint }) => fault("warning", code, message, hint)),
  ];
}
