-- Code that is generated for each queue: it inserts statically into the queue's current table, so its plan is cached, and
-- holds no check that the queue's settings do not ask for. Made anew whenever the row in pgq.queue changes. As functions
-- are found by the newest catalog, not by the transaction's snapshot, an old REPEATABLE READ transaction, too, inserts
-- into the table that is current now.

-- pgq._event_table(i_queue_id, i_slot) -> text
-- The name of a queue's data table: made of the queue's id alone, so it needs no quoting, and nobody can change it.
-- runs as    caller
create or replace function pgq._event_table(i_queue_id integer, i_slot integer) returns text
language sql immutable as $$
    select pg_catalog.format('pgq.event_%s_%s', i_queue_id, i_slot)
$$;

-- pgq._event_seq(i_queue_id) -> regclass
-- The sequence of a queue's event ids.
-- runs as    caller
create or replace function pgq._event_seq(i_queue_id integer) returns regclass
language sql stable as $$
    select pg_catalog.format('pgq.event_%s_id_seq', i_queue_id)::pg_catalog.regclass
$$;

-- pgq._make_queue_code(i_queue) -> void
-- Write the functions of one queue: event_<id>_insert() inserts an event, event_<id>_insert_many() as many as its arrays
-- hold; event_<id>_slot() tells the current table's number, and so does event_<id>_admit(count), after the checks that so many
-- more events ask for: bulk writers call it, and insert into that table themselves. Captures do so under any search_path, so
-- its names are qualified, operators too. event_<id>_newer(snapshot) tells whether there are committed events that a tick with
-- that snapshot does not cover.
-- runs as    caller, within a security definer function
create or replace function pgq._make_queue_code(i_queue pgq.queue) returns void
language plpgsql as $make$
declare
    v_note text := format('skytools: generated for queue %L from pgq.queue; regenerate: select pgq.refresh_code()', i_queue.queue_name);
    v_table text := pgq._event_table(i_queue.queue_id, i_queue.queue_cur_table);
    v_checks text := '';
    v_function record;
