import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { Row } from "../capture/change.ts";
import { askedOf, goneOf } from "../capture/lacking.ts";
import type { Catalogue, CatalogueEvent } from "../event/catalogue.ts";
import type { PayloadContext, Reason } from "../event/define.ts";
import type { Occurrence } from "../match.ts";
import { createContext, type Reads } from "./context.ts";
import { describeIssues, describeThrown } from "./describe.ts";
import { describeBigInt, stringifyPayload } from "./json.ts";
import { BatchFault } from "./fault.ts";
import { createLoads, readRecords, type RecordReaders } from "./load.ts";
import { readLacking } from "./read-lacking.ts";
import type { RejectionReason } from "./reject.ts";
import { runAll, type Run, type Schedule } from "./schedule.ts";
import type { SqlReader } from "./sql.ts";
import { isThenable } from "../thenable.ts";

/** What a payload is built from: an occurrence, or what a sample or a backfill makes of a row. */
export interface PayloadInput extends Pick<Occurrence, "event" | "key" | "action" | "before" | "record" | "data" | "actor"> {
  readonly reason: Reason;
}

export type Payload =
  /** `json` is the schema's output as text, once: `format.ts` wraps it. */
  | { readonly kind: "built"; readonly project: string; readonly json: string }
  /** The payload function returned `undefined`: nothing happened. */
  | { readonly kind: "nothing" }
  | Rejected;

export interface Rejected {
  readonly kind: "rejected";
  readonly reason: RejectionReason;
  /** For a person: what happened, with the value and the place. */
  readonly error: string;
  /** `undefined` where it was rejected before its project was known. */
  readonly project: string | undefined;
}

export interface PayloadDeps {
  readonly catalogue: Pick<Catalogue, "allTables" | "projectOf">;
  readonly readers: RecordReaders;
  readonly sql: SqlReader;
  /** Whether the event's code is not run for now; see `reject.ts`. */
  readonly isParked?: (event: string) => boolean;
  readonly limits?: Partial<PayloadLimits>;
}

export interface PayloadLimits {
  /** How many payload functions run at once; those that wait for `load` or `sql` are not counted. */
  readonly concurrency: number;
  /** The time of one payload function, without what it waits for `load` and `sql`. */
  readonly timeoutMs: number;
  /** The most bytes of a payload's JSON. */
  readonly maxBytes: number;
}

export const payloadLimits: PayloadLimits = { concurrency: 64, timeoutMs: 10_000, maxBytes: 1024 * 1024 };

const nothing: Payload = { kind: "nothing" };

/**
 * Builds what is sent for each occurrence, in the given order. What read a column that the log did not carry is built again, once that
 * column was read for all of them.
 *
 * A function that loops without ever returning to the event loop cannot be stopped: the deadline ends what waits. (`cli/loop-watch.ts`
 * says in the log where it is.)
 *
 * @throws BatchFault PostgreSQL could not be read just now: nothing of the batch counts, it is to be built again
 */
export async function buildPayloads(inputs: readonly PayloadInput[], deps: PayloadDeps): Promise<readonly Payload[]> {
  if (inputs.length === 0) return [];
  const built = await buildAll(inputs, deps);
  if (!inputs.some(hasAskedInVain)) return built;
  const payloads = [...built];
  for (let asking = indicesOf(inputs, hasAskedInVain); asking.length > 0; asking = indicesOf(inputs, hasAskedInVain)) {
    const again = asking.flatMap((index) => inputs[index] ?? []);
    await readLackingOf(again, deps);
    const rebuilt = await buildAll(again, deps);
    for (const [at, index] of asking.entries()) payloads[index] = rebuilt[at] ?? nothing;
  }
  return payloads.map((payload, index) => ofGone(payload, inputs[index]));
}

const hasAskedInVain = ({ event, record }: PayloadInput): boolean => event.table !== undefined && askedOf(record).length > 0;

const indicesOf = (inputs: readonly PayloadInput[], isMeant: (input: PayloadInput) => boolean): readonly number[] =>
  inputs.flatMap((input, index) => (isMeant(input) ? [index] : []));

async function readLackingOf(inputs: readonly PayloadInput[], { readers }: PayloadDeps): Promise<void> {
  const records = inputs.flatMap(({ event: { table }, key, record: row }) =>
    table === undefined || row === undefined ? [] : [{ table, key, row }],
  );
  try {
    await readLacking(records, readers);
  } catch (error) {
    if (error instanceof BatchFault) error.events = [...new Set(inputs.map(({ event }) => event.name))];
    throw error;
  }
}

/** It is not the definition's fault that a row was deleted before a column of it could be read. */
function ofGone(payload: Payload, input: PayloadInput | undefined): Payload {
  if (payload.kind !== "rejected" || input?.event.table === undefined) return payload;
  const gone = goneOf(input.record, input.event.table.name);
  return gone === undefined ? payload : rejected("record-missing", gone.message, payload.project);
}

