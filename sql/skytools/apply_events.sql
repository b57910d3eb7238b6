-- A batch of events of one captured table, applied to another as a set. Of all events about one row only its first state
-- and its last matter. A row may change its key on the way, so its life is followed over its keys: an update that changes
-- the key leaves one and arrives at another.

-- skytools._apply_columns(i_target, i_names) -> record
-- The columns of a target among some names, and how to read each out of a JSON object.
-- returns    name, type, sql: the value, given that the record r has a column of this name and type; generated; identity: always
-- runs as    caller
create or replace function skytools._apply_columns(
    i_target regclass, i_names text[], out name text, out type text, out sql text, out nullable boolean, out generated boolean, out identity boolean)
returns setof record
language sql stable set search_path = pg_catalog, pg_temp as $$
    select a.attname::text,
           -- Events carry JSON as a string: read as what it is, it would stay a string.
           case when b.is_json then 'text' else format_type(a.atttypid, a.atttypmod) end
           || case when a.attcollation <> 0 and a.attcollation <> y.typcollation and not b.is_json then format(' collate %I.%I', s.nspname, c.collname) else '' end,
           case when b.is_json then format('r.%I::%s', a.attname, format_type(a.atttypid, a.atttypmod)) else format('r.%I', a.attname) end,
           not a.attnotnull, a.attgenerated <> '', a.attidentity = 'a'
      from pg_attribute a
      join pg_type y on y.oid = a.atttypid
      cross join lateral (select coalesce(nullif(y.typbasetype, 0), y.oid) in ('json'::regtype, 'jsonb'::regtype) as is_json) b
      left join pg_collation c on c.oid = a.attcollation
      left join pg_namespace s on s.oid = c.collnamespace
     where a.attrelid = i_target and a.attname = any (i_names) and a.attnum > 0 and not a.attisdropped
     order by a.attnum
$$;

-- skytools._apply_sql(i_target, i_events, i_columns, i_key, i_method, i_moves, i_later) -> text
-- The statement that folds events into one change for each row and makes those changes.
-- i_events   a query that gives n (the order), op, row and old_row (jsonb)
-- i_columns  the columns that each event has, among those of the target
-- i_key      the columns that identify a row; none: each event is an insert
-- i_moves    whether some update has its old row, and so may have changed the key
-- i_later    false: leave rows that were inserted and updated as they were inserted, but for merged. True: bring those rows to
--            their last state, and no others
-- returns    a statement that gives one row (inserted, updated, deleted, missing, later)
-- runs as    caller
create or replace function skytools._apply_sql(
    i_target regclass, i_events text, i_columns text[], i_key text[], i_method text, i_moves boolean, i_later boolean) returns text
language plpgsql stable as $$
declare
    v_target text := (select pg_catalog.format('%I.%I', n.nspname, c.relname)
                        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = i_target);
    v_record text := (select string_agg(format('%I %s', c.name, c.type), ', ') from skytools._apply_columns(i_target, i_columns) c);
    v_key_record text := (select string_agg(format('%I %s', c.name, c.type), ', ') from skytools._apply_columns(i_target, i_key) c);
    v_new text;
    v_old text;
    v_differs text;
    v_k text := '';
    v_match text;
    v_written text;
    v_values text;
    v_assign text;
    v_rest text[];
    v_identity boolean;
    v_overriding text;
    v_update boolean := i_method = 'correct';
    v_which text;
    v_state text;