begin
    if i_queue.queue_disable_insert then
        v_checks := v_checks || format($part$
    if pg_catalog.current_setting('session_replication_role') operator(pg_catalog.<>) 'replica' then
        raise exception 'Insert into queue disallowed: %%', %1$L
            using errcode = 'PQ006',
                  hint = pg_catalog.format('to allow it: update pgq.queue set queue_disable_insert = false where queue_name = %%L', %1$L);
    end if;$part$, i_queue.queue_name);
    end if;
    if i_queue.queue_per_tx_limit is not null then
        -- A transaction-local setting counts: a rolled back savepoint takes it back, the end of the transaction clears it.
        v_checks := v_checks || format($part$
    v_count := pg_catalog.concat('0', pg_catalog.current_setting('pgq.events_in_tx_%1$s', true))::bigint operator(pg_catalog.+) i_count;
    if v_count operator(pg_catalog.>) %2$s then
        raise exception 'Queue %% allows max %% events from one TX', pg_catalog.quote_literal(%3$L), %2$s
            using errcode = 'PQ007', hint = 'commit more often, or raise queue_per_tx_limit in pgq.queue';
    end if;
    perform pg_catalog.set_config('pgq.events_in_tx_%1$s', v_count::pg_catalog.text, true);$part$,
            i_queue.queue_id, i_queue.queue_per_tx_limit, i_queue.queue_name);
    end if;

    if pgq._wakes(i_queue.queue_id) then
        -- Null as long as nobody has set it.
        v_checks := v_checks || format($part$
    if coalesce(pg_catalog.pg_sequence_last_value('pgq.wakeup_state'), 0) operator(pg_catalog.<>) 2 then
        perform pg_catalog.pg_notify('pgq_insert', '%s');
    end if;$part$, i_queue.queue_id);
    end if;

    for v_function in
        select * from (values
            ('slot()', 'integer language sql', format('select %s', i_queue.queue_cur_table)),
            ('admit(i_count bigint)',
             case when v_checks = '' then 'integer language sql' else 'integer language plpgsql' end,
             case when v_checks = '' then format('select %s', i_queue.queue_cur_table)
                  else format(e'\ndeclare\n    v_count bigint;\nbegin%s\n    return %s;\nend ', v_checks, i_queue.queue_cur_table) end),
            -- By the indexes alone, whatever the statistics say: the newest event, then those of transactions open at the tick.
            ('newer(i_snapshot txid_snapshot)', 'boolean language plpgsql set enable_seqscan = off', format($body$
declare
    v_open bigint[];
begin
    if greatest((select e.ev_txid from pgq.event_%1$s_0 e order by e.ev_txid desc limit 1),
                (select e.ev_txid from pgq.event_%1$s_1 e order by e.ev_txid desc limit 1),
                (select e.ev_txid from pgq.event_%1$s_2 e order by e.ev_txid desc limit 1)) >= txid_snapshot_xmax(i_snapshot) then
        return true;
    elsif txid_snapshot_xmin(i_snapshot) = txid_snapshot_xmax(i_snapshot) then
        return false;
    end if;
    v_open := array(select txid_snapshot_xip(i_snapshot));
    return exists (select from pgq.event_%1$s_0 e where e.ev_txid = any (v_open))
        or exists (select from pgq.event_%1$s_1 e where e.ev_txid = any (v_open))
        or exists (select from pgq.event_%1$s_2 e where e.ev_txid = any (v_open));
end $body$, i_queue.queue_id)),
            ('insert(i_ev_id bigint, i_ev_time timestamptz, i_ev_owner integer, i_ev_retry integer, i_ev_type text, i_ev_data text, '
             'i_ev_extra1 text, i_ev_extra2 text, i_ev_extra3 text, i_ev_extra4 text)',
             'bigint language plpgsql',
             format($body$
declare
    v_ev_id bigint := nextval('pgq.event_%1$s_id_seq');
begin%2$s
    insert into %3$s (ev_id, ev_time, ev_owner, ev_retry, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4)
    values (coalesce(i_ev_id, v_ev_id), coalesce(i_ev_time, now()), i_ev_owner, i_ev_retry, i_ev_type, i_ev_data,
            i_ev_extra1, i_ev_extra2, i_ev_extra3, i_ev_extra4);
    return coalesce(i_ev_id, v_ev_id);
end $body$, i_queue.queue_id,
                case when v_checks <> '' then format($part$
    -- Events that come back for a retry are let in whatever the limit.
    perform pgq.event_%s_admit(case when i_ev_owner is null then 1 else 0 end);$part$, i_queue.queue_id) else '' end, v_table)),
            -- The ids: all from o_first to o_last, or, where others drew some of those, the list o_ids.
            ('insert_many(i_types text[], i_datas text[], i_extra1 text[], i_extra2 text[], i_extra3 text[], i_extra4 text[], '
             'out o_first bigint, out o_last bigint, out o_ids bigint[])',
             'record language plpgsql',
             format($body$
declare
    v_time timestamptz := now();
    v_txid bigint := txid_current();
begin
    perform pgq.event_%1$s_admit(cardinality(i_types));
    if cardinality(i_types) = 0 then
        o_first := 1;
        o_last := 0;
        return;
    end if;
    o_first := coalesce(pg_sequence_last_value('pgq.event_%1$s_id_seq'), 0) + 1;
    -- In the select list unnest gives row by row what it would store first in FROM. Ids are drawn by the column's default.
    if coalesce(i_extra1, i_extra2, i_extra3, i_extra4) is null then
        insert into %2$s (ev_time, ev_txid, ev_type, ev_data) select v_time, v_txid, unnest(i_types), unnest(i_datas);
    else
        insert into %2$s (ev_time, ev_txid, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4)
        select v_time, v_txid, unnest(i_types), unnest(i_datas), unnest(i_extra1), unnest(i_extra2), unnest(i_extra3), unnest(i_extra4);
    end if;
    o_last := currval('pgq.event_%1$s_id_seq');
    if o_last - o_first + 1 <> cardinality(i_types) then
        o_ids := array(select e.ev_id from pgq.event_%1$s e
                        where e.ev_txid = v_txid and e.ev_id between o_first and o_last order by e.ev_id);
    end if;
end $body$, i_queue.queue_id, v_table))
        ) as f (signature, result, body)
    loop
        execute format('create or replace function pgq.event_%s_%s returns %s as %L',
                       i_queue.queue_id, v_function.signature, v_function.result, v_function.body);
    end loop;
    for v_function in select * from pgq._queue_functions(i_queue.queue_id) f loop
        execute format('revoke all on function %s from public', v_function.f);
        execute format('comment on function %s is %L', v_function.f, v_note);
    end loop;