async function buildAll(inputs: readonly PayloadInput[], deps: PayloadDeps): Promise<readonly Payload[]> {
  const limits = { ...payloadLimits, ...deps.limits };
  const records = inputs.some(lacksRecord) ? await readMissingRecords(inputs, deps) : undefined;
  let reads: Reads | undefined;
  return runAll<Payload>({
    count: inputs.length,
    places: limits.concurrency,
    timeoutMs: limits.timeoutMs,
    begin(run, schedule) {
      const input = inputs[run.index];
      if (input === undefined) throw new RangeError(`no occurrence ${run.index} of ${inputs.length}`);
      reads ??= createReads(deps, schedule);
      return beginSafely({ input, deps, limits, reads, run }, records);
    },
    timedOut(index) {
      const input = inputs[index];
      // A sample's limit is no option.
      const cure = input?.reason === "sample" ? "" : "; the option payload.timeoutMs allows more";
      return rejected(
        "payload-timeout",
        `the payload of ${input?.event.name ?? ""} was not there after ${limits.timeoutMs} ms (waits for load and sql not counted)${cure}`,
      );
    },
  });
}

function createReads(deps: PayloadDeps, schedule: Schedule): Reads {
  const onFault = (fault: BatchFault): void => schedule.fail(fault);
  /** By table: events that load of it. */
  const loading = new Map<string, Set<string>>();
  const loads = createLoads({
    tables: deps.catalogue.allTables,
    readers: deps.readers,
    whenQuiet: schedule.whenQuiet,
    onFault(fault, table) {
      fault.events = [...(loading.get(table) ?? [])];
      onFault(fault);
    },
  });
  return {
    loads,
    sql: deps.sql,
    schedule,
    onFault,
    noteLoad(table, event) {
      const events = loading.get(table);
      if (events === undefined) loading.set(table, new Set([event]));
      else events.add(event);
    },
  };
}

/** One occurrence on its way through the steps below: data → record → project → payload → schema → JSON. */
interface Building {
  readonly input: PayloadInput;
  readonly deps: PayloadDeps;
  readonly limits: PayloadLimits;
  readonly reads: Reads;
  readonly run: Run;
}

// Each step goes on in the same stack while nothing is a promise: a synchronous payload costs no turn of the event loop.

/** What users give is as odd as it likes: a schema's answer without `issues`, a `then` that throws. It is this occurrence's fault alone. */
function beginSafely(building: Building, records: MissingRecords | undefined): Payload | Promise<Payload> {
  const { event } = building.input;
  const odd = (error: unknown): Payload => {
    if (error instanceof BatchFault) throw error;
    return rejected(
      "payload-threw",
      `what the payload or the schema of ${event.name} gave cannot be read: ${describeThrown(error, event.file)}`,
    );
  };
  try {
    const begun = beginOne(building, records);
    return begun instanceof Promise ? begun.catch(odd) : begun;
  } catch (error) {
    return odd(error);
  }
}

function beginOne(building: Building, records: MissingRecords | undefined): Payload | Promise<Payload> {
  const { input, deps } = building;
  const { event } = input;
  if (deps.isParked?.(event.name) === true) {
    return rejected("event-parked", `${event.name} is parked: its code was rejected too often with no success in between`);
  }
  let record = input.record;
  if (record === undefined && event.table !== undefined) {
    const answer = records?.get(event.table.name)?.get(input.key);
    if (answer === undefined || answer instanceof Error) {
      const why = answer === undefined ? "" : ` (${answer.message})`;
      return rejected("record-missing", `${event.table.name} has no record with the key ${JSON.stringify(input.key)}${why}`);
    }
    record = answer;
  }
  const { data } = event.definition;
  if (data === undefined || input.reason !== "trigger") return produce(building, record, input.data);
  return validate(
    data,
    input.data,
    (output) => produce(building, record, output),
    (error) => rejected("data-invalid", `the data given to trigger("${event.name}") was refused: ${error}`),
  );
}

function produce(building: Building, record: Row | undefined, data: unknown): Payload | Promise<Payload> {
  const { input, deps, reads, run } = building;
  const { event, action, before, reason, actor } = input;
  const subject: Row = record ?? { key: input.key, data };
  let project: string;
  try {
    project = deps.catalogue.projectOf(event, subject);
  } catch (error) {
    return rejected("project-invalid", `the project of ${event.name} could not be told: ${describeThrown(error, event.file)}`);
  }
  if (typeof project !== "string" || project === "") {
    return rejected("project-invalid", `the project of ${event.name} is ${JSON.stringify(project)}, expected a text that is not empty`);
  }
  const context = createContext(
    { event: event.name, reason, action, before, record, table: event.table, project, actor, data },
    reads,
    run,
  );
  let produced: unknown;
  try {
    produced = callPayload(event, subject, context);
  } catch (error) {
    return threw(event, error, project);
  }
  if (!isThenable(produced)) return check(building, produced, project);
  return Promise.resolve(produced).then(
    (value) => check(building, value, project),
    (error: unknown) => threw(event, error, project),
  );
}

