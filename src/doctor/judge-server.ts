import pg from "pg";
import { asciiExpected, asciiWayOut } from "../capture/check.ts";
import type { ServerIdentity } from "../store/capture-state.ts";
import type { RoleRow, UsageRow } from "../store/doctor.ts";
import { fault, fine, type Finding } from "./finding.ts";

export interface ServerFacts {
  readonly server: ServerIdentity;
  readonly settings: ReadonlyMap<string, string>;
  readonly usage: UsageRow;
  /** Whether our slot is there: it is counted among the used ones then. */
  readonly hasSlot: boolean;
  readonly isSlotRead: boolean;
  readonly capture: "wal" | "outbox";
  /** Seconds since 1970, by our clock, when the server's was read. */
  readonly nowS: number;
}

export const settingNames = [
  "max_replication_slots",
  "max_wal_senders",
  "max_slot_wal_keep_size",
  "idle_replication_slot_timeout",
  "fsync",
  "full_page_writes",
  "synchronous_commit",
  "synchronous_standby_names",
  "max_connections",
  "idle_in_transaction_session_timeout",
] as const;

type Setting = (name: (typeof settingNames)[number]) => string;

/** What a process of ours holds at most, and one more that waits as its standby. */
const sessionsOfOurs = 20;
const mostClockSkewS = 5;

/** On a line of its own: `psql -c` refuses `alter system` beside another statement. */
const reload = "select pg_reload_conf();";

/** What the server itself must be, and have left. */
export function judgeServer(facts: ServerFacts): readonly Finding[] {
  const { server, usage, nowS } = facts;
  const setting: Setting = (name) => facts.settings.get(name) ?? "";
  const version = Math.floor(server.version / 10_000);
  const skewS = Math.abs(usage.clockS - nowS);
  return [
    version >= 15
      ? fine("version", `PostgreSQL ${version}`)
      : fault("error", "version", `PostgreSQL ${version} is too old, expected 15 or later.`),
    server.isReplica
      ? fault(
          "error",
          "primary",
          "this server is a replica, expected the primary: it takes no writes.",
          "Let DATABASE_URL name the primary.",
        )
      : fine("primary", "the primary"),
    ...(facts.capture === "wal" ? judgeLog(facts, setting) : []),
    ...judgeDurability(setting, usage),
    server.encoding === "SQL_ASCII"
      ? fault("error", "encoding", `the database's encoding is SQL_ASCII, ${asciiExpected}`, asciiWayOut)
      : fine("encoding", `encoding ${server.encoding}`),
    skewS > mostClockSkewS
      ? fault(
          "warning",
          "clock",
          `the clocks of this machine and of the database differ by ${skewS.toFixed(0)} s: signatures carry our time, ids and retries that of both.`,
          "Let both machines follow NTP.",
        )
      : fine("clock", "the clocks agree"),
    Number(setting("max_connections")) - usage.sessions < sessionsOfOurs
      ? fault(
          "warning",
          "connections",
          `${usage.sessions} of max_connections = ${setting("max_connections")} are used, and a process of Ancrage holds up to ${sessionsOfOurs}.`,
          "Raise max_connections, or put the application behind a pooler.",
        )
      : fine("connections", `${usage.sessions} of ${setting("max_connections")} connections are used`),
    ...usage.idleSlots.map((slot) =>
      fault(
        "warning",
        "idle-slot",
        `the replication slot "${slot}", which is not ours, is read by nobody and keeps the log all the same.`,
        `select pg_drop_replication_slot(${pg.escapeLiteral(slot)});   -- if nothing needs it any more`,
      ),
    ),
  ];
}

/** What reading the log takes; an outbox takes none of it. */
function judgeLog({ server, usage, hasSlot, isSlotRead }: ServerFacts, setting: Setting): readonly Finding[] {
  return [
    server.walLevel === "logical"
      ? fine("wal-level", "wal_level is logical")
      : fault(
          "error",
          "wal-level",
          `wal_level is "${server.walLevel}", expected "logical": changes cannot be read from the log.`,
          "alter system set wal_level = 'logical';   -- as a superuser; managed servers have a switch of their own: docs/guides/databases.md",
          "then restart PostgreSQL (systemctl restart postgresql, docker restart, the provider's console): it is read at its start only",
        ),
    judgeRoom("slots", "max_replication_slots", Number(setting("max_replication_slots")), usage.slots, hasSlot),
    judgeRoom("senders", "max_wal_senders", Number(setting("max_wal_senders")), usage.senders, isSlotRead),
    setting("max_slot_wal_keep_size") === "-1"
      ? fault(
          "warning",
          "slot-bound",
          "max_slot_wal_keep_size is -1: while Ancrage is stopped its slot keeps the log without a bound, until the disk is full.",
          "alter system set max_slot_wal_keep_size = '20GB';   -- what the disk can spare, and a week-end's changes need",
          reload,
        )
      : fine("slot-bound", `the log is kept up to max_slot_wal_keep_size = ${setting("max_slot_wal_keep_size")}`),
    ...judgeIdleTimeout(setting("idle_replication_slot_timeout")),
  ];
}