end $make$;

-- pgq._queue_functions(i_queue_id) -> setof regprocedure
-- The functions that were generated for a queue.
-- runs as    caller
create or replace function pgq._queue_functions(i_queue_id integer) returns setof regprocedure
language sql stable as $$
    select p.oid::pg_catalog.regprocedure from pg_catalog.pg_proc p
     where p.pronamespace = 'pgq'::pg_catalog.regnamespace
       and p.proname = any (array[pg_catalog.format('event_%s_slot', i_queue_id), pg_catalog.format('event_%s_admit', i_queue_id),
                                  pg_catalog.format('event_%s_insert', i_queue_id), pg_catalog.format('event_%s_insert_many', i_queue_id),
                                  pg_catalog.format('event_%s_newer', i_queue_id)])
$$;

-- pgq._name_tree(i_names, i_ids, i_variable, i_call, i_low, i_high) -> text
-- PL/pgSQL that finds a queue by name, by binary search, and makes a call for it.
-- i_names    queue names in the order of collation "C"
-- i_ids      their ids
-- i_variable what holds the name
-- i_call     statements, in which %s stands for the queue's id
-- runs as    caller
create or replace function pgq._name_tree(
    i_names text[], i_ids integer[], i_variable text, i_call text, i_low integer, i_high integer)
returns text
language plpgsql immutable as $$
declare
    v_middle integer := (i_low + i_high + 1) / 2;
begin
    if i_low = i_high then
        return format(e'if %s = %L then %s end if;\n', i_variable, i_names[i_low], format(i_call, i_ids[i_low]));
    end if;
    return format(e'if %s < %L collate "C" then\n%selse\n%send if;\n', i_variable, i_names[v_middle],
                  pgq._name_tree(i_names, i_ids, i_variable, i_call, i_low, v_middle - 1),
                  pgq._name_tree(i_names, i_ids, i_variable, i_call, v_middle, i_high));
end $$;

-- pgq._make_insert_event() -> void
-- Write pgq.insert_event() and pgq.insert_events() for the queues that there are now.
-- runs as    caller, within a security definer function
create or replace function pgq._make_insert_event() returns void
language plpgsql as $make$
declare
    v_names text[];
    v_ids integer[];
    v_arguments text := 'null, null, null, null, ev_type, ev_data, ';
    v_function record;
begin
    select array_agg(q.queue_name order by q.queue_name collate "C"),
           array_agg(q.queue_id order by q.queue_name collate "C")
      into v_names, v_ids from pgq.queue q;
    for v_function in
        select * from (values
            ('insert_event(queue_name text, ev_type text, ev_data text)', 'bigint', '', e'begin\n', '', 'queue_name',
             'return pgq.event_%s_insert(' || v_arguments || 'null, null, null, null);'),
            ('insert_event(queue_name text, ev_type text, ev_data text, ev_extra1 text, ev_extra2 text, ev_extra3 text, ev_extra4 text)',
             'bigint', '', e'begin\n', '', 'queue_name',
             'return pgq.event_%s_insert(' || v_arguments || 'ev_extra1, ev_extra2, ev_extra3, ev_extra4);'),
            -- The ids are gathered in memory before they are returned: work_mem of the usual 4 MB would hold some 80,000. And a
            -- plan of its own for each call would copy the arrays into the plan.
            ('insert_events(queue text, types text[], datas text[], extra1 text[] default null, extra2 text[] default null, '
             'extra3 text[] default null, extra4 text[] default null)', 'setof bigint', $$set work_mem = '64MB' set plan_cache_mode = 'force_generic_plan'$$,
             e'declare\n    v_first bigint;\n    v_last bigint;\n    v_ids bigint[];\nbegin\n'
             '    perform pgq._check_arrays(queue, types, datas, extra1, extra2, extra3, extra4);\n',
             e'    if v_ids is not null then\n        return query select unnest(v_ids);\n        return;\n'
             '    elsif v_first is not null then\n        return query select generate_series(v_first, v_last);\n        return;\n    end if;\n',
             'queue', 'select * into v_first, v_last, v_ids from pgq.event_%s_insert_many(types, datas, extra1, extra2, extra3, extra4);')
        ) as f (signature, result, settings, head, tail, variable, call)
    loop
        execute format($function$
create or replace function pgq.%s returns %s
language plpgsql security definer set search_path = pg_catalog, pg_temp %s as %L$function$,
            v_function.signature, v_function.result, v_function.settings, format($body$
%1$s%2$s%3$s    raise exception '%%', coalesce('No such queue: ' || %4$s, 'Queue name must not be NULL')
        using errcode = case when %4$s is null then 'PQ008' else 'PQ001' end,
              hint = 'queues there are: select queue_name from pgq.queue';
end $body$, v_function.head,
            case when v_names is null then ''
                 else pgq._name_tree(v_names, v_ids, v_function.variable, v_function.call, 1, cardinality(v_names)) end,
            v_function.tail, v_function.variable));
    end loop;
