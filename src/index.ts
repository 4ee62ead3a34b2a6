export { defineEvent } from "./event/define.ts";
export type {
  DefinedEvent,
  EventContext,
  EventContextWithBefore,
  EventDefinition,
  EventLoad,
  EventOptions,
  EventRule,
  EventSql,
  Reason,
  TriggeredSubject,
} from "./event/define.ts";
export type { ColumnOf, EventName, Key, RecordOf, Reference, Register, TableName, Where } from "./event/register.ts";
export { track } from "./event/track.ts";
export type { ChangeOf, DeleteOf, InsertOf, TrackingHandler, Trigger, UpdateOf } from "./event/track.ts";
export { createAncrage, migrate } from "./create-ancrage.ts";
export type { Ancrage } from "./create-ancrage.ts";
export { AncrageError, errorCodes } from "./errors.ts";
export type { ErrorCode } from "./errors.ts";
export { defineConfig } from "./options.ts";
export type { AncrageOptions } from "./options.ts";
