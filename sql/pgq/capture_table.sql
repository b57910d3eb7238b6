create or replace view pgq.captured_table as
select c.cap_table as captured_table, n.nspname || '.' || r.relname as table_name, q.queue_name, c.cap_options ->> 'format' as format,
       array(select jsonb_array_elements_text(c.cap_options -> 'operations')) as operations,
       c.cap_level as level, c.cap_options as options,
       c.cap_shape is distinct from pgq._shape(c.cap_table) as stale,
       c.cap_id as capture_id
  from pgq.captured c
  join pgq.queue q on q.queue_id = c.cap_queue
  join pg_catalog.pg_class r on r.oid = c.cap_table
  join pg_catalog.pg_namespace n on n.oid = r.relnamespace;
comment on view pgq.captured_table is 'Tables whose changes become events, and whether the code for that still fits the table';

-- pgq._capture_options(i_table, i_queue_name, i_options) -> jsonb
-- Options as they are stored: checked, defaults filled in.
-- raises     PQ043  an option is unknown or its value is none
-- raises     PQ044  the table cannot be captured
-- runs as    caller
create or replace function pgq._capture_options(i_table regclass, i_queue_name text, i_options jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_options jsonb := jsonb_build_object('format', 'json', 'operations', '["insert", "update", "delete", "truncate"]'::jsonb, 'level', 'auto')
                       || coalesce(i_options, '{}');
    v_problem text;
    v_kind "char";
begin
    select c.relkind into v_kind from pg_class c where c.oid = i_table and c.relnamespace <> 'pgq'::regnamespace;
    if v_kind is null or v_kind not in ('r', 'p', 'f') then
        raise exception '% cannot be captured', i_table
            using errcode = 'PQ044', hint = 'capture a table that is none of pgq''s own';
    end if;
    select string_agg(case
            when o.key not in ('format', 'columns', 'ignore', 'key', 'when', 'old_row', 'extra1', 'extra2', 'extra3', 'extra4',
                               'operations', 'event_type', 'level') then format('there is no option %s', o.key)
            when o.key = 'format' and o.value not in ('"json"', '"urlencode"', '"sql"') then format('format is json, urlencode or sql, not %s', o.value)
            when o.key = 'level' and o.value not in ('"auto"', '"row"', '"statement"') then format('level is auto, row or statement, not %s', o.value)
            when o.key = 'old_row' and jsonb_typeof(o.value) <> 'boolean' then format('old_row is true or false, not %s', o.value)
            when o.key in ('when', 'extra1', 'extra2', 'extra3', 'extra4', 'event_type') and jsonb_typeof(o.value) <> 'string'
                then format('%s is a string, not %s', o.key, o.value)
            when o.key in ('columns', 'ignore', 'key', 'operations') and (jsonb_typeof(o.value) <> 'array' or o.value = '[]'
                 or jsonb_path_exists(o.value, '$[*] ? (@.type() != "string")')) then format('%s is an array of names, not %s', o.key, o.value)
            when o.key = 'operations' and not o.value <@ '["insert", "update", "delete", "truncate"]'
                then format('operations are insert, update, delete and truncate, not %s', o.value)
        end, '; ' order by o.key)
      into v_problem from jsonb_each(v_options) o;
    if v_problem is null and v_options ? 'columns' and v_options ? 'ignore' then
        v_problem := 'columns and ignore exclude each other';
    end if;
    if v_problem is null then
        if v_options ->> 'level' = 'statement' and pgq._capture_level(i_table) = 'row' then
            v_problem := format('%s has partitions, parents or children, so it is captured by row', i_table);
        end if;
        v_options := v_options - 'level' || jsonb_build_object('operations',
            (select jsonb_agg(o order by n) from (values (1, 'insert'), (2, 'update'), (3, 'delete'), (4, 'truncate')) u (n, o)
              where v_options -> 'operations' ? o and not (v_kind = 'f' and o = 'truncate')));
    end if;
    if v_problem is not null then
        raise exception 'capture of % into queue %: %', i_table, quote_ident(i_queue_name), v_problem
            using errcode = 'PQ043', hint = format('options are format, columns, ignore, key, when, old_row, extra1 to extra4, operations, event_type, level, as in: '
                                                   'select pgq.capture(%L, %L, %L)', i_table, i_queue_name, '{"format": "json", "ignore": ["password"]}');
    end if;
    return v_options;
end $$;

-- pgq._capture_level(i_table) -> text
-- How a table is captured unless told otherwise: by statement, except where a statement on another table changes its rows.
-- returns    statement or row
-- runs as    caller
create or replace function pgq._capture_level(i_table regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when c.relkind = 'r' and not exists (select from pg_inherits i where c.oid in (i.inhparent, i.inhrelid))
                then 'statement' else 'row' end
      from pg_class c where c.oid = i_table
$$;

-- pgq._store_capture(i_table, i_queue_name, i_options) -> integer
-- Store what pgq.capture() was told, and write the trigger function.
-- returns    the number of the capture
-- raises     PQ001  no such queue
-- runs as    owner
create or replace function pgq._store_capture(i_table regclass, i_queue_name text, i_options jsonb) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_options jsonb;
    v_queue integer;
    v_capture pgq.captured;
    v_columns name[];
    v_key name[];
begin
    perform pgq._lock_captures();
    select q.queue_id into v_queue from pgq.queue q where q.queue_name = i_queue_name for share;
    if not found then
        raise exception 'No such event queue: %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    v_options := pgq._capture_options(i_table, i_queue_name, i_options);
    insert into pgq.captured as c (cap_table, cap_queue, cap_options, cap_level)
    values (i_table, v_queue, v_options, case i_options ->> 'level' when 'row' then 'row' else pgq._capture_level(i_table) end)
    on conflict (cap_table, cap_queue) do update set cap_options = excluded.cap_options, cap_level = excluded.cap_level
    returning * into v_capture;
    v_columns := pgq._capture_columns(v_capture);
    v_key := pgq._capture_key(i_table, v_options);
    if v_columns = '{}' or not v_key <@ v_columns then
        raise exception 'capture of % into queue %: key % is not among the columns', i_table, quote_ident(i_queue_name), v_key
            using errcode = 'PQ043', hint = 'name the key''s columns in columns, not in ignore; or another key by the option key';
    end if;
    perform pgq._make_capture_code(v_capture);
    return v_capture.cap_id;
end $$;

-- pgq._lock_captures() -> void
-- One transaction at a time changes captures; nobody who changes a captured table waits for it.
-- locks      an advisory lock, to the end of the transaction
-- runs as    caller
create or replace function pgq._lock_captures() returns void
language sql as $$
    select pg_catalog.pg_advisory_xact_lock('pgq.captured'::pg_catalog.regclass::oid::bigint::integer, 0)
$$;

-- pgq._capture_triggers(i_id, i_table, i_level, i_operations) -> integer
-- Put the triggers of a capture where they are missing: on the table, and, by row, on each table that inherits from it.
-- returns    how many were created
-- locks      those tables, SHARE ROW EXCLUSIVE
-- runs as    caller, who must own the tables
create or replace function pgq._capture_triggers(i_id integer, i_table regclass, i_level text, i_operations text[]) returns integer
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_part record;
    v_name text;
    v_count integer := 0;
begin
    for v_part in
        with recursive tables as (
            select i_table::oid as oid
            union select i.inhrelid from tables t join pg_inherits i on i.inhparent = t.oid join pg_class c on c.oid = i.inhrelid
                   where not c.relispartition
        )
        select t.oid::regclass as name, upper(o) as op
          from tables t cross join unnest(i_operations) with ordinality u (o, n)
         where o <> 'truncate' or t.oid = i_table
         order by t.oid, u.n
    loop
        v_name := format('skytools_capture_%s_%s', i_id, lower(v_part.op));
        if exists (select from pg_trigger t where t.tgrelid = v_part.name and t.tgname = v_name) then
            continue;
        end if;
        execute format('create trigger %I after %s on %s %s for each %s execute function %s', v_name, v_part.op, v_part.name,
            case when i_level <> 'statement' or v_part.op = 'TRUNCATE' then ''
                 when v_part.op = 'INSERT' then 'referencing new table as new_rows'
                 when v_part.op = 'DELETE' then 'referencing old table as old_rows'
                 else 'referencing new table as new_rows old table as old_rows' end,
            case when i_level = 'row' and v_part.op <> 'TRUNCATE' then 'row' else 'statement' end,
            coalesce(case v_part.op when 'UPDATE' then to_regprocedure(format('pgq.capture_%s_update()', i_id)) end,
                     to_regprocedure(format('pgq.capture_%s()', i_id))));
        v_count := v_count + 1;
    end loop;
    return v_count;
end $$;

-- pgq.capture(i_table, i_queue_name, i_options) -> integer
-- Turn every change of a table into an event in a queue, by triggers generated for that table.
-- i_table    a table, a partitioned table or a foreign table; one with partitions or children stands for all of them
-- i_queue_name the queue
-- i_options  an object: format ("json", "urlencode", "sql"); columns or ignore (arrays of names); key (array of names);
--            operations (array of "insert", "update", "delete", "truncate"); old_row (true: ev_extra2 of an update is the old
--            row); event_type (text, in which {op} and {table} are replaced); when (SQL condition) and extra1 to extra4 (SQL
--            expressions) over the columns, or over new and old; level ("auto", "row", "statement")
-- returns    the number of the capture; for a table that is captured into that queue already, the options are replaced
-- raises     PQ001  no such queue
-- raises     PQ008  the table is null
-- raises     PQ014  the table has no column of that name
-- raises     PQ043  an option is wrong
-- raises     PQ044  not a table, or one of pgq's own
-- locks      the table, SHARE ROW EXCLUSIVE: waits for transactions that have changed it
-- runs as    caller, who must own the table. A capture without when and extras writes events as the owner of pgq, so
--            whoever changes the table needs no right on the queue; with them, he must be a pgq_writer
create or replace function pgq.capture(i_table regclass, i_queue_name text, i_options jsonb default '{}') returns integer
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_id integer;
    v_capture pgq.captured_table;
begin
    if i_table is null then
        raise exception 'Invalid NULL value: table' using errcode = 'PQ008', hint = 'select pgq.capture(''table'', ''queue'')';
    end if;
    if exists (select from pg_class c where c.oid = i_table and not pg_has_role(c.relowner, 'usage')) then
        raise exception 'must be owner of table %', i_table
            using errcode = '42501', hint = 'capture it as its owner, who must be a pgq_admin';
    end if;
    -- Triggers differ by level and operations: an earlier capture's go first.
    perform pgq._drop_capture(c.capture_id, false) from pgq.captured_table c where c.captured_table = i_table and c.queue_name = i_queue_name;
    v_id := pgq._store_capture(i_table, i_queue_name, i_options);
    select * into v_capture from pgq.captured_table c where c.capture_id = v_id;
    perform pgq._capture_triggers(v_id, i_table, v_capture.level, v_capture.operations);
    return v_id;
end $$;

-- pgq._drop_capture(i_id, i_forget) -> void
-- Drop the triggers and the function of a capture.
-- i_forget   whether its options go too
-- locks      the captured table, ACCESS EXCLUSIVE
-- runs as    owner
create or replace function pgq._drop_capture(i_id integer, i_forget boolean) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set client_min_messages = warning as $$
declare
    v_function regprocedure;
begin
    perform pgq._lock_captures();
    for v_function in select * from pgq._capture_functions(i_id) loop
        execute format('drop function %s cascade', v_function);
    end loop;
    if i_forget then
        delete from pgq.captured where cap_id = i_id;
    end if;
end $$;

-- pgq.uncapture(i_table, i_queue_name) -> integer
-- End the capture of a table into a queue; the events that there are stay.
-- returns    1, or 0 when there was none
-- locks      the table, ACCESS EXCLUSIVE
-- runs as    caller, a pgq_admin
create or replace function pgq.uncapture(i_table regclass, i_queue_name text) returns integer
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform pgq._drop_capture(c.capture_id, true) from pgq.captured_table c where c.captured_table = i_table and c.queue_name = i_queue_name;
    return found::integer;
end $$;

-- pgq._refresh_captures() -> setof integer
-- Write the functions of stale captures anew, and forget captures whose tables are gone.
-- returns    the numbers of those that were stale
-- runs as    owner
create or replace function pgq._refresh_captures() returns setof integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_capture pgq.captured;
    v_level text;
begin
    perform pgq._lock_captures();
    perform pgq._drop_capture(c.cap_id, true) from pgq.captured c
      where not exists (select from pg_class r where r.oid = c.cap_table);
    for v_capture in
        select c.* from pgq.captured c
         where c.cap_shape is distinct from pgq._shape(c.cap_table)
            or not exists (select from pgq._capture_functions(c.cap_id))
         order by c.cap_id
    loop
        v_level := pgq._capture_level(v_capture.cap_table);
        -- The table has become part of a tree: its triggers have to be by row from now on.
        if v_level = 'row' and v_capture.cap_level = 'statement' then
            perform pgq._drop_capture(v_capture.cap_id, false);
            update pgq.captured set cap_level = 'row' where cap_id = v_capture.cap_id returning * into v_capture;
        end if;
        perform pgq._make_capture_code(v_capture);
        return next v_capture.cap_id;
    end loop;
end $$;

-- pgq.refresh_capture() -> setof regclass
-- Generate the code of captures anew whose tables have changed, and put triggers on new child tables.
-- returns    the tables for which something was done
-- raises     PQ014  the options of a capture name a column that its table does not have
-- locks      one change to captures at a time; tables that get triggers, SHARE ROW EXCLUSIVE
-- runs as    caller, a pgq_admin; who must own a table to put triggers on it
create or replace function pgq.refresh_capture() returns setof regclass
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_stale integer[] := array(select * from pgq._refresh_captures());
    v_capture record;
begin
    for v_capture in select * from pgq.captured_table c order by c.capture_id loop
        if pgq._capture_triggers(v_capture.capture_id, v_capture.captured_table, v_capture.level, v_capture.operations) > 0
           or v_capture.capture_id = any (v_stale) then
            return next v_capture.captured_table;
        end if;
    end loop;
end $$;
