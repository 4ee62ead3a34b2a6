-- The journal, the subscriptions, and the function that makes an event happen from SQL.
-- The schema `ancrage`, and the table of migrations in it, are made by migrate.ts before the first file runs.

-- One half of HMAC-SHA256's key: computed once and stored, since in PL/pgSQL it costs more than the hashes.
create function ancrage.hmac_pad(key bytea, pad integer) returns bytea
  language plpgsql immutable strict set search_path = pg_catalog, pg_temp
as $$
begin
  for i in 0..length(key) - 1 loop
    key := set_byte(key, i, get_byte(key, i) # pad);
  end loop;
  return key;
end
$$;

-- One row. System identifier and oid are those of the cluster and the database that this was migrated in: a copy does not send.
create table ancrage.settings (
  only_row          boolean primary key default true check (only_row),
  system_identifier text    not null,
  -- Null until the database was migrated as a whole.
  database_oid      oid,
  -- That of the last start. It goes up with a failover, and with a restore to a point in time.
  timeline          integer,
  environment       text    not null default 'production',
  -- Up by one with each adoption: positions of before are then another source's, and so are the ids made of them.
  generation        integer not null default 0,
  -- What capture stood on when it was last seen to be right, by where changes are read: see capture/footing.ts.
  footings          jsonb   not null default '{}',
  trigger_key       bytea   not null check (length(trigger_key) = 64),
  inner_key         bytea   not null generated always as (ancrage.hmac_pad(trigger_key, 54)) stored,
  outer_key         bytea   not null generated always as (ancrage.hmac_pad(trigger_key, 92)) stored,
  -- Where changes are written: by PostgreSQL into its log, or by triggers into the outbox. Changed by migrate alone.
  capture           text    not null default 'wal' check (capture in ('wal', 'outbox'))
);

create sequence ancrage.revision;

create table ancrage.subscriptions (
  id              text        collate "C" primary key,
  project         text        not null,
  events          text[]      not null check (cardinality(events) > 0),
  url             text        not null,
  description     text        not null default '',
  format          text        not null default 'standard' check (format in ('standard', 'result', 'bare', 'cloudevents')),
  filter          jsonb,
  -- Names, and values that are sealed as the secrets are.
  headers         jsonb       not null default '{}',
  delivery_order  text        not null default 'none' check (delivery_order in ('none', 'record', 'all')),
  limits          jsonb       not null default '{}',
  -- Changes that they made, as `ancrage.actor` says, are not sent to it.
  ignored_actors  text[]      not null default '{}',
  metadata        jsonb       not null default '{}',
  secrets         jsonb       not null,
  state           text        not null default 'enabled' check (state in ('enabled', 'paused', 'disabled', 'deleted')),
  state_reason    text,
  revision        bigint      not null default nextval('ancrage.revision'),
  -- The revision since which it matches what it does now. Defaults are evaluated in the order of the columns, so this is the row's own.
  start_revision  bigint      not null default currval('ancrage.revision'),
  -- Where the log placed that; null until the stream has passed it, and nothing is sent before.
  start_lsn       pg_lsn,
  expires_at      timestamptz,
  created_at      timestamptz not null default now(),
  updated_at      timestamptz not null default now()
);
create index subscriptions_project on ancrage.subscriptions (project, id);
create index subscriptions_revision on ancrage.subscriptions (revision);
create index subscriptions_expiry on ancrage.subscriptions (expires_at) where state in ('enabled', 'paused');

-- What subscriptions matched before their last changes of events, filter, or between enabled and disabled: messages from then may still
-- be fanned out, and rejections from then be built again. An empty list of events: it was disabled.
create table ancrage.subscription_starts (
  subscription_id text        collate "C" not null,
  revision        bigint      not null,
  events          text[]      not null,
  filter          jsonb,
  start_lsn       pg_lsn,
  -- Since when nothing is fanned out before it any more; from then on only a rejection that is built again looks back to it.
  passed_at       timestamptz,
  primary key (subscription_id, revision)
);

-- So that a request that is repeated because its answer was lost makes one subscription, or one token. Kept for a day.
create table ancrage.idempotency_keys (
  project         text        not null,
  key             text        not null,
  request_hash    bytea       not null,
  made_id         text        collate "C" not null,
  created_at      timestamptz not null default now(),
  primary key (project, key)
);
create index idempotency_keys_age on ancrage.idempotency_keys (created_at);

-- Receivers that took nothing since a failure: when to give up on them must outlive a restart. Those that do well have no row.
create table ancrage.subscription_health (
  subscription_id text        collate "C" primary key,
  failing_since   timestamptz not null,
  failures        integer     not null check (failures > 0),
  updated_at      timestamptz not null default now()
);

-- Appended: a process that was superseded cannot insert the next number, and its batch fails whole.
create table ancrage.batches (
  source               text        not null,
  number               bigint      not null,
  epoch                bigint      not null,
  journaled_commit_lsn pg_lsn      not null,
  journaled_change_lsn pg_lsn      not null,
  journaled_ordinal    integer     not null,
  settled_commit_lsn   pg_lsn      not null,
  settled_change_lsn   pg_lsn      not null,
  settled_ordinal      integer     not null,
  -- The least id of the messages that are not settled: where a start begins to fan out again.
  unsettled_from       text        collate "C",
  end_lsn              pg_lsn      not null,
  -- Where the outbox is read from after a restart; null where the log is.
  cursor               text,
  at                   timestamptz not null default clock_timestamp(),
  primary key (source, number)
);

-- The lease itself is a session and its lock (decision 0011): keeping it writes nothing.
create table ancrage.leaders (
  source                text    primary key,
  -- Raised by whoever takes over: so the one before finds out.
  epoch                 bigint  not null,
  process               text    not null,
  taken_at              timestamptz not null default now(),
  -- How often the lease was taken under this epoch: whoever waits for it to run out begins anew where this changed.
  sessions              bigint  not null default 1,
  -- The leader ended in order: nobody needs to wait until its lease has run out.
  is_given_back         boolean not null default false,
  acknowledged_revision bigint  not null default 0
);

create type ancrage.delivery_state as enum ('pending', 'retrying', 'delivered', 'exhausted', 'canceled');

-- Partitioned a day by the time in the id; no default partition, no foreign keys: both would make detaching one slow.
create table ancrage.messages (
  id           text        collate "C" not null,
  project      text        not null,
  event        text        not null,
  key          text        not null,
  commit_lsn   pg_lsn      not null,
  change_lsn   pg_lsn      not null,
  ordinal      integer     not null,
  committed_at timestamptz not null,
  -- The payload as JSON: `format.ts` wraps these bytes, which never change.
  body         bytea       not null,
  -- Who wrote the row, as the application said; the subscription whose delivery made it do so, and how many deliveries led to this one.
  actor        text,
  caused_by    text        collate "C",
  depth        integer     not null default 0,
  primary key (id)
) partition by range (id);

create table ancrage.deliveries (
  message_id      text                   collate "C" not null,
  subscription_id text                   collate "C" not null,
  project         text                   not null,
  state           ancrage.delivery_state not null,
  round           integer                not null,
  attempts        integer                not null,
  next_attempt_at timestamptz,
  last_status     integer,
  last_reason     text,
  duration_ms     integer,
  updated_at      timestamptz            not null,
  -- The job whose lane it goes through; null: it happened now, or is retried.
  job_id          text                   collate "C",
  primary key (message_id, subscription_id)
) partition by range (message_id);
-- A lane's deliveries in the order of their positions: an id is `msg_`, ten digits of time, then the position.
create index deliveries_unfinished on ancrage.deliveries (subscription_id, coalesce(job_id, ''), substr(message_id, 15))
  where state in ('pending', 'retrying');
-- What failed is what people look for, among a hundred times as much that did not.
create index deliveries_given_up on ancrage.deliveries (message_id, subscription_id) where state in ('exhausted', 'canceled');
create index deliveries_job_exhausted on ancrage.deliveries (job_id) where state = 'exhausted' and job_id is not null;

create table ancrage.attempts (
  message_id      text        collate "C" not null,
  subscription_id text        collate "C" not null,
  round           integer     not null,
  number          integer     not null,
  at              timestamptz not null,
  status          integer,
  reason          text        not null,
  duration_ms     integer     not null,
  is_late         boolean     not null default false,
  -- The answer's first bytes. Not text: one NUL in them would refuse the whole batch.
  response        bytea
) partition by range (message_id);
create index attempts_delivery on ancrage.attempts (message_id, subscription_id);

create table ancrage.rejections (
  id           text        collate "C" not null,
  project      text        not null,
  event        text        not null,
  key          text        not null,
  commit_lsn   pg_lsn      not null,
  change_lsn   pg_lsn      not null,
  ordinal      integer     not null,
  committed_at timestamptz not null,
  reason       text        not null,
  -- Words of the definition's own code: bytes, since they may hold a NUL.
  error        bytea       not null,
  -- What the event was to be built from, so that a retry needs no log.
  occurrence   bytea       not null,
  primary key (id)
) partition by range (id);

create table ancrage.gaps (
  id          bigint      generated always as identity primary key,
  source      text        not null,
  from_lsn    pg_lsn      not null,
  to_lsn      pg_lsn,
  from_at     timestamptz,
  to_at       timestamptz,
  reason      text        not null,
  resolved_at timestamptz,
  noted_at    timestamptz not null default now()
);
create unique index gaps_endless on ancrage.gaps (source) where to_lsn is null;

-- Long work with progress. Its leader takes it on, a page a transaction.
create table ancrage.jobs (
  id              text        collate "C" primary key,
  -- Null: of all projects.
  project         text,
  kind            text        not null check (kind in ('recover', 'replay', 'backfill', 'cancel', 'retry')),
  -- Jobs of one subscription run one after another; null: it is about none, or several.
  subscription_id text        collate "C",
  input           jsonb       not null,
  state           text        not null default 'waiting' check (state in ('waiting', 'running', 'done', 'failed', 'canceled')),
  -- Pages that are in. A process that does not lead any more finds another number, and its page fails whole.
  pages           integer     not null default 0,
  -- Where the next page begins; each kind has its own. Null before the first.
  place           jsonb,
  -- An estimate; null where it could not be told.
  total           bigint,
  done            bigint      not null default 0,
  failed          bigint      not null default 0,
  error           text,
  -- The log when it was made: ids of what it makes begin with both.
  lsn             pg_lsn      not null default pg_current_wal_insert_lsn(),
  created_at      timestamptz not null default now(),
  updated_at      timestamptz not null default now(),
  ended_at        timestamptz
);
create index jobs_open on ancrage.jobs (id) where state in ('waiting', 'running');

-- The records that a backfill found in the one snapshot that it began with. They leave with its end.
create table ancrage.job_records (
  job_id text    collate "C" not null,
  number integer not null,
  key    text    not null,
  primary key (job_id, number)
);

create table ancrage.tokens (
  id         text        collate "C" primary key,
  -- Null: all projects.
  project    text,
  name       text        not null,
  hash       bytea       not null unique check (length(hash) = 32),
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  -- Written once an hour at most.
  last_used_at timestamptz,
  revoked_at timestamptz
);

-- Crockford's base 32, most significant digit first: ids sort as their numbers do.
create function ancrage.base32(value bigint, digits integer) returns text
  language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp
as $$
  select string_agg(substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', ((value >> (5 * i)) & 31)::integer + 1, 1), '' order by i desc)
  from generate_series(0, digits - 1) as i
$$;

-- Makes the partitions of one day where they are missing. Runs as the owner: the running role makes no tables itself.
-- Made apart and attached: `create table ... partition of` would lock the parent against its readers, and wait for them.
create function ancrage.ensure_partitions(day date) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  from_id text := ancrage.base32(((day - date '1970-01-01')::bigint) * 86400000, 10);
  to_id   text := ancrage.base32(((day - date '1970-01-01')::bigint + 1) * 86400000, 10);
  suffix  text := to_char(day, '"_"YYYYMMDD');
  part    record;
begin
  perform pg_advisory_xact_lock(hashtext('ancrage.ensure_partitions'));
  for part in
    select parent, prefix from (values ('messages', 'msg_'), ('deliveries', 'msg_'), ('attempts', 'msg_'), ('rejections', 'rej_')) as t (parent, prefix)
  loop
    continue when to_regclass(format('ancrage.%I', part.parent || suffix)) is not null;
    execute format('create table ancrage.%I (like ancrage.%I including all)', part.parent || suffix, part.parent);
    if part.parent = 'messages' then
      -- Bodies up to 8 KiB stay in their row as they are: to compress them and to store them apart cost three times as much as the row.
      execute format('alter table ancrage.%I set (toast_tuple_target = 8160)', part.parent || suffix);
    end if;
    execute format('alter table ancrage.%I attach partition ancrage.%I for values from (%L) to (%L)',
      part.parent, part.parent || suffix, part.prefix || from_id, part.prefix || to_id);
  end loop;
end
$$;
revoke execute on function ancrage.ensure_partitions(date) from public;

-- Drops the partition of one day, attached or not. Runs as the owner. In a function nothing can be detached concurrently, so that the
-- whole table is locked for a moment, and while that lock is waited for everybody waits behind it: a fifth of a second at most.
create function ancrage.drop_partition(parent text, day date) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms'
as $$
declare
  part        text := parent || to_char(day, '"_"YYYYMMDD');
  is_attached boolean;
  is_pending  boolean;
begin
  if parent not in ('messages', 'deliveries', 'attempts', 'rejections') then
    raise exception 'ancrage.drop_partition: expected messages, deliveries, attempts or rejections, got %', quote_nullable(parent) using errcode = '22023';
  end if;
  if to_regclass(format('ancrage.%I', part)) is null then
    return;
  end if;
  select true, i.inhdetachpending into is_attached, is_pending
    from pg_inherits i where i.inhrelid = to_regclass(format('ancrage.%I', part));
  if is_attached then
    execute format('alter table ancrage.%I detach partition ancrage.%I %s', parent, part, case when is_pending then 'finalize' else '' end);
  end if;
  execute format('drop table ancrage.%I', part);
end
$$;
revoke execute on function ancrage.drop_partition(text, date) from public;

-- What `capture: "outbox"` writes instead of the log: rows of the tracked tables by triggers that migrate makes, and marks by
-- `ancrage.write_mark`. There are two, of which one is written while the other is truncated. Empty while the log is read.
-- Bit 32 of the sequence says which one transactions write that begin now.
create sequence ancrage.outbox_id;

create table ancrage.outbox_a (
  id      bigint      not null,
  xid     xid8        not null default pg_current_xact_id(),
  at      timestamptz not null default now(),
  -- Insert, update, delete, truncate, or a mark.
  kind    "char"      not null check (kind in ('i', 'u', 'd', 't', 'm')),
  root    regclass,
  -- The columns as they were then: JSON, `[[name, type, generated], ...]`.
  columns text,
  -- As `record_out` writes rows.
  new_row text,
  old_row text,
  prefix  text,
  content bytea,
  -- What was visible when a subscription was written: what was committed by then comes before it, all else after.
  cut     pg_snapshot
);
create index outbox_a_xid on ancrage.outbox_a (xid, id);
create index outbox_a_cut on ancrage.outbox_a (xid) where cut is not null;
create table ancrage.outbox_b (like ancrage.outbox_a including all);

-- The columns of a row's text. Said to be immutable although it reads the catalogue: a trigger's statement calls it while it is
-- planned, once a session, and is planned again when the table changes, since it names the table as a regclass constant.
create function ancrage.columns_of(root regclass) returns text
  language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
  return (select json_agg(json_build_array(attname, atttypid::bigint, attgenerated) order by attnum)
    from pg_attribute where attrelid = root and attnum > 0 and not attisdropped);
end
$$;

-- Which outbox this transaction writes, a or b: the same to its end, so that one that stays open holds only one of them.
create function ancrage.outbox_turn(id bigint) returns text
  language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  turn text := current_setting('ancrage.outbox_turn', true);
begin
  if turn is null or turn not in ('a', 'b') then
    turn := case when id & 4294967296 = 0 then 'a' else 'b' end;
    perform set_config('ancrage.outbox_turn', turn, true);
  end if;
  return turn;
end
$$;

-- Lets transactions that begin now write the other outbox. So far that no `nextval` of the meantime comes after it.
create function ancrage.turn_outbox() returns void
  language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  select setval('ancrage.outbox_id', ((last_value >> 32) + 1) << 32) from ancrage.outbox_id
$$;
revoke execute on function ancrage.turn_outbox() from public;

-- Empties one of the two if all that is in it was consumed and nobody is writing it. It never waits: whoever came to write meanwhile
-- would wait behind it.
create function ancrage.truncate_outbox(turn text, consumed pg_snapshot) returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  is_left boolean;
begin
  if turn not in ('a', 'b') then
    raise exception 'ancrage.truncate_outbox: expected a or b, got %', quote_literal(turn) using errcode = '22023';
  end if;
  begin
    execute format('lock table ancrage.%I in access exclusive mode nowait', 'outbox_' || turn);
  exception when lock_not_available then
    return false;
  end;
  execute format('select exists (select from ancrage.%I where xid >= pg_snapshot_xmin($1) and not pg_visible_in_snapshot(xid, $1))',
    'outbox_' || turn) into is_left using consumed;
  if is_left then
    return false;
  end if;
  execute format('truncate ancrage.%I', 'outbox_' || turn);
  return true;
end
$$;
revoke execute on function ancrage.truncate_outbox(text, pg_snapshot) from public;

-- Writes a mark into this transaction, wherever capture reads: a transactional logical message, or a row of the outbox. As with
-- `pg_logical_emit_message`, any role may, so what a mark says is signed or looked up.
--
-- The lock lets migrate change from one to the other between transactions. An older snapshot would read a setting that holds no more:
-- such a transaction fails as one that could not be serialized.
create function ancrage.write_mark(prefix text, content bytea) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  capture text;
  id      bigint;
  cut     pg_snapshot;
begin
  if prefix is null or prefix not like 'ancrage.%' then
    raise exception 'ancrage.write_mark: expected the prefix of a mark, got %', quote_nullable(prefix) using errcode = '22023';
  end if;
  if current_setting('transaction_isolation') = 'read committed' then
    perform pg_advisory_xact_lock_shared(hashtext('ancrage.capture'));
    select s.capture into strict capture from ancrage.settings s;
  elsif prefix = 'ancrage.origin' and current_setting('transaction_read_only') = 'on' then
    -- It has no changes that the mark could be of, and may lock nothing.
    select s.capture into strict capture from ancrage.settings s;
  else
    select s.capture into strict capture from ancrage.settings s for share;
  end if;
  if capture = 'wal' then
    perform pg_logical_emit_message(true, prefix, content);
    return;
  end if;
  -- It takes no row, and has no changes that such a mark could be of: it must not fail for one, which the log would take.
  if prefix = 'ancrage.origin' and current_setting('transaction_read_only') = 'on' then
    return;
  end if;
  if prefix = 'ancrage.subscription' then
    cut := pg_current_snapshot();
  end if;
  id := nextval('ancrage.outbox_id');
  if ancrage.outbox_turn(id) = 'a' then
    insert into ancrage.outbox_a (id, kind, prefix, content, cut) values (id, 'm', prefix, content, cut);
  else
    insert into ancrage.outbox_b (id, kind, prefix, content, cut) values (id, 'm', prefix, content, cut);
  end if;
end
$$;

-- Writes a mark that is signed (HMAC-SHA256), because any role may write marks; `xid` binds it to its transaction.
create function ancrage.emit(prefix text, content jsonb) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  keys   record;
  signed bytea := convert_to((content || jsonb_build_object('xid', pg_current_xact_id()::text))::text, 'UTF8');
begin
  -- The log and the outbox hand a mark over whole, and what reads them holds it in memory.
  if octet_length(signed) > 2097152 then
    raise exception 'ancrage.emit: expected a mark of at most 2097152 bytes, got %', octet_length(signed) using errcode = '22023';
  end if;
  select inner_key, outer_key into strict keys from ancrage.settings;
  perform ancrage.write_mark(prefix, sha256(keys.outer_key || sha256(keys.inner_key || signed)) || signed);
end
$$;
revoke execute on function ancrage.emit(text, jsonb) from public;

-- Makes `event` happen for `key`.
create function ancrage.trigger(event text, key text, data jsonb default null) returns uuid
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  id uuid := gen_random_uuid();
begin
  if event is null or event = '' then
    raise exception 'ancrage.trigger: expected the name of an event, got %', coalesce(quote_literal(event), 'null') using errcode = '22023';
  end if;
  if length(event) > 500 then
    raise exception 'ancrage.trigger: expected the name of an event, of at most 500 characters, got % of them', length(event) using errcode = '22023';
  end if;
  if key is null then
    raise exception 'ancrage.trigger(%): expected the key of a record as text, got null', quote_literal(event) using errcode = '22023';
  end if;
  if length(key) > 1024 then
    raise exception 'ancrage.trigger(%): expected a key of at most 1024 characters, got %', quote_literal(event), length(key)
      using errcode = '22023', hint = 'Give the key of the record; the payload function reads the rest by it.';
  end if;
  if octet_length(data::text) > 1048576 then
    raise exception 'ancrage.trigger(%): expected data of at most 1048576 bytes, got %', quote_literal(event), octet_length(data::text)
      using errcode = '22023', hint = 'Give the key of the record; the payload function reads the rest by it.';
  end if;
  perform ancrage.emit('ancrage.trigger', jsonb_build_object('id', id, 'event', event, 'key', key, 'data', data));
  return id;
end
$$;
revoke execute on function ancrage.trigger(text, text, jsonb) from public;

-- Who makes the changes that follow in this transaction: `context.actor`, and what keeps a subscriber's own changes from it.
create function ancrage.actor(name text) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if name is null or name = '' or length(name) > 256 then
    raise exception 'ancrage.actor: expected a name of 1 to 256 characters, got %', coalesce(quote_literal(left(name, 300)), 'null') using errcode = '22023';
  end if;
  perform ancrage.emit('ancrage.origin', jsonb_build_object('actor', name));
end
$$;
revoke execute on function ancrage.actor(text) from public;

-- Which delivery makes the application change what follows in this transaction: the value of the request's header `ancrage-cause`.
-- Null, for a request that has none, says nothing.
create function ancrage.caused_by(cause text) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if cause is null then
    return;
  end if;
  if length(cause) > 256 then
    raise exception 'ancrage.caused_by: expected the value of a header ancrage-cause, got % characters', length(cause) using errcode = '22023';
  end if;
  perform ancrage.emit('ancrage.origin', jsonb_build_object('cause', cause));
end
$$;
revoke execute on function ancrage.caused_by(text) from public;

-- The changes that follow in this transaction are not tracked: no rule and no handler is asked about them. `ancrage.trigger` still is.
create function ancrage.mute() returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform ancrage.emit('ancrage.origin', jsonb_build_object('mute', true));
end
$$;
revoke execute on function ancrage.mute() from public;
