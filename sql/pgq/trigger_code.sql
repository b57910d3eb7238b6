-- Code that is generated for a trigger, when it is fired for the first time: a function that writes the events of one
-- table's rows. It is found by the names of table and trigger alone, holds no dependency on them, and tells when it no
-- longer fits; then it is written anew.

-- pgq._trigger_shape(i_table, i_trigger) -> text
-- A hash of what generated code supposes about a trigger and its table; immutable as pgq._shape() is.
-- returns    null: no such trigger
-- runs as    owner: whoever writes the table
create or replace function pgq._trigger_shape(i_table regclass, i_trigger name) returns text
language plpgsql immutable security definer set search_path = pg_catalog, pg_temp as $$
begin
    return (select md5(row(pgq._shape(i_table), p.proname, t.tgname, t.tgtype, t.tgargs)::text)
              from pg_trigger t join pg_proc p on p.oid = t.tgfoid
             where t.tgrelid = i_table and t.tgname = i_trigger);
end $$;

-- pgq._trigger_definition(i_table, i_trigger) -> record
-- The kind and arguments of a trigger that logs events.
-- runs as    caller
create or replace function pgq._trigger_definition(i_table oid, i_trigger name, out kind text, out type integer, out args text[], out columns name[])
returns record
language sql stable as $$
    select p.proname, t.tgtype,
           -- pg_trigger holds the arguments one after the other, each ended by a zero byte.
           (select array_agg(convert_from(decode(replace(a.hex, ' ', ''), 'hex'), getdatabaseencoding()) order by a.n)
              from unnest(string_to_array(regexp_replace(encode(t.tgargs, 'hex'), '..', '\& ', 'g'), '00 ')) with ordinality a (hex, n)
             where a.n <= t.tgnargs),
           (select array_agg(c.name order by c.attnum) from pgq._table_columns(i_table) c)
      from pg_trigger t
      join pg_proc p on p.oid = t.tgfoid and p.pronamespace = 'pgq'::regnamespace
       and p.proname = any ('{jsontriga,logutriga,sqltriga}')
     where t.tgrelid = i_table and t.tgname = i_trigger
$$;

-- pgq._trigger_event(i_table, i_kind, i_op, i_key, i_columns, i_backup) -> text[]
-- SQL for the six fields of an event about a row in i_new, or a change of i_old to i_new.
-- i_kind     jsontriga, logutriga or sqltriga
-- i_key      the key columns; as text, in which a list of names given by hand is taken as it is
-- i_columns  the columns that go into the event
-- runs as    caller
create or replace function pgq._trigger_event(
    i_table oid, i_kind text, i_op text, i_key name[], i_key_text text, i_columns name[], i_backup boolean)
returns text[]
language sql stable as $$
    select array[
        quote_literal(case i_kind
            when 'jsontriga' then format('{"op":"%s","table":[%s,%s],"pkey":[%s]}', i_op, to_json(n.nspname::text), to_json(c.relname::text),
                (select string_agg(to_json(k.name)::text, ',' order by k.n)
                   from unnest(coalesce(case i_key_text when '' then '{""}' else string_to_array(i_key_text, ',') end, i_key::text[]))
                        with ordinality k (name, n)))
            when 'logutriga' then left(i_op, 1) || ':' || coalesce(i_key_text, array_to_string(i_key, ','), '')
            else left(i_op, 1) end),
        case when i_kind = 'jsontriga' then pgq._encode_row(i_table, 'json', i_columns, 'i_new')
             when i_kind = 'logutriga' then pgq._encode_row(i_table, 'urlencode', i_columns, 'i_new')
             when i_op = 'INSERT' then pgq._encode_row(i_table, 'sql', i_columns, 'i_new')
             when i_op = 'UPDATE' then pgq._encode_sql_update(i_table, i_columns, i_key, 'i_new', 'i_old')
             else pgq._encode_sql_key(i_table, i_key, 'i_new') end,
        quote_literal(n.nspname || '.' || c.relname),
        case when i_backup and i_op = 'UPDATE'
             then pgq._encode_row(i_table, case i_kind when 'jsontriga' then 'json' else 'urlencode' end, i_columns, 'i_old')
             else 'null' end,
        'null', 'null']
      from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = i_table
$$;

-- pgq._trigger_plain(i_table) -> boolean
-- Whether the values of a table read the same whoever reads them, with any search_path, and run no code but Postgres' own:
-- then code generated for a trigger may run as the owner of pgq.
-- runs as    caller
create or replace function pgq._trigger_plain(i_table oid) returns boolean
language sql stable as $$
    select coalesce(bool_and(t.typtype = 'b' and t.typnamespace = 'pg_catalog'::regnamespace and t.typcategory in ('B', 'D', 'I', 'N', 'S', 'T', 'U')
                             and t.typname !~ '^reg' and t.typname <> 'refcursor'), true)
      from pgq._table_columns(i_table) c join pg_type t on t.oid = c.type