begin
    -- In the statement, a column is called by its place: c1, c2 ... of the event, k1 ... of the key.
    select string_agg(format('%s as c%s', c.sql, c.n), ', ' order by c.n),
           string_agg(quote_ident(c.name), ', ' order by c.n) filter (where not c.generated),
           string_agg('f.c' || c.n, ', ' order by c.n) filter (where not c.generated),
           string_agg(format('%I = f.c%s', c.name, c.n), ', ' order by c.n) filter (where not c.generated and not c.identity),
           bool_or(c.identity and c.name = any (i_key)), case when bool_or(c.identity) then 'overriding system value ' else '' end
      into v_new, v_written, v_values, v_assign, v_identity, v_overriding
      from skytools._apply_columns(i_target, i_columns) with ordinality c (name, type, sql, nullable, generated, identity, n);
    select string_agg(format(', %s as k%s', regexp_replace(c.sql, '^r\.', 'o.'), c.n), '' order by c.n),
           string_agg(format('o.%1$I is distinct from r.%1$I', c.name), ' or '),
           string_agg(', k' || c.n, '' order by c.n),
           string_agg(format(case when c.nullable then 'array[t.%I] = array[f.k%s]' else 't.%I = f.k%s' end, c.name, c.n), ' and ')
      into v_old, v_differs, v_k, v_match
      from skytools._apply_columns(i_target, i_key) with ordinality c (name, type, sql, nullable, generated, identity, n);
    -- What the events do not have stays, even where an update is made by delete and insert.
    v_rest := array(select quote_ident(a.attname) from pg_catalog.pg_attribute a
                     where a.attrelid = i_target and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and a.attname <> all (i_columns)
                     order by a.attnum);
    if v_assign is null or i_moves and v_identity then
        v_update := false;
    end if;
    -- A delete that others follow by a foreign key is not half of an update.
    if v_assign is not null and exists (select from pg_catalog.pg_constraint c where c.confrelid = i_target and c.contype = 'f' and c.confdeltype in ('c', 'n', 'd')) then
        v_update := true;
    end if;

    if i_key = '{}' then
        return format('with "i" as (insert into %s (%s) %sselect %s from (select e.n, %s from (%s) e cross join lateral jsonb_to_record(e.row) as r (%s)) f order by f.n returning 1)'
                      ' select (select count(*) from "i") as inserted, 0::bigint as updated, 0::bigint as deleted, 0::bigint as missing, 0::bigint as later',
                      v_target, v_written, v_overriding, v_values, v_new, i_events, v_record);
    end if;

    v_state := case when i_later then 'f.born is not null and f.alive and f.last > f.born and not f.moved' else 'f.born is null and f.alive' end;
    v_which := case when i_method = 'merged' or i_later then 'f.last' else 'case when f.born is null or f.moved then f.last else f.born end' end;
    return 'with recursive '
        -- Each event, typed.
        || format('"e" as materialized (select e.n, %s, %s from (%s) e cross join lateral jsonb_to_record(e.row) as r (%s)%s)',
                  case when i_moves then format('case when e.op = ''U'' and e.old_row is not null and (%s) then ''a'' else lower(e.op) end as kind%s', v_differs, v_old)
                       else 'lower(e.op) as kind' end,
                  v_new, i_events, v_record,
                  case when i_moves then format(' left join lateral jsonb_to_record(e.old_row) as o (%s) on e.old_row is not null', v_key_record) else '' end)
        -- What happened to each key: inserted, updated, deleted, left, arrived at.
        || format(', "x" as (select e.n, e.kind%s from "e" e%s)',
                  (select string_agg(format(', e.c%s as k%s', d.n, c.n), '' order by c.n)
                     from skytools._apply_columns(i_target, i_key) with ordinality c (name, type, sql, nullable, generated, identity, n)
                     join skytools._apply_columns(i_target, i_columns) with ordinality d (name, type, sql, nullable, generated, identity, n)
                       on d.name = c.name),
                  case when i_moves then format(' union all select e.n, ''l''%s from "e" e where e.kind = ''a''', v_k) else '' end)
        -- A life under one key begins when the row is inserted or arrives, and ends when it is deleted or leaves.
        || format(', "y" as (select x.*, count(*) filter (where kind in (''i'', ''a'')) over (partition by %1$s order by n) as life from "x" x)'
                  ', "z" as materialized (select %1$s, min(n) filter (where kind = ''i'') as born, min(n) filter (where kind = ''a'') as arrived,'
                  ' min(n) filter (where kind = ''l'') as left_at, min(n) filter (where kind in (''d'', ''l'')) as ended, max(n) as last from "y" group by %1$s, life)',
                  substr(v_k, 3))
        -- The whole life of a row begins under its first key.
        || case when i_moves then
            format(', "w" as (select z.born, z.left_at, z.ended, z.last, false as moved%1$s from "z" z where z.arrived is null'
                   ' union all select w.born, z.left_at, z.ended, z.last, true%2$s from "w" w join "z" z on z.arrived = w.left_at and w.left_at = w.ended)'
                   ', "f" as materialized (select w.born, w.last, w.moved, w.ended is null as alive%2$s from "w" w where w.ended is null or w.left_at is distinct from w.ended)',
                   replace(v_k, ' k', ' z.k'), replace(v_k, ' k', ' w.k'))
           else ', "f" as (select z.*, false as moved, z.ended is null as alive from "z" z)' end
        || format(', "d" as (delete from %s t using "f" f where f.born is null and not f.alive and not %L::boolean and %s returning 1)', v_target, i_later, v_match)
        -- Each row that lives on, with its values. No statistics tell how many there are, and a full join is never a nested loop.
        || format(', "g" as materialized (select f.*%s from "f" f full join "e" e on e.n = %s where coalesce(f.alive, false))',
                  (select string_agg(', e.c' || n, '' order by n) from generate_series(1, cardinality(i_columns)) n), v_which)
        || case when v_update then
            format(', "u" as (update %s t set %s from "g" f where %s and %s and (select count(*) from "d") >= 0 returning 1)',
                   v_target, v_assign, v_state, v_match)
           else
            format(', "o" as (delete from %1$s t using "g" f where %2$s and %3$s and (select count(*) from "d") >= 0 returning f.*%4$s)'
                   ', "u" as (insert into %1$s (%5$s) overriding system value select %6$s from "o" f where (select count(*) from "o") >= 0 returning 1)',
                   v_target, v_state, v_match, (select coalesce(string_agg(format(', t.%s as r%s', c, n), ''), '') from unnest(v_rest) with ordinality u (c, n)),
                   concat_ws(', ', v_written, nullif(array_to_string(v_rest, ', '), '')),
                   concat_ws(', ', v_values, (select string_agg('f.r' || n, ', ' order by n) from generate_series(1, cardinality(v_rest)) n)))
           end
        || format(', "i" as (insert into %s (%s) %sselect %s from "g" f where f.born is not null and not %L::boolean and (select count(*) from "u") >= 0 order by f.born returning 1)',
                  v_target, v_written, v_overriding, v_values, i_later)
        || format(' select (select count(*) from "i") as inserted, (select count(*) from "u") as updated, (select count(*) from "d") as deleted,'
                  ' case when %1$L::boolean then 0 else (select count(*) from "f" f where f.born is null) - (select count(*) from "d") - (select count(*) from "u") end as missing,'
                  ' (select count(*) from "f" f where f.born is not null and f.alive and f.last > f.born and not f.moved) as later', i_later);