end $make$;

-- pgq.refresh_code() -> integer
-- Generate the code of every queue anew, and pgq.insert_event(), and drop the code of triggers that are gone; for after a
-- restore or a repair by hand.
-- returns    number of queues
-- locks      as pgq.create_queue()
-- runs as    owner
create or replace function pgq.refresh_code() returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
    v_count integer := 0;
begin
    perform pgq._lock_queue_set();
    for v_queue in select * from pgq.queue order by queue_id loop
        perform pgq._make_queue_code(v_queue);
        v_count := v_count + 1;
    end loop;
    perform pgq._make_insert_event();
    perform pgq._drop_trigger_code();
    return v_count;
end $$;

-- pgq._lock_queue_set() -> void
-- One transaction at a time changes the set of queues: pgq.insert_event() is one function for all of them.
-- locks      an advisory lock, to the end of the transaction; nobody but create_queue, drop_queue and the like takes it
-- runs as    caller
create or replace function pgq._lock_queue_set() returns void
language sql as $$
    select pg_advisory_xact_lock('pgq.queue'::regclass::oid::bigint::integer, 0)
$$;

-- pgq._queue_changed() -> trigger
-- Keep the generated code in step with pgq.queue.
-- runs as    owner: an operator with UPDATE on pgq.queue need not own functions
create or replace function pgq._queue_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if tg_op <> 'DELETE' then
        perform pgq._make_queue_code(new);
    end if;
    if tg_op = 'DELETE' or tg_op = 'UPDATE' and new.queue_name <> old.queue_name then
        perform pgq._drop_queue_code(old.queue_id);
    end if;
    if tg_op = 'DELETE' and current_setting('skytools.keep_code', true) = 'on' then
        return null; -- skytools.wipe() drops many, and makes the code anew afterwards
    end if;
    if tg_op <> 'UPDATE' or new.queue_name <> old.queue_name then
        perform pgq._lock_queue_set();
        perform pgq._make_insert_event();
    end if;
    return null;
end $$;

create trigger queue_changed after insert or delete on pgq.queue
    for each row execute function pgq._queue_changed();
create trigger queue_settings_changed after update on pgq.queue
    for each row when ((old.queue_name, old.queue_cur_table, old.queue_disable_insert, old.queue_per_tx_limit)
        is distinct from (new.queue_name, new.queue_cur_table, new.queue_disable_insert, new.queue_per_tx_limit))
    execute function pgq._queue_changed();

-- pgq._sealed() -> trigger
-- Guards a data table that takes no more events (see pgq.maint_rotate_tables_step2()): a statement that chose it before
-- the rotation, and reaches it only after, has its event put into the current table instead.
-- raises     40001  there is no saying which table is current
-- runs as    owner
create or replace function pgq._sealed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_current text;
begin
    execute format('select %L || pgq.event_%s_slot()', format('event_%s_', tg_argv[0]), tg_argv[0]) into v_current;
    if v_current = tg_table_name then
        raise exception 'could not serialize access: %.% takes no more events', tg_table_schema, tg_table_name
            using errcode = '40001', hint = 'run the transaction again';
    end if;
    execute format('insert into pgq.%I select ($1).*', v_current) using new;
    return null;
end $$;