$$;

-- pgq._trigger_body(i_table, i_trigger, i_queue_id) -> text
-- PL/pgSQL that logs the event of one row, for the function that pgq._trigger_code() makes.
-- i_queue_id the queue, for code that puts the event into its table; null for code that calls pgq.insert_event()
-- raises     PQ016
-- runs as    caller, within a security definer function
create or replace function pgq._trigger_body(i_table oid, i_trigger name, i_queue_id integer) returns text
language plpgsql stable as $body$
declare
    v_trigger record;
    v_args record;
    v_op text;
    v_key name[];
    v_columns name[];
    v_magic name[];
    v_unknown name;
    v_ignored name[];
    v_fields text[];
    v_names constant text[] := array['ev_type', 'ev_data', 'ev_extra1', 'ev_extra2', 'ev_extra3', 'ev_extra4'];
    v_code text;
    v_body text := '';
    v_values text;
    v_store text := '';
    v_table text := (select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = i_table);
begin
    select * into v_trigger from pgq._trigger_definition(i_table, i_trigger);
    select * into v_args from pgq._trigger_arguments(v_trigger.args, v_trigger.type);
    v_magic := array(select c from unnest(v_trigger.columns) c where c like '\_pgq\_ev\_%');
    select c into v_unknown from unnest(v_magic) c where substr(c, 6) <> all (v_names);
    if found then
        raise exception 'Unknown magic column: %', v_unknown
            using errcode = 'PQ016', hint = 'there are _pgq_ev_type, _pgq_ev_data, _pgq_ev_extra1 to _pgq_ev_extra4';
    end if;
    v_key := coalesce(regexp_split_to_array(v_args.key, '[\s,]+')::name[], pgq._key_columns(i_table));
    v_columns := array(select c from unnest(v_trigger.columns) c where c <> all (v_magic) and c <> all (coalesce(v_args.ignored, '{}')));
    v_ignored := array(select c from unnest(v_trigger.columns) c
                        where c <> all (v_columns) and (v_trigger.kind = 'sqltriga' or v_args.ignored is not null));

    -- Updates come first: they are the most common.
    foreach v_op in array array['UPDATE', 'INSERT', 'DELETE'] loop
        v_code := '';
        if v_args.deny then
            v_code := format($part$
        raise exception 'Table ''%%'' to queue ''%%'': change not allowed (%%)', %L, %L, i_op
            using errcode = 'PQ017', hint = 'change it where the queue is filled from, or drop the trigger that denies it';$part$,
                v_table, v_args.queue_name);
        elsif v_op <> 'INSERT' and (v_key is null or v_args.key ~ '^[\s,]*$') then
            v_code := format($part$
        raise exception 'Update/Delete on table without pkey: %%', %L
            using errcode = 'PQ018', hint = 'give the table a primary key, or name columns in the trigger: pkey=a,b';$part$, v_table);
        else
            if v_op = 'UPDATE' then
                v_code := format($part$
        if %s then
            raise exception 'primary key update not allowed: table %%', %L
                using errcode = 'PQ018', hint = 'delete the row and insert it with its new key';
        end if;$part$, pgq._encode_changed(i_table, v_key, 'i_new', 'i_old'), v_table);
                if v_ignored <> '{}' then
                    v_code := v_code || format($part$
        if not (%s) and (%s) then
            return %s;
        end if;$part$, pgq._encode_changed(i_table, v_columns, 'i_new', 'i_old'),
                        pgq._encode_changed(i_table, v_ignored, 'i_new', 'i_old'), (not v_args.skip)::text);
                end if;
            end if;
            if v_args.condition is not null then
                v_code := v_code || format($part$
        v_holds := pgq._condition_holds(array(select t.v from (select %s
            ) t (v)));
        if v_holds is null then
            raise exception 'when= should not be NULL: trigger %% on %%', %L, %L
                using errcode = 'PQ016', hint = 'when=coalesce(..., false)';
        elsif not v_holds then
            return %s;
        end if;$part$, pgq._put_values(v_args.condition, v_trigger.columns, 'i_new'), i_trigger, v_table, (not v_args.skip)::text);
            end if;
            v_fields := pgq._trigger_event(i_table, v_trigger.kind, v_op,
                case v_trigger.kind when 'sqltriga' then array(select k from unnest(v_key) with ordinality u (k, n) where k <> all (v_magic) order by n)
                                    else v_key end, v_args.key, v_columns, v_args.backup);
            for v_n in 1..6 loop
                if v_args.fields[v_n] ~ '^\s*$' then
                    v_fields[v_n] := 'null';
                elsif v_args.fields[v_n] is not null then
                    v_fields[v_n] := format(
                        e'pgq._one_value(array(select case when t.v is distinct from null then pg_catalog.concat(t.v) end from (select %s\n'
                        '            ) t (v)))', pgq._put_values(v_args.fields[v_n], v_trigger.columns, 'i_new'));
                elsif '_pgq_' || v_names[v_n] = any (v_magic) then
                    v_fields[v_n] := (select pgq._text_of(format('i_new.%I', c.name), c.type)
                                        from pgq._table_columns(i_table) c where c.name = '_pgq_' || v_names[v_n]);
                end if;
            end loop;
            if i_queue_id is null then
                v_code := v_code || format($part$
        v_id := pgq.insert_event(%L, %s);$part$, v_args.queue_name, array_to_string(v_fields, e',\n            '));
            else
                -- The other fields are the same for each operation.
                v_code := v_code || (select string_agg(format(e'\n        v_%s := %s;', v_names[n], v_fields[n]), '' order by n)
                                       from unnest(array[1, 2, 4]) n where v_fields[n] <> 'null');
                v_values := format('v_ev_type, v_ev_data, %s, v_ev_extra2, %s, %s', v_fields[3], v_fields[5], v_fields[6]);
            end if;
        end if;
        v_body := v_body || format(e'\n    %s i_op = %L then%s', case v_op when 'UPDATE' then 'if' else 'elsif' end, v_op, v_code);
    end loop;
    if v_values is not null then
        v_store := format(e'\n    v_slot := pgq.event_%s_admit(1);', i_queue_id) || (
            select string_agg(format(e'\n    %s then\n        insert into %s (ev_time, %s)\n        values (now(), %s);',
                       case s.n when 0 then 'if v_slot = 0' when 1 then 'elsif v_slot = 1' else 'elsif v_slot = 2' end, pgq._event_table(i_queue_id, s.n),
                       array_to_string(v_names, ', '), v_values), '' order by s.n)
              from generate_series(0, 2) s (n)) || e'\n    end if;';
    end if;
    -- Null tells the caller to have this function made anew.
    return format($whole$
#variable_conflict use_column
declare
    v_id bigint;
    v_holds boolean;
    v_slot integer;
    v_ev_type text;
    v_ev_data text;
    v_ev_extra2 text;
begin
    if pgq._trigger_shape(%L, %L) is distinct from %L then
        return null;
    end if;%s
    end if;%s
    return %s;
end $whole$, i_table, i_trigger, pgq._trigger_shape(i_table, i_trigger), v_body, v_store, (not v_args.skip)::text);
end $body$;