end $$;

-- skytools._refuse_event(i_event) -> boolean
-- Stop a statement that meets an event with other columns than the rest.
-- raises     PQ029
-- runs as    caller
create or replace function skytools._refuse_event(i_event bigint) returns boolean
language plpgsql as $$
begin
    raise exception 'event % has other columns than those before it', i_event
        using errcode = 'PQ029', hint = 'the table was altered meanwhile: apply the batch row by row';
end $$;

-- skytools._apply_key(i_target, i_key, i_columns) -> text[]
-- The columns by which events find their rows: those given, else the target's primary key.
-- i_columns  the columns that events have
-- returns    in the target's order
-- raises     PQ024  none, or one that the events or the target do not have
-- runs as    caller
create or replace function skytools._apply_key(i_target regclass, i_key text[], i_columns text[]) returns text[]
language plpgsql stable as $$
declare
    v_key text[] := i_key;
    v_bad text;
begin
    if coalesce(v_key, '{}') = '{}' then
        v_key := array(select a.attname::text
                         from pg_catalog.pg_index i, unnest(i.indkey::smallint[]) with ordinality k (num, n), pg_catalog.pg_attribute a
                        where i.indrelid = i_target and i.indisprimary and k.n <= i.indnkeyatts and a.attrelid = i_target and a.attnum = k.num);
    end if;
    if v_key = '{}' then
        raise exception 'neither the events nor table % have a key', i_target
            using errcode = 'PQ024', hint = 'say which columns identify a row: key => array[''id'']';
    end if;
    select string_agg(quote_ident(k), ', ') into v_bad
      from unnest(v_key) k
     where k <> all (i_columns) or k not in (select c.name from skytools._apply_columns(i_target, v_key) c);
    if v_bad is not null then
        raise exception 'key of %: the events or the table have no column %', i_target, v_bad
            using errcode = 'PQ024', hint = 'say which columns identify a row: key => array[''id'']';
    end if;
    return array(select c.name from skytools._apply_columns(i_target, v_key) c);