function judgeRoom(check: string, name: string, most: number, used: number, isOursAmongThem: boolean): Finding {
  const left = most - used + (isOursAmongThem ? 1 : 0);
  if (left > 0) return fine(check, `${name} = ${most}, ${used} used`);
  return fault(
    "error",
    check,
    `all of ${name} = ${most} are used, expected one for Ancrage.`,
    `alter system set ${name} = ${most + 5};   -- takes a restart`,
    ...(check === "slots" ? ["or drop one that nothing needs: select slot_name, active from pg_replication_slots;"] : []),
  );
}

/** PostgreSQL 18: a slot that nobody reads for so long is given up. */
function judgeIdleTimeout(value: string): readonly Finding[] {
  if (value === "" || value === "0") return [];
  return [
    fault(
      "warning",
      "idle-timeout",
      `idle_replication_slot_timeout is ${value}: while Ancrage is stopped for longer its slot is given up, and changes are lost.`,
      "alter system set idle_replication_slot_timeout = 0;   -- max_slot_wal_keep_size guards the disk",
      reload,
    ),
  ];
}

function judgeDurability(setting: Setting, usage: UsageRow): readonly Finding[] {
  const off = (["fsync", "full_page_writes"] as const).filter((name) => setting(name) === "off");
  const standbys = setting("synchronous_standby_names");
  return [
    off.length > 0
      ? fault(
          "warning",
          "durability",
          `${off.join(" and ")} off: after a crash of the machine the database, and the journal in it, may be corrupt.`,
          ...off.map((name) => `alter system set ${name} = on;`),
          reload,
        )
      : fine("durability", "fsync and full_page_writes are on"),
    // The journal sets its own: what the application does is its own affair, and worth knowing.
    setting("synchronous_commit") === "off"
      ? fault(
          "warning",
          "synchronous-commit",
          "synchronous_commit is off for the application's sessions: what they commit reaches the log, and a receiver, up to 0.6 s later, and is lost with a crash before.",
          "alter system set synchronous_commit = on;   -- if that is not on purpose",
          reload,
        )
      : fine("synchronous-commit", `synchronous_commit = ${setting("synchronous_commit")}`),
    standbys !== "" && usage.synchronousStandbys === 0
      ? fault(
          "error",
          "standbys",
          `synchronous_standby_names is ${JSON.stringify(standbys)} and no such standby is connected: no commit ends, that of the journal neither.`,
          "Bring the standby up, or, as a superuser:",
          "alter system set synchronous_standby_names = '';",
          reload,
        )
      : fine("standbys", describeStandbys(standbys, usage.synchronousStandbys)),
  ];
}

function describeStandbys(names: string, connected: number | null): string {
  if (names === "") return "no synchronous standby";
  return connected === null
    ? `synchronous_standby_names is ${JSON.stringify(names)}; whether one is connected is not shown to this role (pg_read_all_stats)`
    : `${connected} synchronous standbys are connected`;
}

export interface RoleFacts {
  readonly role: RoleRow;
  readonly database: string;
  /** Who reads the log: the role of the replication URL, or the same. */
  readonly replication: RoleRow;
  readonly capture: "wal" | "outbox";
}

/** What the roles may do. */
export function judgeRoles({ role, database, replication, capture }: RoleFacts, isMigrated: boolean): readonly Finding[] {
  const quoted = pg.escapeIdentifier(role.name);
  return [
    capture === "outbox" || replication.mayReplicate
      ? fine(
          "replication-role",
          capture === "outbox"
            ? "an outbox is read: no replication privilege is needed"
            : `the role "${replication.name}" may read the log`,
        )
      : fault(
          "error",
          "replication-role",
          `the role "${replication.name}" may not read the log, expected the attribute replication.`,
          `alter role ${pg.escapeIdentifier(replication.name)} replication;   -- as a superuser; on RDS: grant rds_replication to ${pg.escapeIdentifier(replication.name)};`,
          "or create role ancrage_repl login replication password '…'; and give it in ANCRAGE_REPLICATION_URL",
        ),
    isMigrated || role.mayCreate
      ? fine("role", `connected as "${role.name}"${role.isSuperuser ? ", a superuser" : ""}`)
      : fault(
          "error",
          "role",
          `the role "${role.name}" may not create in the database "${database}": it cannot make the schema "ancrage" and the publications.`,
          `grant create on database ${pg.escapeIdentifier(database)} to ${quoted};   -- as a superuser or the database's owner`,
          "or run ancrage migrate with a role that may",
        ),
  ];
}
