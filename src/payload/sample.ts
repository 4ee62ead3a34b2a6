import type { Row } from "../capture/change.ts";
import { AncrageError, sqlStateOf } from "../errors.ts";
import type { CatalogueEvent } from "../event/catalogue.ts";
import { askWhere } from "../match.ts";
import type { KeyedRow } from "../store/read.ts";
import type { TableInfo } from "../store/tables.ts";
import { buildPayloads, type PayloadDeps, type PayloadInput } from "./build.ts";
import { describeThrown } from "./describe.ts";
import { exampleOf } from "./example.ts";
import { BatchFault, isPassingFault } from "./fault.ts";

export interface SampleDeps extends PayloadDeps {
  /** A page of a table's newest records; see `readNewest` of `store/read.ts`. */
  readonly newestRecords: (table: TableInfo, page: NewestPage) => Promise<readonly KeyedRow[]>;
  /** The newest messages' bodies, newest first. */
  readonly newestMessages: (event: string, project: string | undefined, limit: number) => Promise<readonly SampleMessage[]>;
}

export interface NewestPage {
  readonly orderColumn: string | undefined;
  readonly limit: number;
  readonly offset: number;
}

export interface SampleMessage {
  readonly key: string;
  readonly project: string;
  readonly body: Buffer;
}

export interface SampleOptions {
  /** @default 3 */
  readonly limit?: number;
  /** Only records and messages of this project. */
  readonly project?: string | undefined;
}

export interface Sample {
  /** The payload's JSON, as a delivery would send it. */
  readonly json: string;
  /** `undefined` for an example, which is nobody's record. */
  readonly key: string | undefined;
  readonly project: string | undefined;
}

export interface Samples {
  /** What they were made from; `schema` is made up from the JSON Schema, and comes last. */
  readonly source: "records" | "messages" | "example" | "schema";
  /** Newest first, never empty. */
  readonly samples: readonly Sample[];
  /** Why the records could not be read, where they are the better source. */
  readonly problem: string | undefined;
}

/** A sample is not worth more of the database's time, nor of the caller's. */
const mostRecords = 1_000;
const mostMs = 2_000;
/** Most events let most records through: a first look that is quick, then all the rest at once. */
const pages = [
  { offset: 0, limit: 100 },
  { offset: 100, limit: mostRecords - 100 },
];

/**
 * What the event would send, put through the very function that sends it: from the newest records for which `where` holds, else the
 * newest messages, else `example`, else what the JSON Schema says.
 *
 * Where there are such records and the event's code fails for all of them, nothing else is shown in their place: it would hide that
 * nothing is sent.
 *
 * @example (await readSamples(event, { limit: 3, project: "acme" }, deps)).samples.map(({ json }) => json)
 * @throws AncrageError `ANCRAGE_SAMPLE_NONE` where there is nothing to show, with what went wrong
 * @throws BatchFault PostgreSQL could not be read just now
 */
export async function readSamples(event: CatalogueEvent, options: SampleOptions, deps: SampleDeps): Promise<Samples> {
  const limit = Math.max(1, options.limit ?? 3);
  const { samples, fault, problem } = await samplesOfRecords(event, limit, options.project, deps);
  if (samples.length > 0) return { source: "records", samples, problem: undefined };
  if (fault !== undefined) {
    throw new AncrageError("ANCRAGE_SAMPLE_NONE", `${event.name} has no sample to show: ${fault}.`, {
      hint: `Correct ${event.file}: no record was found that it works for.`,
    });
  }

  const messages = await deps.newestMessages(event.name, options.project, limit);
  if (messages.length > 0) {
    const ofMessages = messages.map(({ key, project, body }) => ({ key, project, json: body.toString() }));
    return { source: "messages", samples: ofMessages, problem };
  }
  const { example } = event.definition;
  if (example !== undefined) return { source: "example", samples: [await sampleOfExample(event, example, deps)], problem };
  if (event.jsonSchema !== undefined) {
    const json = JSON.stringify(exampleOf(event.jsonSchema));
    return { source: "schema", samples: [{ json, key: undefined, project: undefined }], problem };
  }
  throw new AncrageError("ANCRAGE_SAMPLE_NONE", `${event.name} has no sample to show: ${problem ?? "no record and no message"}.`, {
    hint: `Give ${event.file} an example, or a schema that one can be made from.`,
  });
}