function callPayload(event: CatalogueEvent, subject: Row, context: PayloadContext): unknown {
  // What a definition's own types make of its record and context was checked where it was written.
  const payload = event.definition.payload as (record: Row, context: PayloadContext) => unknown;
  return payload(subject, context);
}

function check(building: Building, produced: unknown, project: string): Payload | Promise<Payload> {
  if (produced === undefined) return nothing;
  const { event } = building.input;
  const { schema } = event.definition;
  if (schema === undefined) return write(building, produced, project);
  return validate(
    schema,
    produced,
    (output) => write(building, output, project),
    (error) => rejected("schema-refused", `the schema of ${event.name} refused the payload: ${error}`, project),
  );
}

function write(building: Building, output: unknown, project: string): Payload {
  const { event } = building.input;
  const { maxBytes } = building.limits;
  let json: string | undefined;
  try {
    json = stringifyPayload(output);
  } catch (error) {
    const why = describeBigInt(output) ?? describeThrown(error, event.file);
    return rejected("not-json", `the payload of ${event.name} cannot be written as JSON: ${why}`, project);
  }
  if (json === undefined) {
    return rejected("not-json", `the payload of ${event.name} is ${typeof output}, expected something that JSON can hold`, project);
  }
  // Three bytes a character at most, so that the usual payload is not measured.
  if (json.length * 3 > maxBytes && Buffer.byteLength(json) > maxBytes) {
    return rejected(
      "payload-too-large",
      `the payload of ${event.name} has ${Buffer.byteLength(json)} bytes, at most ${maxBytes} are sent`,
      project,
    );
  }
  return { kind: "built", project, json };
}

function validate(
  schema: StandardSchemaV1,
  value: unknown,
  accept: (output: unknown) => Payload | Promise<Payload>,
  refuse: (error: string) => Payload,
): Payload | Promise<Payload> {
  const decide = (result: StandardSchemaV1.Result<unknown>): Payload | Promise<Payload> =>
    result.issues === undefined ? accept(result.value) : refuse(describeIssues(result.issues));
  let result: StandardSchemaV1.Result<unknown> | Promise<StandardSchemaV1.Result<unknown>>;
  try {
    result = schema["~standard"].validate(value);
  } catch (error) {
    return refuse(`it threw ${describeThrown(error)}`);
  }
  if (!isThenable(result)) return decide(result);
  return Promise.resolve(result).then(decide, (error: unknown) => refuse(`it threw ${describeThrown(error)}`));
}

function threw(event: CatalogueEvent, error: unknown, project: string): Rejected {
  return rejected("payload-threw", `the payload of ${event.name} threw ${describeThrown(error, event.file)}`, project);
}

/** Of one whose reads PostgreSQL ended for their time, which is for `buildApart` to say. */
export function rejectedForTime(input: PayloadInput, words: string, { catalogue }: Pick<PayloadDeps, "catalogue">): Rejected {
  const { event, record, key, data } = input;
  let project: string | undefined;
  try {
    // A record that was to be read first is not there to be asked.
    if (record !== undefined || event.table === undefined) project = catalogue.projectOf(event, record ?? { key, data });
  } catch {
    // Its own rejection says so, once its reads end in time.
  }
  return rejected("read-timeout", `a read of the payload of ${event.name} did not end in time: ${words}`, project);
}

function rejected(reason: RejectionReason, error: string, project?: string): Rejected {
  return { kind: "rejected", reason, error, project };
}

type MissingRecords = ReadonlyMap<string, ReadonlyMap<string, Row | Error | undefined>>;

function lacksRecord(input: PayloadInput): boolean {
  return input.record === undefined && input.event.table !== undefined;
}

/** The records of explicit triggers for other rows: one query a table. */
async function readMissingRecords(inputs: readonly PayloadInput[], deps: PayloadDeps): Promise<MissingRecords> {
  const missing = inputs.filter(lacksRecord).filter(({ event }) => deps.isParked?.(event.name) !== true);
  const byTable = Map.groupBy(missing, ({ event }) => event.table);
  const records = new Map<string, ReadonlyMap<string, Row | Error | undefined>>();
  for (const [table, group] of byTable) {
    if (table === undefined) continue;
    records.set(
      table.name,
      await readRecords(
        deps.readers,
        table,
        group.map(({ key }) => key),
      ),
    );
  }
  return records;
}