-- pgq._trigger_code(i_table, i_trigger) -> text
-- Make the function of a trigger. One transaction at a time makes the one for all; others that come before it has
-- committed make one for their own session, so nobody waits. It may be executed by whoever may execute pgq.insert_event().
-- returns    the function's name
-- raises     PQ016
-- raises     42501  the caller may not execute pgq.insert_event()
-- locks      an advisory lock for the trigger, and the queue's row in pgq.queue for key share, to the end of the transaction
-- runs as    owner: a producer need not be allowed to create functions
create or replace function pgq._trigger_code(i_table oid, i_trigger name) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $make$
declare
    v_name text := format('trigger_%s_%s', i_table, left(md5(i_trigger), 12));
    v_shape text := pgq._trigger_shape(i_table, i_trigger);
    v_args record;
    v_queue integer;
begin
    if not pg_try_advisory_xact_lock('pgq.event_template'::regclass::oid::bigint::integer, hashtext(v_name)) then
        v_name := format('%s_%s', v_name, pg_backend_pid());
    end if;
    if not exists (select from pg_proc p where p.pronamespace = 'pgq'::regnamespace and p.proname = v_name
                                           and position(v_shape in p.prosrc) > 0) then
        select a.* into v_args from pgq._trigger_definition(i_table, i_trigger) t cross join lateral pgq._trigger_arguments(t.args, t.type) a;
        -- Expressions have the rights and the search_path of whoever writes the table; what neither matters to is faster without.
        if v_args.condition is null and array_remove(v_args.fields, null) = '{}' and pgq._trigger_plain(i_table) then
            select q.queue_id into v_queue from pgq.queue q where q.queue_name = v_args.queue_name for key share;
        end if;
        execute format('create or replace function pgq.%I(i_op text, i_new anyelement, i_old anyelement) returns boolean language plpgsql %s as %L',
                       v_name, case when v_queue is null then 'stable' else 'security definer set search_path = pg_catalog, pg_temp' end,
                       pgq._trigger_body(i_table, i_trigger, v_queue));
        execute format('comment on function pgq.%I is %L', v_name,
                       format('skytools: generated for trigger %I on %s; made anew by itself', i_trigger, i_table::regclass));
    end if;
    perform pgq._grant_trigger_code(format('pgq.%s', v_name)::regproc);
    return 'pgq.' || v_name;
