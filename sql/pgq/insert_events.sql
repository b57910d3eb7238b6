-- pgq._insert_many(i_queue_name, i_count, i_columns, i_values) -> text
-- The statement that inserts many events, after the checks that insert_event() makes for each.
-- i_count    how many events
-- i_columns  which of ev_type, ev_data, ev_extra1 .. ev_extra4 are given
-- i_values   select list for them, and FROM if need be, that gives a row an event, in their order
-- returns    an INSERT that returns the ids; they are drawn by the column's default, so in the order of the source
-- raises     PQ001, PQ006, PQ007  as pgq.insert_event()
-- runs as    caller, within a security definer function
create or replace function pgq._insert_many(i_queue_name text, i_count integer, i_columns text, i_values text)
returns text
language plpgsql as $$
declare
    v_table text := pgq.current_event_table(i_queue_name);
    v_queue pgq.queue;
    v_setting text;
    v_done integer;
begin
    select * into v_queue from pgq.queue q where q.queue_name = i_queue_name;
    if v_queue.queue_per_tx_limit is not null then
        v_setting := format('pgq.events_in_tx_%s', v_queue.queue_id);
        v_done := coalesce(nullif(current_setting(v_setting, true), ''), '0')::integer + i_count;
        if v_done > v_queue.queue_per_tx_limit then
            raise exception 'Queue % allows max % events from one TX', quote_literal(i_queue_name), v_queue.queue_per_tx_limit
                using errcode = 'PQ007', hint = 'commit more often, or raise queue_per_tx_limit in pgq.queue';
        end if;
        perform set_config(v_setting, v_done::text, true);
    end if;
    -- One txid, one time for all: a constant costs less than the column's default for each row.
    return format('insert into %s (ev_time, ev_txid, %s) select now(), %s, %s returning ev_id',
                  v_table, i_columns, txid_current(), i_values);
end $$;

-- The ids are gathered in memory before they are returned: work_mem of the usual 4 MB would hold some 80,000 of them.

-- pgq.insert_events(queue, types, datas, extra1, extra2, extra3, extra4) -> setof bigint
-- Put many events into a queue in one call: the n-th event has the n-th element of each array.
-- queue      the queue
-- types      event types
-- datas      payloads, as many as types; null: all payloads are null
-- extra1     further fields, as many as types; null: none; so are extra2, extra3 and extra4
-- returns    the event ids, ascending, in the order of the arrays; no rows for empty arrays
-- raises     PQ001, PQ006, PQ007  as pgq.insert_event(); then no event is inserted
-- raises     PQ008  types is null, or an array is not as long as types or has more than one dimension
-- locks      the queue's current table ROW EXCLUSIVE
-- runs as    owner
create or replace function pgq.insert_events(
    queue text, types text[], datas text[],
    extra1 text[] default null, extra2 text[] default null, extra3 text[] default null, extra4 text[] default null)
returns setof bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set work_mem = '64MB' as $$
declare
    v_bad text;
    v_columns text := 'ev_type, ev_data';
    -- In the select list unnest gives row by row what it would store first in FROM.
    v_values text := 'unnest($1), unnest($2)';
begin
    if types is null then
        v_bad := 'types is null';
    else
        select string_agg(format('%s has %s elements', a.name, cardinality(a.list)), ', ') into v_bad
          from (values ('types', types), ('datas', datas), ('extra1', extra1), ('extra2', extra2),
                       ('extra3', extra3), ('extra4', extra4)) as a (name, list)
         where cardinality(a.list) <> cardinality(types) or array_ndims(a.list) > 1;
    end if;
    if v_bad is not null then
        raise exception 'insert_events into queue %: each array must have one dimension and the length of types (%): %',
            coalesce(queue, 'NULL'), coalesce(cardinality(types)::text, 'null'), v_bad
            using errcode = 'PQ008', hint = 'an array for a field that no event has may be null';
    end if;
    if coalesce(extra1, extra2, extra3, extra4) is not null then
        v_columns := v_columns || ', ev_extra1, ev_extra2, ev_extra3, ev_extra4';
        v_values := v_values || ', unnest($3), unnest($4), unnest($5), unnest($6)';
    end if;
    return query execute pgq._insert_many(queue, cardinality(types), v_columns, v_values)
      using types, datas, extra1, extra2, extra3, extra4;
end $$;

-- pgq.insert_events(queue, events) -> setof bigint
-- Put many events into a queue in one call, each given as a JSON object.
-- queue      the queue
-- events     objects with the keys type, data, extra1, extra2, extra3, extra4, none of them required. A string is stored as
--            its text, null as null, everything else as JSON text
-- returns    the event ids, ascending, in the order of the array; no rows for an empty array
-- raises     PQ001, PQ006, PQ007  as pgq.insert_event(); then no event is inserted
-- raises     PQ008  events is null, an element is not an object or has another key
-- locks      the queue's current table ROW EXCLUSIVE
-- runs as    owner
create or replace function pgq.insert_events(queue text, events jsonb[]) returns setof bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set work_mem = '64MB' as $$
declare
    v_bad text;
begin
    if events is null then
        v_bad := 'events is null';
    else
        select format('element %s is %s', e.n, coalesce(left(e.event::text, 100), 'null')) into v_bad
          from unnest(events) with ordinality e (event, n)
         where jsonb_typeof(e.event) is distinct from 'object'
            or (e.event - array['type', 'data', 'extra1', 'extra2', 'extra3', 'extra4']) <> '{}'
         order by e.n limit 1;
    end if;
    if v_bad is not null then
        raise exception 'insert_events into queue %: events must be objects with the keys type, data, extra1 .. extra4: %',
            coalesce(queue, 'NULL'), v_bad
            using errcode = 'PQ008', hint = 'e.g. array[''{"type": "t", "data": {"a": 1}}''::jsonb]';
    end if;
    return query execute pgq._insert_many(queue, cardinality(events),
        'ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4',
        $values$e->>'type', e->>'data', e->>'extra1', e->>'extra2', e->>'extra3', e->>'extra4' from (select unnest($1) as e) s$values$)
      using events;
end $$;
