-- The trigger function of one captured table, pgq.capture_<id>(). It inserts statically into the queue's current table, so
-- its plans are cached. It knows by a constant whether it still fits its table: see pgq._shape(). When it does not, it
-- runs SQL generated on the spot, which is slower but as right, until pgq.refresh_capture() writes it anew.

-- pgq._capture_key(i_table, i_options) -> name[]
-- The key columns by which a captured row is known: those of the options, else of the primary key, else of the replica
-- identity; none at all when every column is needed.
-- runs as    caller
create or replace function pgq._capture_key(i_table regclass, i_options jsonb) returns name[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when i_options ? 'key' then array(select k::name from jsonb_array_elements_text(i_options -> 'key') with ordinality u (k, n) order by n)
           else array(select a.attname
                        from (select x.indrelid, x.indkey, x.indnkeyatts from pg_index x
                               where x.indrelid = i_table and (x.indisprimary or x.indisreplident)
                               order by x.indisprimary desc limit 1) x
                       cross join lateral unnest(x.indkey::int2[]) with ordinality u (attnum, n)
                        join pg_attribute a on a.attrelid = x.indrelid and a.attnum = u.attnum
                       where u.n <= x.indnkeyatts order by u.n) end
$$;

-- pgq._capture_columns(i_capture) -> name[]
-- The columns that a capture takes, as the table has them now; virtual generated ones are never stored, so never taken.
-- raises     PQ014  the options name a column that the table does not have
-- runs as    caller
create or replace function pgq._capture_columns(i_capture pgq.captured) returns name[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_all name[] := array(select a.attname from pg_attribute a
                           where a.attrelid = i_capture.cap_table and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v'
                             and not (a.attgenerated <> '' and i_capture.cap_options ->> 'format' = 'sql') order by a.attnum);
    v_missing text;
begin
    select string_agg(quote_ident(c), ', ') into v_missing
      from (select jsonb_array_elements_text(v.list) as c
              from (values (i_capture.cap_options -> 'columns'), (i_capture.cap_options -> 'ignore'), (i_capture.cap_options -> 'key')) v (list)) l
     where not exists (select from pg_attribute a where a.attrelid = i_capture.cap_table and a.attname = l.c and a.attnum > 0 and not a.attisdropped);
    if v_missing is not null then
        raise exception 'table % has no column % that its capture names', i_capture.cap_table, v_missing
            using errcode = 'PQ014', hint = format('give the options anew: select pgq.capture(%L, %L, %L)', i_capture.cap_table,
                      (select q.queue_name from pgq.queue q where q.queue_id = i_capture.cap_queue), i_capture.cap_options);
    end if;
    return array(select c from unnest(v_all) with ordinality u (c, n)
                  where (not i_capture.cap_options ? 'columns' or i_capture.cap_options -> 'columns' ? c::text)
                    and not coalesce(i_capture.cap_options -> 'ignore' ? c::text, false) order by n);
end $$;

-- pgq._capture_same_keys(i_table, i_key) -> text
-- SQL that tells whether the keys of old_rows and new_rows are the same, row by row. It gives up at a million rows, so that
-- memory is bounded.
-- runs as    caller
create or replace function pgq._capture_same_keys(i_table regclass, i_key name[]) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format(e'(select a.new = a.old and a.new[1000001] is null\n'
                  '                  from (select array(select %1$s from new_rows as k limit 1000001) as new,\n'
                  '                               array(select %1$s from old_rows as k limit 1000001) as old) as a)',
                  case when count(*) = 1 then min(k.value) else format('row(%s)', string_agg(k.value, ', ' order by t.attnum)) end)
      from pgq._table_columns(i_table) t
     cross join lateral (
         select case when t.type in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'uuid'::regtype, 'date'::regtype, 'timestamptz'::regtype)
                     then format('k.%I', t.name)
                     else format('(%s) collate "C"', pgq._text_of(format('k.%I', t.name), t.type)) end) k (value)
     where t.name = any (i_key)
$$;

-- pgq._capture_select(i_capture, i_op, i_paired) -> text
-- The SELECT that turns the rows new and old into events: type, data, extra1 to extra4.
-- i_op       INSERT, UPDATE, DELETE or TRUNCATE
-- i_paired   false: for an update that changes no key, where only the new rows are looked at
-- raises     PQ014  the options name a column that the table does not have
-- runs as    caller
create or replace function pgq._capture_select(i_capture pgq.captured, i_op text, i_paired boolean default true) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_table regclass := i_capture.cap_table;
    v_options jsonb := i_capture.cap_options;
    v_format text := v_options ->> 'format';
    v_row text := case when v_format = 'sql' then 'urlencode' else v_format end;
    v_columns name[] := pgq._capture_columns(i_capture);
    v_key name[] := pgq._capture_key(v_table, v_options);
    v_rest name[];
    v_name text;
    v_schema text;
    v_relation text;
    v_type text;
    v_fields text[];
    v_where text[] := array[]::text[];
    v_record text := case when i_op = 'DELETE' then 'old' else 'new' end;
    v_old text;
    v_expression text;
    v_from text := '';
begin
    select n.nspname::text, c.relname::text into v_schema, v_relation from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = v_table;
    v_name := v_schema || '.' || v_relation;
    v_rest := array(select a.attname from pg_attribute a
                     where a.attrelid = v_table and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v' and a.attname <> all (v_columns));
    v_type := case
        when v_options ? 'event_type' then replace(replace(v_options ->> 'event_type', '{op}', lower(i_op)), '{table}', v_name)
        when v_format = 'json' then format('{"op":"%s","table":[%s,%s],"pkey":%s}', i_op, to_json(v_schema), to_json(v_relation),
                                           replace(to_json(v_key::text[])::text, ', ', ','))
        when i_op = 'TRUNCATE' then 'R'
        when v_format = 'urlencode' then left(i_op, 1) || ':' || array_to_string(v_key, ',')
        else left(i_op, 1) end;
    v_key := case when v_key = '{}' then v_columns
                  else array(select a.attname from pg_attribute a where a.attrelid = v_table and a.attname = any (v_key) and a.attnum > 0 order by a.attnum) end;
    v_fields := array[quote_literal(v_type),
        case when i_op = 'TRUNCATE' then quote_literal(case when v_format = 'json' then '{}' else '' end)
             when v_format <> 'sql' then pgq._encode_row(v_table, v_format, v_columns, v_record)
             when i_op = 'INSERT' then pgq._encode_row(v_table, 'sql', v_columns, 'new')
             when i_op = 'UPDATE' then pgq._capture_sql_update(v_table, v_columns, v_key)
             else pgq._capture_key_sql(v_table, v_key, 'old') end,
        quote_literal(v_name), 'null', 'null', 'null'];
    if i_op = 'UPDATE' and i_paired then
        -- Who replays an update has to know the old key: it is in the old row, unless it is the same as the new.
        v_old := pgq._encode_row(v_table, v_row, v_columns, 'old');
        v_fields[4] := case
            when (v_options ->> 'old_row')::boolean or v_key = v_columns and v_format <> 'sql' then v_old
            when v_format <> 'sql' then format('case when %s then %s end', pgq._capture_differs(v_table, v_key), v_old)
            else 'null' end;
        if v_rest <> '{}' then
            v_where := array_append(v_where, format('(%s or not (%s))', pgq._capture_differs(v_table, v_columns), pgq._capture_differs(v_table, v_rest)));
        end if;
    end if;
    if i_op <> 'TRUNCATE' then
        for v_n in 1..4 loop
            v_expression := v_options ->> ('extra' || v_n);
            if v_expression is not null then
                v_fields[v_n + 2] := format(e'(select (%s\n)::pg_catalog.text from (select %s.*) as t)', v_expression, v_record);
            end if;
        end loop;
        if v_options ? 'when' then
            v_where := array_append(v_where, format(e'(select (%s\n)::pg_catalog.bool from (select %s.*) as t)', v_options ->> 'when', v_record));
        end if;
        if i_capture.cap_level = 'statement' then
            v_from := case i_op
                when 'INSERT' then ' from new_rows as new'
                when 'DELETE' then ' from old_rows as old'
                when 'UPDATE' then case when not i_paired then ' from new_rows as new' else
                -- Both have the order in which the executor made them. A full join cannot become a nested loop,
                -- whatever number of rows the plan was made for.
                e'\n          from (select pg_catalog.row_number() over () as "skytools row", r.* from new_rows as r) as new\n'
                     '          full join (select pg_catalog.row_number() over () as "skytools row", r.* from old_rows as r) as old\n'
                     '            on new."skytools row" = old."skytools row"' end end;
        end if;
    end if;
    if not i_paired then
        v_where := array_append(v_where, pgq._capture_same_keys(v_table, v_key));
    end if;
    return format('select %s%s%s%s', array_to_string(v_fields, ', '), v_from,
                  case when v_where <> '{}' then e'\n         where ' || array_to_string(v_where, ' and ') else '' end,
                  case when i_capture.cap_level = 'statement' and i_op = 'UPDATE' and i_paired then e'\n         order by new."skytools row"' else '' end);
end $$;

-- pgq._capture_pairs(i_capture) -> boolean
-- Whether every update needs the old rows beside the new ones; else only one that changes keys does.
-- runs as    caller
create or replace function pgq._capture_pairs(i_capture pgq.captured) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
    select i_capture.cap_level <> 'statement' or i_capture.cap_options ->> 'format' = 'sql'
        or i_capture.cap_options ?| '{columns,ignore,old_row,when,extra1,extra2,extra3,extra4}'::text[]
        or pgq._capture_key(i_capture.cap_table, i_capture.cap_options) = '{}'
$$;

-- pgq._capture_writes(i_capture) -> boolean
-- Whether a capture inserts into the queue's table itself. One that has SQL expressions runs as whoever changes the
-- captured table, and so calls pgq.insert_events(): expressions get no rights but those of the caller.
-- runs as    caller
create or replace function pgq._capture_writes(i_capture pgq.captured) returns boolean
language sql immutable as $$
    select not i_capture.cap_options operator(pg_catalog.?|) '{when,extra1,extra2,extra3,extra4}'::text[]
$$;

-- pgq._capture_insert(i_capture, i_op, i_slot, i_row, i_paired) -> text
-- The statement that stores the events of a change.
-- i_slot     the number of the queue's current table
-- i_row      SQL for the rows new and old, where the statement runs by EXECUTE
-- i_paired   as in pgq._capture_select()
-- runs as    caller
create or replace function pgq._capture_insert(i_capture pgq.captured, i_op text, i_slot integer, i_row text default '', i_paired boolean default true) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_select text := pgq._capture_select(i_capture, i_op, i_paired);
begin
    if i_row <> '' then
        v_select := regexp_replace(v_select, e'(\\n         where .*)?$', i_row || '\1');
    end if;
    if pgq._capture_writes(i_capture) then
        return format(e'insert into %s (ev_time, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4)\n        select pg_catalog.now(), s.* from (%s) as s',
                      pgq._event_table(i_capture.cap_queue, i_slot), v_select);
    end if;
    return format(e'select pgq.insert_events(%L, a.types, a.datas, a.extra1, a.extra2, a.extra3, a.extra4)\n'
                  '          from (select pg_catalog.array_agg(s.type) as types, pg_catalog.array_agg(s.data) as datas, pg_catalog.array_agg(s.e1) as extra1,\n'
                  '                       pg_catalog.array_agg(s.e2) as extra2, pg_catalog.array_agg(s.e3) as extra3, pg_catalog.array_agg(s.e4) as extra4\n'
                  '                  from (%s) as s (type, data, e1, e2, e3, e4)) as a where a.types is not null',
                  (select q.queue_name from pgq.queue q where q.queue_id = i_capture.cap_queue), v_select);
end $$;

-- pgq._capture_statement(i_id, i_op) -> text
-- What a trigger function runs by EXECUTE, with $1 = new and $2 = old, when its table has changed since it was generated.
-- raises     PQ014  the options name a column that the table does not have, or the table is not captured any more
-- runs as    owner: a writer of the table may not read pgq.captured
create or replace function pgq._capture_statement(i_id integer, i_op text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_capture pgq.captured;
    v_slot integer;
begin
    select * into v_capture from pgq.captured c where c.cap_id = i_id;
    if not found then
        raise exception 'no capture has the number %: the trigger is left over', i_id
            using errcode = 'PQ014', hint = format('drop function pgq.capture_%s() cascade', i_id);
    end if;
    execute format('select pgq.event_%s_slot()', v_capture.cap_queue) into v_slot;
    return pgq._capture_insert(v_capture, i_op, v_slot, case
        when v_capture.cap_level = 'statement' or i_op = 'TRUNCATE' then ''
        else case i_op when 'INSERT' then ' from (select ($1).*) as new' when 'DELETE' then ' from (select ($2).*) as old'
                       else ' from (select ($1).*) as new cross join (select ($2).*) as old' end end);
end $$;

-- pgq._make_capture_code(i_capture) -> void
-- Write the trigger function of a captured table, and note the table's shape.
-- raises     PQ014  the options name a column that the table does not have
-- runs as    caller, within a security definer function
create or replace function pgq._make_capture_code(i_capture pgq.captured) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $make$
declare
    v_shape text := pgq._shape(i_capture.cap_table);
    v_writes boolean := pgq._capture_writes(i_capture);
    v_body text := '';
    v_op text;
    v_row text := case when i_capture.cap_level = 'statement' then '' else ' using new, old' end;
begin
    for v_op in select upper(o) from jsonb_array_elements_text(i_capture.cap_options -> 'operations') o loop
        v_body := v_body || format(e'    %s tg_op = %L then\n', case when v_body = '' then 'if' else 'elsif' end, v_op);
        if v_writes then
            for v_slot in 0..2 loop
                v_body := v_body || format(e'        %s\n        %s;\n', case v_slot
                        when 0 then format('if pgq.event_%s_slot() = 0 then', i_capture.cap_queue)
                        when 1 then format('elsif pgq.event_%s_slot() = 1 then', i_capture.cap_queue)
                        else 'else' end, case
                        -- The common update looks at the new rows only; it stores nothing where keys change, or where there is nothing.
                        when v_op = 'UPDATE' and not pgq._capture_pairs(i_capture) then
                            format(e'%s;\n        if not found then\n        %s;\n        end if',
                                   pgq._capture_insert(i_capture, v_op, v_slot, '', false), pgq._capture_insert(i_capture, v_op, v_slot))
                        else pgq._capture_insert(i_capture, v_op, v_slot) end);
            end loop;
            v_body := v_body || format(e'        end if;\n        get diagnostics v_count = row_count;\n        v_slot := pgq.event_%s_admit(v_count);\n',
                                       i_capture.cap_queue);
        else
            v_body := v_body || regexp_replace(pgq._capture_insert(i_capture, v_op, 0), '^select', '        perform') || e';\n';
        end if;
    end loop;
    execute format('create or replace function pgq.capture_%s() returns trigger language plpgsql %s as %L', i_capture.cap_id,
        case when v_writes then 'security definer set search_path = pg_catalog, pg_temp' else '' end, format(e'
#variable_conflict use_column
declare
    v_count bigint;
    v_slot integer;
begin
    if pgq._shape(''%1$s''::pg_catalog.regclass) is distinct from %2$L then
        execute pgq._capture_statement(%3$s, tg_op)%4$s;
%5$s        return null;
    end if;
%6$s    end if;
    return null;
end ', i_capture.cap_table::oid, v_shape, i_capture.cap_id, v_row,
            case when v_writes then format(e'        get diagnostics v_count = row_count;\n        v_slot := pgq.event_%s_admit(v_count);\n',
                                           i_capture.cap_queue) else '' end, v_body));
    execute format('revoke all on function pgq.capture_%s() from public', i_capture.cap_id);
    if to_regrole('pgq_admin') is not null then
        execute format('grant execute on function pgq.capture_%s() to pgq_admin', i_capture.cap_id);
    end if;
    execute format('comment on function pgq.capture_%s() is %L', i_capture.cap_id,
        format('skytools: generated, captures changes of %s; regenerate: select pgq.refresh_capture()', i_capture.cap_table));
    update pgq.captured set cap_shape = v_shape where cap_id = i_capture.cap_id;
end $make$;