end $make$;

-- pgq._grant_trigger_code(i_function) -> void
-- Let those who may execute pgq.insert_event() execute the code of a trigger.
-- runs as    caller, who must own it
create or replace function pgq._grant_trigger_code(i_function regproc) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_grantee oid;
begin
    execute format('revoke all on function %s from public', i_function);
    for v_grantee in
        select a.grantee from pg_proc p cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
         where p.oid = 'pgq.insert_event(text,text,text,text,text,text,text)'::regprocedure and a.privilege_type = 'EXECUTE'
    loop
        execute format('grant execute on function %s to %s', i_function,
                       case v_grantee when 0 then 'public' else quote_ident(pg_get_userbyid(v_grantee)) end);
    end loop;
end $$;

-- pgq._drop_queue_code(i_queue_id) -> void
-- Drop what was generated for triggers and puts events into the tables of a queue that is gone, or has another name now.
-- runs as    caller, who must own it
create or replace function pgq._drop_queue_code(i_queue_id integer) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_function regprocedure;
begin
    for v_function in
        select p.oid from pg_proc p
         where p.pronamespace = 'pgq'::regnamespace and p.proname like 'trigger\_%'
           and position(format('pgq.event_%s_admit(', i_queue_id) in p.prosrc) > 0
    loop
        execute format('drop function %s', v_function);
    end loop;
end $$;

-- pgq._drop_trigger_code() -> integer
-- Drop what was generated for triggers that are gone, or for sessions that have ended.
-- returns    number of functions
-- runs as    caller, who must own them
create or replace function pgq._drop_trigger_code() returns integer
language plpgsql as $$
declare
    v_function regprocedure;
    v_count integer := 0;
begin
    for v_function in
        select p.oid from pg_catalog.pg_proc p
         where p.pronamespace = 'pgq'::pg_catalog.regnamespace and p.proname ~ '^trigger_[0-9]+_[0-9a-f]{12}(_[0-9]+)?$'
           and (not exists (select from pg_catalog.pg_trigger t
                             where t.tgrelid = split_part(p.proname, '_', 2)::oid
                               and left(md5(t.tgname), 12) = split_part(p.proname, '_', 3))
                or split_part(p.proname, '_', 4) <> ''
                   and not exists (select from pg_catalog.pg_stat_activity a where a.pid::text = split_part(p.proname, '_', 4)))
    loop
        execute pg_catalog.format('drop function if exists %s', v_function);
        v_count := v_count + 1;
    end loop;
    return v_count;
end $$;

-- pgq._truncate_event(i_table, i_trigger, i_op) -> record
-- The event of a TRUNCATE.
-- raises     PQ016  it is not a TRUNCATE that the trigger was fired for
-- raises     PQ017
-- runs as    owner: whoever truncates the table
create or replace function pgq._truncate_event(
    i_table oid, i_trigger name, i_op text, out queue_name text, out ev_type text, out ev_data text, out ev_extra1 text)
returns record
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
declare
    v_trigger record;
    v_args record;
    v_schema name;
    v_name name;
begin
    if i_op <> 'TRUNCATE' then
        raise exception 'pgq Ins/Upd/Del trigger must be fired FOR EACH ROW: trigger % on %', quote_ident(i_trigger), i_table::regclass
            using errcode = 'PQ016', hint = 'create trigger ... for each row execute function ...';
    end if;
    select * into v_trigger from pgq._trigger_definition(i_table, i_trigger);
    select * into v_args from pgq._trigger_arguments(v_trigger.args, v_trigger.type);
    select n.nspname, c.relname into v_schema, v_name from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = i_table;
    queue_name := v_args.queue_name;
    ev_extra1 := v_schema || '.' || v_name;
    if v_args.deny then
        raise exception 'Table ''%'' to queue ''%'': change not allowed (%)', ev_extra1, queue_name, i_op
            using errcode = 'PQ017', hint = 'change it where the queue is filled from, or drop the trigger that denies it';
    end if;
    ev_type := 'R';
    ev_data := '';
    if v_trigger.kind = 'jsontriga' then
        ev_type := format('{"op":"TRUNCATE","table":[%s,%s],"pkey":[%s]}', to_json(v_schema::text), to_json(v_name::text),
                          (select string_agg(to_json(k::text)::text, ',') from unnest(pgq._key_columns(i_table)) k));
        ev_data := '{}';
    end if;
end $$;
