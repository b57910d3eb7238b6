-- pgq._check_arrays(i_queue, i_types, i_datas, i_extra1, i_extra2, i_extra3, i_extra4) -> void
-- See that the arrays of pgq.insert_events() fit together.
-- raises     PQ008  i_types is null, or an array is not as long as i_types or has more than one dimension
-- runs as    caller
create or replace function pgq._check_arrays(
    i_queue text, i_types text[], i_datas text[], i_extra1 text[], i_extra2 text[], i_extra3 text[], i_extra4 text[])
returns void
language plpgsql as $$
declare
    v_bad text;
begin
    if i_types is null then
        v_bad := 'types is null';
    else
        select string_agg(format('%s has %s elements', a.name, cardinality(a.list)), ', ') into v_bad
          from (values ('types', i_types), ('datas', i_datas), ('extra1', i_extra1), ('extra2', i_extra2),
                       ('extra3', i_extra3), ('extra4', i_extra4)) as a (name, list)
         where cardinality(a.list) <> cardinality(i_types) or array_ndims(a.list) > 1;
    end if;
    if v_bad is not null then
        raise exception 'insert_events into queue %: each array must have one dimension and the length of types (%): %',
            coalesce(i_queue, 'NULL'), coalesce(cardinality(i_types)::text, 'null'), v_bad
            using errcode = 'PQ008', hint = 'an array for a field that no event has may be null';
    end if;
end $$;

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
-- see        generated for the queues there are, by pgq._make_insert_event()
do $$
declare
    v_function regprocedure;
begin
    perform pgq._make_insert_event();
    foreach v_function in array array['pgq.insert_event(text, text, text)', 'pgq.insert_event(text, text, text, text, text, text, text)']::regprocedure[] loop
        execute format('comment on function %s is %L', v_function,
                       'skytools: generated from pgq.queue; puts an event into a queue and returns its id; regenerate: select pgq.refresh_code()');
    end loop;
end $$;
comment on function pgq.insert_events(text, text[], text[], text[], text[], text[], text[]) is
    'skytools: generated from pgq.queue; puts many events into a queue in one call and returns their ids; regenerate: select pgq.refresh_code()';

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
    return query
        select i.id
          from (select array_agg(e.event->>'type' order by e.n) as types, array_agg(e.event->>'data' order by e.n) as datas,
                       array_agg(e.event->>'extra1' order by e.n) as extra1, array_agg(e.event->>'extra2' order by e.n) as extra2,
                       array_agg(e.event->>'extra3' order by e.n) as extra3, array_agg(e.event->>'extra4' order by e.n) as extra4
                  from unnest(events) with ordinality e (event, n)) a
         cross join lateral pgq.insert_events(queue, coalesce(a.types, '{}'), a.datas, a.extra1, a.extra2, a.extra3, a.extra4) i (id);
end $$;
