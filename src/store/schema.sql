-- The schema "ancrage" as all migrations together make it: to read, and to see in a diff what a migration changes. Nothing runs it.
-- Written by "UPDATE_SCHEMA=1 npx vitest run test/schema.pg.test.ts"; the test fails where this file is not what is there.
create type ancrage.delivery_state as enum ('pending', 'retrying', 'delivered', 'exhausted', 'canceled');

create sequence ancrage.outbox_id;

create sequence ancrage.revision;

create table ancrage.attempts (
  message_id text collate "C" not null,
  subscription_id text collate "C" not null,
  round integer not null,
  number integer not null,
  at timestamp with time zone not null,
  status integer,
  reason text not null,
  duration_ms integer not null,
  is_late boolean not null default false,
  response bytea
) partition by RANGE (message_id);

CREATE INDEX attempts_delivery ON ONLY ancrage.attempts USING btree (message_id, subscription_id);

create table ancrage.batches (
  source text not null,
  number bigint not null,
  epoch bigint not null,
  journaled_commit_lsn pg_lsn not null,
  journaled_change_lsn pg_lsn not null,
  journaled_ordinal integer not null,
  settled_commit_lsn pg_lsn not null,
  settled_change_lsn pg_lsn not null,
  settled_ordinal integer not null,
  unsettled_from text collate "C",
  end_lsn pg_lsn not null,
  cursor text,
  at timestamp with time zone not null default clock_timestamp(),
  constraint batches_pkey PRIMARY KEY (source, number)
);

create table ancrage.deliveries (
  message_id text collate "C" not null,
  subscription_id text collate "C" not null,
  project text not null,
  state ancrage.delivery_state not null,
  round integer not null,
  attempts integer not null,
  next_attempt_at timestamp with time zone,
  last_status integer,
  last_reason text,
  duration_ms integer,
  updated_at timestamp with time zone not null,
  job_id text collate "C",
  constraint deliveries_pkey PRIMARY KEY (message_id, subscription_id)
) partition by RANGE (message_id);

CREATE INDEX deliveries_given_up ON ONLY ancrage.deliveries USING btree (message_id, subscription_id) WHERE (state = ANY (ARRAY['exhausted'::ancrage.delivery_state, 'canceled'::ancrage.delivery_state]));

CREATE INDEX deliveries_job_exhausted ON ONLY ancrage.deliveries USING btree (job_id) WHERE ((state = 'exhausted'::ancrage.delivery_state) AND (job_id IS NOT NULL));

CREATE INDEX deliveries_unfinished ON ONLY ancrage.deliveries USING btree (subscription_id, COALESCE(job_id, ''::text), substr(message_id, 15)) WHERE (state = ANY (ARRAY['pending'::ancrage.delivery_state, 'retrying'::ancrage.delivery_state]));

create table ancrage.gaps (
  id bigint not null generated always as identity,
  source text not null,
  from_lsn pg_lsn not null,
  to_lsn pg_lsn,
  from_at timestamp with time zone,
  to_at timestamp with time zone,
  reason text not null,
  resolved_at timestamp with time zone,
  noted_at timestamp with time zone not null default now(),
  constraint gaps_pkey PRIMARY KEY (id)
);

CREATE UNIQUE INDEX gaps_endless ON ancrage.gaps USING btree (source) WHERE (to_lsn IS NULL);

create table ancrage.idempotency_keys (
  project text not null,
  key text not null,
  request_hash bytea not null,
  made_id text collate "C" not null,
  created_at timestamp with time zone not null default now(),
  constraint idempotency_keys_pkey PRIMARY KEY (project, key)
);

CREATE INDEX idempotency_keys_age ON ancrage.idempotency_keys USING btree (created_at);

create table ancrage.job_records (
  job_id text collate "C" not null,
  number integer not null,
  key text not null,
  constraint job_records_pkey PRIMARY KEY (job_id, number)
);

create table ancrage.jobs (
  id text collate "C" not null,
  project text,
  kind text not null,
  subscription_id text collate "C",
  input jsonb not null,
  state text not null default 'waiting'::text,
  pages integer not null default 0,
  place jsonb,
  total bigint,
  done bigint not null default 0,
  failed bigint not null default 0,
  error text,
  lsn pg_lsn not null default pg_current_wal_insert_lsn(),
  created_at timestamp with time zone not null default now(),
  updated_at timestamp with time zone not null default now(),
  ended_at timestamp with time zone,
  constraint jobs_kind_check CHECK ((kind = ANY (ARRAY['recover'::text, 'replay'::text, 'backfill'::text, 'cancel'::text, 'retry'::text]))),
  constraint jobs_pkey PRIMARY KEY (id),
  constraint jobs_state_check CHECK ((state = ANY (ARRAY['waiting'::text, 'running'::text, 'done'::text, 'failed'::text, 'canceled'::text])))
);

CREATE INDEX jobs_open ON ancrage.jobs USING btree (id) WHERE (state = ANY (ARRAY['waiting'::text, 'running'::text]));