end $$;

-- skytools._apply_names(i_target, i_row, i_columns, i_event) -> text[]
-- The columns of a target that an event sets.
-- i_columns  only these; null: all, which the target must have
-- raises     PQ024  the target has no such column
-- raises     PQ029  the event has no row, or one with columns that the target lacks
-- runs as    caller
create or replace function skytools._apply_names(i_target regclass, i_row jsonb, i_columns text[], i_event bigint) returns text[]
language plpgsql stable as $$
declare
    v_names text[];
    v_has text[];
    v_bad text;
begin
    if jsonb_typeof(i_row) is distinct from 'object' then
        raise exception 'event %: its data is not a row', i_event
            using errcode = 'PQ029', hint = 'rows are JSON objects or urlencoded: name=value&name=value';
    end if;
    v_has := array(select jsonb_object_keys(i_row));
    v_names := array(select c.name from skytools._apply_columns(i_target, coalesce(i_columns, v_has)) c);
    select string_agg(quote_ident(k), ', ') into v_bad from unnest(coalesce(i_columns, v_has)) k where k <> all (v_names);
    if v_bad is not null and i_columns is not null then
        raise exception 'table % has no column %', i_target, v_bad
            using errcode = 'PQ024', hint = 'columns names those to take from the events, all of them if it is null';
    elsif v_bad is not null then
        raise exception 'event %: table % has no column %', i_event, i_target, v_bad
            using errcode = 'PQ029', hint = 'add it, or name those to take from the events: columns => array[...]';
    end if;
    return array(select n from unnest(v_names) n where n = any (v_has));
end $$;

-- skytools.apply_events(batch_id, target, ...) -> record
-- Apply the events of a captured table in an open batch to a table, as a set. It ends as if they had been applied one by one.
-- batch_id   an open batch; finish it in the same transaction
-- target     the table to change
-- method     correct: updates are updates, a row that was inserted and then updated is so here too; delete: updates are a
--            delete and an insert; merged: as delete, and a row that was inserted and then updated is inserted once, as it was last
-- source     ev_extra1 of the events to apply; default: the target's own name, schema.table without quotes
-- key        the columns that identify a row; default: the key in the events, else the target's primary key
-- columns    the columns to take from the events; default: all, and the target must have them
-- returns    one row: events applied, rows inserted, updated, deleted; missing: rows to update or delete that the target lacks;
--            truncated: it was emptied first; set_wise: false when the events had to be applied one by one
-- raises     PQ003  no such open batch
-- raises     PQ024  an argument is wrong: the method, a column, no key
-- raises     PQ029  an event is not of a captured table, is of format sql, or has columns that the target lacks
-- locks      the rows that it changes; a TRUNCATE locks the table
-- runs as    caller, who needs pgq_reader and the rights to change the target
-- see        docs/batch-updates.md
create or replace function skytools.apply_events(
    batch_id bigint, target regclass, method text default 'merged', source text default null, key text[] default null, columns text[] default null,
    out events bigint, out inserted bigint, out updated bigint, out deleted bigint, out missing bigint, out truncated boolean, out set_wise boolean)
language plpgsql set jit = off set work_mem = '64MB' set enable_nestloop = on as $$
#variable_conflict use_variable
declare
    v_source text := coalesce(source, (select n.nspname || '.' || c.relname
                                         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = target));
    v_batch text;
    v_type text;
    v_count bigint;
    v_first bigint;
    v_last bigint;
    v_extras bigint;
    v_data text;
    v_kind record;
    v_format text;
    v_key text[];
    v_after bigint := 0;
    v_ops text := '';
    v_all text := '';
    v_old bigint := 0;
    v_row jsonb;
    v_has text[];
    v_names text[];
    v_decode text;
    v_events text;
    v_later bigint;
    v_second bigint;
