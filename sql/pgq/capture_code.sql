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

-- pgq._capture_unique(i_table, i_options) -> boolean
-- Whether the key columns are those of a unique index that is never violated, not even within a statement.
-- runs as    caller
create or replace function pgq._capture_unique(i_table regclass, i_options jsonb) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
    select not i_options ? 'key' and bool_and(x.indimmediate) from pg_index x where x.indrelid = i_table and (x.indisprimary or x.indisreplident)
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

-- pgq._capture_key_value(i_table, i_key, i_record) -> text
-- SQL for the key of a row as one value, which differs where what its columns show as text does.
-- i_record   what holds the row
-- runs as    caller
create or replace function pgq._capture_key_value(i_table regclass, i_key name[], i_record text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when count(*) = 1 then min(k.value) else format('row(%s)', string_agg(k.value, ', ' order by t.attnum)) end
      from pgq._table_columns(i_table) t
     cross join lateral pgq._capture_comparable(t.type, format('%s.%I', i_record, t.name)) k (value)
     where t.name = any (i_key)
$$;

-- pgq._capture_same_keys(i_table, i_key, i_unique, i_one) -> text
-- SQL that tells whether the keys of old_rows and new_rows are the same, row by row. Above a million rows it says no, so that
-- memory is bounded.
-- i_unique   whether no two rows have the same key, within a statement either
-- i_one      true: whether there is one row, new, that has the key it had; which takes less to find out
-- runs as    caller
create or replace function pgq._capture_same_keys(i_table regclass, i_key name[], i_unique boolean, i_one boolean) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format(case when not i_one then 'array(select %1$s from new_rows as k limit 1000000) = array(select %1$s from old_rows as k limit 1000001)'
                       -- Of two unique keys one differs.
                       when i_unique then '%2$s operator(pg_catalog.=) all (array(select %1$s from old_rows as k limit 2))'
                       else 'array(select %1$s from old_rows as k limit 2) operator(pg_catalog.=) array[%2$s]' end,
                  pgq._capture_key_value(i_table, i_key, 'k'), pgq._capture_key_value(i_table, i_key, 'new'))
$$;

-- pgq._capture_event(i_capture, i_op, i_paired) -> record
-- What an event is made of, in SQL over the rows new and old.
-- i_op       INSERT, UPDATE, DELETE or TRUNCATE
-- i_paired   false: for an update that changes no key, where only the new rows are looked at
-- returns    data_from: the FROM item that data needs, or null; old_row: the old row for ev_extra2, or null; old_when: the
--            condition for that, or null; extras: ev_extra1, 3 and 4; condition: whether there is an event at all, or null
-- raises     PQ014  the options name a column that the table does not have
-- runs as    caller
create or replace function pgq._capture_event(
    i_capture pgq.captured, i_op text, i_paired boolean,
    out type text, out data text, out data_from text, out old_row text, out old_when text, out extras text[], out condition text)
returns record
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_table regclass := i_capture.cap_table;
    v_options jsonb := i_capture.cap_options;
    v_format text := v_options ->> 'format';
    v_columns name[] := pgq._capture_columns(i_capture);
    v_key name[] := pgq._capture_key(v_table, v_options);
    v_rest name[];
    v_name text;
    v_schema text;
    v_relation text;
    v_record text := case when i_op = 'DELETE' then 'old' else 'new' end;
    v_expression text;
begin
    select n.nspname::text, c.relname::text into v_schema, v_relation from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = v_table;
    v_name := v_schema || '.' || v_relation;
    v_rest := array(select a.attname from pg_attribute a
                     where a.attrelid = v_table and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v' and a.attname <> all (v_columns));
    type := quote_literal(case
        when v_options ? 'event_type' then replace(replace(v_options ->> 'event_type', '{op}', lower(i_op)), '{table}', v_name)
        when v_format = 'json' then format('{"op":"%s","table":[%s,%s],"pkey":%s}', i_op, to_json(v_schema), to_json(v_relation),
                                           replace(to_json(v_key::text[])::text, ', ', ','))
        when i_op = 'TRUNCATE' then 'R'
        when v_format = 'urlencode' then left(i_op, 1) || ':' || array_to_string(v_key, ',')
        else left(i_op, 1) end);
    extras := array[quote_literal(v_name), 'null', 'null'];
    if i_op = 'TRUNCATE' then
        data := quote_literal(case when v_format = 'json' then '{}' else '' end);
        return;
    end if;
    v_key := case when v_key = '{}' then v_columns
                  else array(select a.attname from pg_attribute a where a.attrelid = v_table and a.attname = any (v_key) and a.attnum > 0 order by a.attnum) end;
    if v_format = 'json' then
        data := 'pg_catalog.row_to_json(data.*)::pg_catalog.text';
        data_from := pgq._encode_json_from(v_table, v_columns, v_record) || ' as data';
    elsif v_format = 'urlencode' then
        data := pgq._encode_row(v_table, 'urlencode', v_columns, v_record);
    else
        data := case i_op when 'INSERT' then pgq._encode_row(v_table, 'sql', v_columns, 'new')
                          when 'UPDATE' then pgq._capture_sql_update(v_table, v_columns, v_key)
                          else pgq._capture_key_sql(v_table, v_key, 'old') end;
    end if;
    if i_op = 'UPDATE' and i_paired then
        -- Who replays an update has to know the old key: it is in the old row, unless it is the same as the new.
        if v_format <> 'sql' or (v_options ->> 'old_row')::boolean then
            old_row := pgq._encode_row(v_table, case v_format when 'json' then 'json' else 'urlencode' end, v_columns, 'old');
            if v_key <> v_columns and (v_options ->> 'old_row')::boolean is distinct from true then
                old_when := pgq._capture_differs(v_table, v_key);
            end if;
        end if;
        if v_rest <> '{}' then
            condition := format('(%s or not (%s))', pgq._capture_differs(v_table, v_columns), pgq._capture_differs(v_table, v_rest));
        end if;
    end if;
    for v_n in 1..4 loop
        v_expression := format(e'(select (%s\n)::pg_catalog.text from (select %s.*) as t)', v_options ->> ('extra' || v_n), v_record);
        if not v_options ? ('extra' || v_n) then
            continue;
        elsif v_n = 2 then
            old_row := v_expression;
            old_when := null;
        else
            extras[case v_n when 1 then 1 else v_n - 1 end] := v_expression;
        end if;
    end loop;
    if v_options ? 'when' then
        condition := concat_ws(' and ', condition, format(e'(select (%s\n)::pg_catalog.bool from (select %s.*) as t)', v_options ->> 'when', v_record));
    end if;
end $$;

-- pgq._capture_select(i_capture, i_op, i_row, i_paired, i_one) -> text
-- The SELECT that turns the rows new and old into events: type, data, extra1 to extra4.
-- i_row      SQL for a FROM item with new and old, for a capture by row
-- i_paired   as in pgq._capture_event()
-- i_one      for an update of one row, which takes less; it finds nothing when there are more
-- raises     PQ014  the options name a column that the table does not have
-- runs as    caller
create or replace function pgq._capture_select(i_capture pgq.captured, i_op text, i_row text, i_paired boolean, i_one boolean) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_event record;
    v_pairs boolean := i_op = 'UPDATE' and i_paired and i_row = '' and not i_one;
    v_from text;
begin
    select * into v_event from pgq._capture_event(i_capture, i_op, i_paired);
    if i_op <> 'TRUNCATE' then
        v_from := case
            when i_row <> '' then i_row
            when i_op = 'INSERT' then 'new_rows as new'
            when i_op = 'DELETE' then 'old_rows as old'
            when not i_paired then 'new_rows as new'
            when i_one then 'new_rows as new cross join old_rows as old'
            -- Both have the order in which the executor made them. A full join cannot become a nested loop,
            -- whatever number of rows the plan was made for.
            else e'(select pg_catalog.row_number() over () as "skytools row", r.* from new_rows as r) as new\n'
                  '          full join (select pg_catalog.row_number() over () as "skytools row", r.* from old_rows as r) as old\n'
                  '            on new."skytools row" = old."skytools row"' end;
    end if;
    v_event.condition := concat_ws(' and ', v_event.condition,
        case when not i_paired then
                  pgq._capture_same_keys(i_capture.cap_table, pgq._capture_key(i_capture.cap_table, i_capture.cap_options),
                                         pgq._capture_unique(i_capture.cap_table, i_capture.cap_options), i_one)
             when i_one then 'array(select 1 from old_rows limit 2) = array[1]' end);
    return format('select %s, %s, %s, %s, %s, %s', v_event.type, v_event.data, v_event.extras[1],
                  case when v_event.old_when is null then coalesce(v_event.old_row, 'null')
                       else format('case when %s then %s end', v_event.old_when, v_event.old_row) end,
                  v_event.extras[2], v_event.extras[3])
        || coalesce(e'\n          from ' || v_from, '') || coalesce(e'\n         cross join lateral ' || v_event.data_from, '')
        || coalesce(e'\n         where ' || nullif(v_event.condition, ''), '')
        || case when v_pairs then e'\n         order by new."skytools row"' else '' end;
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

-- pgq._capture_insert(i_capture, i_op, i_slot, i_row, i_paired, i_one) -> text
-- The statement that stores the events of a change.
-- i_slot     the number of the queue's current table
-- i_row      as in pgq._capture_select(), and so is i_one
-- i_paired   as in pgq._capture_event()
-- runs as    caller
create or replace function pgq._capture_insert(
    i_capture pgq.captured, i_op text, i_slot integer, i_row text default '', i_paired boolean default true, i_one boolean default false)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_select text := pgq._capture_select(i_capture, i_op, i_row, i_paired, i_one);
begin
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

-- pgq._capture_rows(i_op, i_new, i_old) -> text
-- SQL for a FROM item with the rows new and old of a trigger by row.
-- runs as    caller
create or replace function pgq._capture_rows(i_op text, i_new text, i_old text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case i_op when 'INSERT' then format('(select (%s).*) as new', i_new)
                     when 'DELETE' then format('(select (%s).*) as old', i_old)
                     when 'UPDATE' then format('(select (%s).*) as new cross join (select (%s).*) as old', i_new, i_old)
                     else '' end
$$;

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
            using errcode = 'PQ014', hint = format('drop function %s cascade', (select string_agg(f::text, ', ') from pgq._capture_functions(i_id) f));
    end if;
    execute format('select pgq.event_%s_slot()', v_capture.cap_queue) into v_slot;
    return pgq._capture_insert(v_capture, i_op, v_slot,
                               case when v_capture.cap_level = 'statement' then '' else pgq._capture_rows(i_op, '$1', '$2') end);
end $$;

-- pgq._capture_qualified(i_capture) -> boolean
-- Whether a trigger by row, or what an update of one row runs by statement, finds all its names in pg_catalog and pgq, whatever
-- the search_path: there is no operator in it that is not qualified, and no type whose output or casts somebody may have made.
-- runs as    caller
create or replace function pgq._capture_qualified(i_capture pgq.captured) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
    with recursive t as (
        select c.type as oid from pgq._table_columns(i_capture.cap_table) c
        union select coalesce(nullif(y.typbasetype, 0), y.typelem) from t join pg_type y on y.oid = t.oid
               where y.typtype = 'd' or y.typcategory = 'A'
    )
    select case i_capture.cap_level when 'statement' then not pgq._capture_pairs(i_capture) else i_capture.cap_options ->> 'format' <> 'sql' end
       and bool_and(y.typnamespace = 'pg_catalog'::regnamespace or y.typtype in ('d', 'e') or y.typcategory = 'A')
      from t join pg_type y on y.oid = t.oid
$$;

-- pgq._capture_code(i_capture, i_op, i_slot) -> text
-- PL/pgSQL for one operation: the condition of a branch, and what it does.
-- i_slot     the number of the queue's current table
-- raises     PQ014  the options name a column that the table does not have
-- runs as    caller
create or replace function pgq._capture_code(i_capture pgq.captured, i_op text, i_slot integer) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $code$
declare
    v_event record;
    v_row text := case when i_capture.cap_level = 'statement' then '' else pgq._capture_rows(i_op, 'new', 'old') end;
    v_code text;
    v_count text := e';\n            get diagnostics v_count = row_count;\n            ';
begin
    if not pgq._capture_writes(i_capture) then
        return format(e'tg_op operator(pg_catalog.=) %L then\n            %s;\n', i_op,
                      regexp_replace(pgq._capture_insert(i_capture, i_op, i_slot, v_row), '^select', 'perform'));
    elsif v_row = '' and i_op <> 'TRUNCATE' then
        v_code := pgq._capture_insert(i_capture, i_op, i_slot) || v_count;
        if i_op = 'UPDATE' and not pgq._capture_pairs(i_capture) then
            -- Most updates change no key. This stores nothing if one does.
            v_code := pgq._capture_insert(i_capture, i_op, i_slot, '', false) || v_count
                || format(e'if v_count = 0 then\n            %send if;\n            ', v_code);
        end if;
        v_code := v_code || format(e'v_slot := pgq.event_%s_admit(v_count);\n', i_capture.cap_queue);
        if i_op = 'UPDATE' and pgq._capture_pairs(i_capture) then
            -- pgq._capture_one_update() has seen both rows of an update of one, whether there was an event in it or not.
            v_code := format(e'if exists (select from new_rows offset 1) then\n            %s            end if;\n', v_code);
        end if;
        return format(e'tg_op operator(pg_catalog.=) %L then\n            %s', i_op, v_code);
    end if;
    select * into v_event from pgq._capture_event(i_capture, i_op, true);
    -- What no FROM goes with is put into a variable: many rows in one transaction share what it takes to work out.
    return format(e'tg_op operator(pg_catalog.=) %L and %spgq.event_%s_admit(1) is not null then\n', i_op, '(' || v_event.condition || ') and ', i_capture.cap_queue)
        || case when v_event.data_from is null then format(e'            v_data := %s;\n', v_event.data) else '' end
        || case when v_event.old_row is null then ''
                when v_event.old_when is null then format(e'            v_old := %s;\n', v_event.old_row)
                else format(e'            if %s then\n            v_old := %s;\n            end if;\n', v_event.old_when, v_event.old_row) end
        || format(e'            insert into %s (ev_time, ev_type, ev_data, ev_extra1, ev_extra2)\n            select pg_catalog.now(), %s, %s, %s, v_old%s;\n',
                  pgq._event_table(i_capture.cap_queue, i_slot), v_event.type, case when v_event.data_from is null then 'v_data' else v_event.data end,
                  v_event.extras[1], ' from ' || v_event.data_from);
end $code$;

-- pgq._capture_slots(i_capture, i_code, i_else) -> text
-- PL/pgSQL that does what is said for the queue's current table, if the captured table still has the shape that cap_shape says.
-- i_code     for each slot, statements
-- i_else     what is done otherwise
-- runs as    caller
create or replace function pgq._capture_slots(i_capture pgq.captured, i_code text[], i_else text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select string_agg(format(e'    %s %spgq._shape(%L::pg_catalog.regclass) operator(pg_catalog.=) %L then\n%s', case u.n when 1 then 'if' else 'elsif' end,
                             case when pgq._capture_writes(i_capture) then format('pgq.event_%s_slot() operator(pg_catalog.=) %s and ', i_capture.cap_queue, u.n - 1) end,
                             i_capture.cap_table::oid, i_capture.cap_shape, u.code), '' order by u.n)
           || i_else || e'    end if;\n'
      from unnest(i_code) with ordinality u (code, n)
$$;

-- pgq._capture_functions(i_id) -> setof regprocedure
-- The functions that were generated for a capture.
-- runs as    caller
create or replace function pgq._capture_functions(i_id integer) returns setof regprocedure
language sql stable as $$
    select p.oid::pg_catalog.regprocedure from pg_catalog.pg_proc p
     where p.pronamespace = 'pgq'::pg_catalog.regnamespace
       and p.proname = any (array[pg_catalog.format('capture_%s', i_id), pg_catalog.format('capture_%s_update', i_id)])
$$;

-- pgq._capture_one_update(i_capture) -> text
-- PL/pgSQL for an update of one row and no key, as most are, after which it returns; what follows is for all others.
-- runs as    caller
create or replace function pgq._capture_one_update(i_capture pgq.captured) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select pgq._capture_slots(i_capture, array(
               select format(e'        %s;\n', pgq._capture_insert(i_capture, 'UPDATE', slot, '', pgq._capture_pairs(i_capture), true))
                 from generate_series(0, 2) slot order by slot), '')
           || format(e'    if found and pgq.event_%s_admit(1) is not null then\n        return v_none;\n'
                     '    elsif not exists (select from new_rows) then\n        return v_none;\n    end if;\n', i_capture.cap_queue)
$$;

-- pgq._capture_fixed(i_code) -> text
-- PL/pgSQL that runs statements with the settings of other captures, in a function that has none of its own.
-- runs as    caller
create or replace function pgq._capture_fixed(i_code text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select format($code$    v_path := pg_catalog.current_setting('search_path');
    v_jit := pg_catalog.current_setting('jit');
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true), pg_catalog.set_config('jit', 'off', true);
%s    perform pg_catalog.set_config('search_path', v_path, true), pg_catalog.set_config('jit', v_jit, true);
$code$, i_code)
$$;

-- pgq._capture_operations(i_capture, i_operations) -> text
-- PL/pgSQL for these operations, whatever the current table, and whether the captured table has changed or not.
-- runs as    caller
create or replace function pgq._capture_operations(i_capture pgq.captured, i_operations text[]) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select pgq._capture_slots(i_capture, array(
               select (select string_agg(case o.n when 1 then '        if ' else '        elsif ' end || pgq._capture_code(i_capture, o.op, slot), '' order by o.n)
                         from unnest(i_operations) with ordinality o (op, n)) || e'        end if;\n'
                 from generate_series(0, case when pgq._capture_writes(i_capture) then 2 else 0 end) slot order by slot),
               e'    else\n' || case when i_capture.cap_level = 'row' and pgq._capture_writes(i_capture) and pgq._capture_qualified(i_capture)
                                    then pgq._capture_fixed(s.stale) else s.stale end)
      from (select format(e'        execute pgq._capture_statement(%s, tg_op)%s;\n', i_capture.cap_id,
                          case when i_capture.cap_level = 'statement' then '' else ' using new, old' end)
                   || case when pgq._capture_writes(i_capture)
                           then format(e'        get diagnostics v_count = row_count;\n        v_slot := pgq.event_%s_admit(v_count);\n', i_capture.cap_queue)
                           else '' end) s (stale)
$$;

-- pgq._make_capture_code(i_capture) -> void
-- Write the trigger functions of a captured table, and note the table's shape. By statement, updates have one of their own.
-- raises     PQ014  the options name a column that the table does not have
-- runs as    caller, within a security definer function
create or replace function pgq._make_capture_code(i_capture pgq.captured) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $make$
declare
    v_writes boolean := pgq._capture_writes(i_capture);
    -- Updates come first: they are the most common.
    v_operations text[] := array(select upper(o) from jsonb_array_elements_text(i_capture.cap_options -> 'operations') o order by o <> 'update');
    v_update text[] := array[]::text[];
    v_qualified boolean := pgq._capture_qualified(i_capture);
    v_settings text := case when v_writes and not (v_qualified and i_capture.cap_level = 'row') then 'set search_path = pg_catalog, pg_temp' else '' end
        -- A plan that was made for many rows would be compiled again for each single one.
        || case when i_capture.cap_level = 'statement' then ' set jit = off' else '' end;
    v_body text := $body$
#variable_conflict use_column
declare
    v_none pg_catalog.text;
    v_count pg_catalog.int8;
    v_slot pg_catalog.int4;
    v_data pg_catalog.text;
    v_old pg_catalog.text;
    v_path pg_catalog.text;
    v_jit pg_catalog.text;
begin
%s    return v_none;
end $body$;
    v_function record;
begin
    i_capture.cap_shape := pgq._shape(i_capture.cap_table);
    if i_capture.cap_level = 'statement' and v_writes and 'UPDATE' = any (v_operations) then
        v_update := array['UPDATE'];
        v_operations := array_remove(v_operations, 'UPDATE');
    end if;
    for v_function in
        select f.* from (values
            ('', v_operations, v_settings, pgq._capture_operations(i_capture, v_operations)),
            ('_update', v_update, case when v_qualified then '' else v_settings end,
             pgq._capture_one_update(i_capture) || case when not v_qualified then pgq._capture_operations(i_capture, v_update)
                 else $body$    -- Many rows, or a new key. Up to here each name is qualified, so that the function needs no settings of its own, which
    -- would take a tenth of the time of an update of one row; from here on it has those of other captures.
$body$ || pgq._capture_fixed(pgq._capture_operations(i_capture, v_update)
                 || $body$    -- So that no plan is left that was made for this many rows and would be compiled again for each single one.
    if v_jit = 'on' and current_setting('jit_above_cost')::float8 between 0 and v_count * 0.1 then
        discard plans;
    end if;
$body$) end)) f (suffix, operations, settings, body)
         where f.operations <> '{}'
    loop
        execute format('create or replace function pgq.capture_%s%s() returns trigger language plpgsql %s %s as %L', i_capture.cap_id,
                       v_function.suffix, case when v_writes then 'security definer' else '' end, v_function.settings, format(v_body, v_function.body));
    end loop;
    for v_function in select * from pgq._capture_functions(i_capture.cap_id) f loop
        execute format('revoke all on function %s from public', v_function.f);
        if to_regrole('pgq_admin') is not null then
            execute format('grant execute on function %s to pgq_admin', v_function.f);
        end if;
        execute format('comment on function %s is %L', v_function.f,
            format('skytools: generated, captures changes of %s; regenerate: select pgq.refresh_capture()', i_capture.cap_table));
    end loop;
    update pgq.captured set cap_shape = i_capture.cap_shape where cap_id = i_capture.cap_id;
end $make$;