create table ancrage.leaders (
  source text not null,
  epoch bigint not null,
  process text not null,
  taken_at timestamp with time zone not null default now(),
  sessions bigint not null default 1,
  is_given_back boolean not null default false,
  acknowledged_revision bigint not null default 0,
  constraint leaders_pkey PRIMARY KEY (source)
);

create table ancrage.messages (
  id text collate "C" not null,
  project text not null,
  event text not null,
  key text not null,
  commit_lsn pg_lsn not null,
  change_lsn pg_lsn not null,
  ordinal integer not null,
  committed_at timestamp with time zone not null,
  body bytea not null,
  actor text,
  caused_by text collate "C",
  depth integer not null default 0,
  constraint messages_pkey PRIMARY KEY (id)
) partition by RANGE (id);

create table ancrage.migrations (
  number integer not null,
  name text not null,
  at timestamp with time zone not null default now(),
  constraint migrations_pkey PRIMARY KEY (number)
);

create table ancrage.outbox_a (
  id bigint not null,
  xid xid8 not null default pg_current_xact_id(),
  at timestamp with time zone not null default now(),
  kind "char" not null,
  root regclass,
  columns text,
  new_row text,
  old_row text,
  prefix text,
  content bytea,
  cut pg_snapshot,
  constraint outbox_a_kind_check CHECK ((kind = ANY (ARRAY['i'::"char", 'u'::"char", 'd'::"char", 't'::"char", 'm'::"char"])))
);

CREATE INDEX outbox_a_cut ON ancrage.outbox_a USING btree (xid) WHERE (cut IS NOT NULL);

CREATE INDEX outbox_a_xid ON ancrage.outbox_a USING btree (xid, id);

create table ancrage.outbox_b (
  id bigint not null,
  xid xid8 not null default pg_current_xact_id(),
  at timestamp with time zone not null default now(),
  kind "char" not null,
  root regclass,
  columns text,
  new_row text,
  old_row text,
  prefix text,
  content bytea,
  cut pg_snapshot,
  constraint outbox_a_kind_check CHECK ((kind = ANY (ARRAY['i'::"char", 'u'::"char", 'd'::"char", 't'::"char", 'm'::"char"])))
);

CREATE INDEX outbox_b_xid_id_idx ON ancrage.outbox_b USING btree (xid, id);

CREATE INDEX outbox_b_xid_idx ON ancrage.outbox_b USING btree (xid) WHERE (cut IS NOT NULL);

create table ancrage.rejections (
  id text collate "C" not null,
  project text not null,
  event text not null,
  key text not null,
  commit_lsn pg_lsn not null,
  change_lsn pg_lsn not null,
  ordinal integer not null,
  committed_at timestamp with time zone not null,
  reason text not null,
  error bytea not null,
  occurrence bytea not null,
  constraint rejections_pkey PRIMARY KEY (id)
) partition by RANGE (id);

create table ancrage.settings (
  only_row boolean not null default true,
  system_identifier text not null,
  database_oid oid,
  timeline integer,
  environment text not null default 'production'::text,
  generation integer not null default 0,
  footings jsonb not null default '{}'::jsonb,
  trigger_key bytea not null,
  inner_key bytea not null default ancrage.hmac_pad(trigger_key, 54),
  outer_key bytea not null default ancrage.hmac_pad(trigger_key, 92),
  capture text not null default 'wal'::text,
  constraint settings_capture_check CHECK ((capture = ANY (ARRAY['wal'::text, 'outbox'::text]))),
  constraint settings_only_row_check CHECK (only_row),
  constraint settings_pkey PRIMARY KEY (only_row),
  constraint settings_trigger_key_check CHECK ((length(trigger_key) = 64))
);

create table ancrage.subscription_health (
  subscription_id text collate "C" not null,
  failing_since timestamp with time zone not null,
  failures integer not null,
  updated_at timestamp with time zone not null default now(),
  constraint subscription_health_failures_check CHECK ((failures > 0)),
  constraint subscription_health_pkey PRIMARY KEY (subscription_id)
);

create table ancrage.subscription_starts (
  subscription_id text collate "C" not null,
  revision bigint not null,
  events text[] not null,
  filter jsonb,
  start_lsn pg_lsn,
  passed_at timestamp with time zone,
  constraint subscription_starts_pkey PRIMARY KEY (subscription_id, revision)
);

create table ancrage.subscriptions (
  id text collate "C" not null,
  project text not null,
  events text[] not null,
  url text not null,
  description text not null default ''::text,
  format text not null default 'standard'::text,
  filter jsonb,
  headers jsonb not null default '{}'::jsonb,
  delivery_order text not null default 'none'::text,
  limits jsonb not null default '{}'::jsonb,
  ignored_actors text[] not null default '{}'::text[],
  metadata jsonb not null default '{}'::jsonb,
  secrets jsonb not null,
  state text not null default 'enabled'::text,
  state_reason text,
  revision bigint not null default nextval('ancrage.revision'::regclass),
  start_revision bigint not null default currval('ancrage.revision'::regclass),
  start_lsn pg_lsn,
  expires_at timestamp with time zone,
  created_at timestamp with time zone not null default now(),
  updated_at timestamp with time zone not null default now(),
  constraint subscriptions_delivery_order_check CHECK ((delivery_order = ANY (ARRAY['none'::text, 'record'::text, 'all'::text]))),
  constraint subscriptions_events_check CHECK ((cardinality(events) > 0)),
  constraint subscriptions_format_check CHECK ((format = ANY (ARRAY['standard'::text, 'result'::text, 'bare'::text, 'cloudevents'::text]))),
  constraint subscriptions_pkey PRIMARY KEY (id),
  constraint subscriptions_state_check CHECK ((state = ANY (ARRAY['enabled'::text, 'paused'::text, 'disabled'::text, 'deleted'::text])))
);