interface Found {
  readonly samples: readonly Sample[];
  /** What the event's own code did wrong first. */
  readonly fault?: string | undefined;
  /** Why PostgreSQL could not be asked for records. */
  readonly problem?: string | undefined;
}

async function samplesOfRecords(event: CatalogueEvent, limit: number, project: string | undefined, deps: SampleDeps): Promise<Found> {
  const { table } = event;
  if (table === undefined) return { samples: [] };
  // A record that is there shows nothing of what is sent when one is gone.
  if (event.rules.length > 0 && event.rules.every(({ kind }) => kind === "delete")) return { samples: [] };

  const endAt = performance.now() + mostMs;
  const samples: Sample[] = [];
  const seen = new Set<string>();
  let fault: string | undefined;
  let problem: string | undefined;
  for (const page of pages) {
    let records: readonly KeyedRow[];
    try {
      records = await deps.newestRecords(table, { orderColumn: event.definition.newest, ...page });
    } catch (error) {
      problem = problemOfRead(error, table);
      break;
    }
    // A row that was written between two pages moves the others: what was seen may come again.
    const fresh = records.filter(({ key }) => !seen.has(key));
    for (const { key } of fresh) seen.add(key);
    const matching = fresh.filter(({ row }) => {
      // The project first: what another project's record makes the code throw may tell of it.
      if (project !== undefined && projectOf(event, row, deps) !== project) return false;
      try {
        return askWhere(event, row);
      } catch (error) {
        fault ??= `where of ${event.name} threw ${describeThrown(error, event.file)}`;
        return false;
      }
    });
    // As many at a time as are wanted: the payload of a record that is not shown is not built.
    for (let from = 0; from < matching.length && samples.length < limit && performance.now() < endAt; from += limit) {
      const group = matching.slice(from, from + limit);
      const payloads = await buildPayloads(
        group.map(({ key, row }) => sampleInput(event, key, row)),
        { ...deps, limits: { ...deps.limits, timeoutMs: mostMs } },
      );
      for (const [index, payload] of payloads.entries()) {
        if (payload.kind === "built") samples.push({ json: payload.json, project: payload.project, key: group[index]?.key });
        else if (payload.kind === "rejected") fault ??= payload.error;
      }
    }
    if (samples.length >= limit || records.length < page.limit || performance.now() >= endAt) break;
  }
  return { samples: samples.slice(0, limit), fault, problem };
}

/** Undefined where it cannot be told; where no project is asked for, the payload's rejection says why. */
function projectOf(event: CatalogueEvent, row: Row, deps: SampleDeps): string | undefined {
  try {
    return deps.catalogue.projectOf(event, row);
  } catch {
    return undefined;
  }
}

function problemOfRead(error: unknown, table: TableInfo): string {
  if (sqlStateOf(error) === "57014")
    return `the newest records of ${table.name} took longer than 2 s to read; an index on the order would help`;
  if (isPassingFault(error)) throw new BatchFault(error);
  return `the newest records of ${table.name} could not be read: ${describeThrown(error)}`;
}

/** What a payload is built from where no change is behind it. */
export function sampleInput(event: CatalogueEvent, key: string, record: Row): PayloadInput {
  return { event, key, reason: "sample", action: undefined, before: undefined, record, data: undefined, actor: undefined };
}

/** The example on the way that a payload takes: the schema's output is what is sent. */
async function sampleOfExample(event: CatalogueEvent, example: unknown, deps: SampleDeps): Promise<Sample> {
  const definition = { ...event.definition, payload: () => example };
  const input = sampleInput({ ...event, table: undefined, definition }, "", {});
  const [payload] = await buildPayloads([input], { ...deps, catalogue: { ...deps.catalogue, projectOf: () => "default" } });
  if (payload?.kind === "built") return { json: payload.json, key: undefined, project: undefined };
  const why = payload?.kind === "rejected" ? payload.error : "it is undefined";
  throw new AncrageError("ANCRAGE_SAMPLE_NONE", `the example of ${event.name} cannot be shown: ${why}.`, {
    hint: `Correct it in ${event.file}.`,
  });
}