begin
    if coalesce(method, '') not in ('correct', 'delete', 'merged') then
        raise exception 'apply_events to %: method is %', coalesce(target::text, 'NULL'), quote_nullable(method)
            using errcode = 'PQ024', hint = 'method: correct, delete or merged';
    elsif v_source is null then
        raise exception 'no table to change: %', coalesce(target::text, 'NULL')
            using errcode = 'PQ024', hint = 'select skytools.apply_events(batch_id, ''app.orders'')';
    end if;
    v_batch := pgq._batch_query(batch_id, pg_catalog.format(' and ev.ev_extra1 = %L', v_source));
    events := 0; inserted := 0; updated := 0; deleted := 0; missing := 0; truncated := false; set_wise := true;

    -- A table's events have few types. Those before the last TRUNCATE do not matter.
    for v_type, v_count, v_first, v_last, v_extras in
        execute format('select b.ev_type as type, count(*) as n, min(b.ev_id) as first, max(b.ev_id) as last, count(b.ev_extra2) as old from (%s) b group by 1', v_batch)
    loop
        v_kind := skytools._event_kind(v_type);
        events := events + v_count;
        if v_kind.op is null or v_kind.format = 'sql' then
            raise exception 'event % of batch %: type % is not one that can be applied', v_first, batch_id, quote_nullable(v_type)
                using errcode = 'PQ029', hint = 'capture the table as json or urlencode, and leave event_type as it is: select pgq.capture(''table'', ''queue'')';
        elsif v_kind.op = 'R' then
            truncated := true;
            v_after := greatest(v_after, v_last);
            continue;
        end if;
        set_wise := set_wise and coalesce(v_format = v_kind.format and v_key = v_kind.key, true);
        v_format := v_kind.format;
        v_key := v_kind.key;
        v_all := v_all || v_kind.op;
        v_old := v_old + case v_kind.op when 'U' then v_extras else 0 end;
        v_ops := v_ops || format(' when %L then %L', v_type, v_kind.op);
    end loop;
    if truncated then
        if exists (select from pg_catalog.pg_constraint c where c.confrelid = target and c.contype = 'f') then
            execute format('delete from %s', target);
        else
            execute format('truncate %s', target);
        end if;
    end if;
    v_batch := format('select * from (%s) b where b.ev_id > %s', v_batch, v_after);
    execute format('select b.ev_id as id, b.ev_data as data from (%s) b order by b.ev_id limit 1', v_batch) into v_first, v_data;
    if v_first is null then
        return;
    end if;

    -- Nothing tells the planner how many events there are: with so many, each row of the target is read but once.
    if v_old > 1000 or events > (select c.reltuples / 20 from pg_catalog.pg_class c where c.oid = target) then
        perform pg_catalog.set_config('enable_nestloop', 'off', true);
    end if;
    if set_wise then
        begin
            v_row := skytools._decode_row(v_data);
            v_names := skytools._apply_names(target, v_row, columns, v_first);
            v_has := array(select jsonb_object_keys(v_row));
            v_key := coalesce(nullif(key, '{}'), v_key);
            if v_key <> '{}' or v_all ~ '[UD]' then
                v_key := skytools._apply_key(target, v_key, v_names);
            end if;
            v_decode := case v_format when 'json' then '%s::pg_catalog.jsonb' else 'skytools._decode_row(%s)' end;
            v_events := format('select q.n, q.op, q.row, case when q.old ?& %2$L then q.old end as old_row from (select b.ev_id as n, case b.ev_type%3$s end as op, %4$s as row, %5$s as old from (%1$s) b offset 0) q'
                               ' where (q.row ?& %6$L and q.row - %6$L::text[] = ''{}'') is true or skytools._refuse_event(q.n)',
                               v_batch, v_key, v_ops, format(v_decode, 'b.ev_data'),
                               case when v_old > 0 then 'skytools._decode_row(b.ev_extra2)' else 'null::jsonb' end, v_has);
            execute skytools._apply_sql(target, v_events, v_names, v_key, method, v_old > 0, false)
               into inserted, updated, deleted, missing, v_later;
            if method <> 'merged' and v_later > 0 then
                execute skytools._apply_sql(target, v_events, v_names, v_key, method, v_old > 0, true) into v_later, v_second;
                updated := updated + v_second;
            end if;
            return;
        exception
            -- Other events in between may be what makes it possible, and if not, the replay names the event that fails.
            when integrity_constraint_violation or data_exception or sqlstate 'PQ029' then
                set_wise := false;
        end;
    end if;
    select r.inserted, r.updated, r.deleted, r.missing into inserted, updated, deleted, missing
      from skytools._replay_events(batch_id, target, v_batch, key, columns) r;
end $$;