CREATE INDEX subscriptions_expiry ON ancrage.subscriptions USING btree (expires_at) WHERE (state = ANY (ARRAY['enabled'::text, 'paused'::text]));

CREATE INDEX subscriptions_project ON ancrage.subscriptions USING btree (project, id);

CREATE INDEX subscriptions_revision ON ancrage.subscriptions USING btree (revision);

create table ancrage.tokens (
  id text collate "C" not null,
  project text,
  name text not null,
  hash bytea not null,
  created_at timestamp with time zone not null default now(),
  expires_at timestamp with time zone,
  last_used_at timestamp with time zone,
  revoked_at timestamp with time zone,
  constraint tokens_hash_check CHECK ((length(hash) = 32)),
  constraint tokens_hash_key UNIQUE (hash),
  constraint tokens_pkey PRIMARY KEY (id)
);

CREATE OR REPLACE FUNCTION ancrage.actor(name text)
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  if name is null or name = '' or length(name) > 256 then
    raise exception 'ancrage.actor: expected a name of 1 to 256 characters, got %', coalesce(quote_literal(left(name, 300)), 'null') using errcode = '22023';
  end if;
  perform ancrage.emit('ancrage.origin', jsonb_build_object('actor', name));
end
$function$
;
-- postgres=X/postgres

CREATE OR REPLACE FUNCTION ancrage.base32(value bigint, digits integer)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE STRICT
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select string_agg(substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', ((value >> (5 * i)) & 31)::integer + 1, 1), '' order by i desc)
  from generate_series(0, digits - 1) as i
$function$
;

CREATE OR REPLACE FUNCTION ancrage.caused_by(cause text)
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  if cause is null then
    return;
  end if;
  if length(cause) > 256 then
    raise exception 'ancrage.caused_by: expected the value of a header ancrage-cause, got % characters', length(cause) using errcode = '22023';
  end if;
  perform ancrage.emit('ancrage.origin', jsonb_build_object('cause', cause));
end
$function$
;
-- postgres=X/postgres

CREATE OR REPLACE FUNCTION ancrage.columns_of(root regclass)
 RETURNS text
 LANGUAGE plpgsql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  return (select json_agg(json_build_array(attname, atttypid::bigint, attgenerated) order by attnum)
    from pg_attribute where attrelid = root and attnum > 0 and not attisdropped);
end
$function$
;

CREATE OR REPLACE FUNCTION ancrage.drop_partition(parent text, day date)
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET lock_timeout TO '200ms'
AS $function$
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
$function$
;
-- postgres=X/postgres

CREATE OR REPLACE FUNCTION ancrage.emit(prefix text, content jsonb)
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$
;
-- postgres=X/postgres

CREATE OR REPLACE FUNCTION ancrage.ensure_partitions(day date)
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$
;
-- postgres=X/postgres

CREATE OR REPLACE FUNCTION ancrage.hmac_pad(key bytea, pad integer)
 RETURNS bytea
 LANGUAGE plpgsql
 IMMUTABLE STRICT
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  for i in 0..length(key) - 1 loop
    key := set_byte(key, i, get_byte(key, i) # pad);
  end loop;
  return key;
end
$function$
;

CREATE OR REPLACE FUNCTION ancrage.mute()
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  perform ancrage.emit('ancrage.origin', jsonb_build_object('mute', true));
end
$function$
;
-- postgres=X/postgres

CREATE OR REPLACE FUNCTION ancrage.outbox_turn(id bigint)
 RETURNS text
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  turn text := current_setting('ancrage.outbox_turn', true);
begin
  if turn is null or turn not in ('a', 'b') then
    turn := case when id & 4294967296 = 0 then 'a' else 'b' end;
    perform set_config('ancrage.outbox_turn', turn, true);
  end if;
  return turn;
end
$function$
;

CREATE OR REPLACE FUNCTION ancrage.trigger(event text, key text, data jsonb DEFAULT NULL::jsonb)
 RETURNS uuid
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$
;
-- postgres=X/postgres

CREATE OR REPLACE FUNCTION ancrage.truncate_outbox(turn text, consumed pg_snapshot)
 RETURNS boolean
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$
;
-- postgres=X/postgres

CREATE OR REPLACE FUNCTION ancrage.turn_outbox()
 RETURNS void
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select setval('ancrage.outbox_id', ((last_value >> 32) + 1) << 32) from ancrage.outbox_id
$function$
;
-- postgres=X/postgres

CREATE OR REPLACE FUNCTION ancrage.write_mark(prefix text, content bytea)
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$
;
