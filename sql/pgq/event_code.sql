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
-- Write the functions of one queue: event_<id>_insert(), which inserts an event, and event_<id>_slot(), which tells the
-- current table's number.
-- runs as    caller, within a security definer function
create or replace function pgq._make_queue_code(i_queue pgq.queue) returns void
language plpgsql as $make$
declare
    v_arguments text := 'bigint, timestamptz, integer, integer, text, text, text, text, text, text';
    v_note text := format('skytools: generated for queue %L from pgq.queue; regenerate: select pgq.refresh_code()', i_queue.queue_name);
    v_checks text := '';
    v_name text;
begin
    if i_queue.queue_disable_insert then
        v_checks := v_checks || format($part$
    if current_setting('session_replication_role') <> 'replica' then
        raise exception 'Insert into queue disallowed: %%', %1$L
            using errcode = 'PQ006',
                  hint = format('to allow it: update pgq.queue set queue_disable_insert = false where queue_name = %%L', %1$L);
    end if;$part$, i_queue.queue_name);
    end if;
    if i_queue.queue_per_tx_limit is not null then
        -- A transaction-local setting counts: a rolled back savepoint takes it back, the end of the transaction clears it.
        v_checks := v_checks || format($part$
    if i_ev_owner is null then
        if coalesce(nullif(current_setting('pgq.events_in_tx_%1$s', true), ''), '0')::integer >= %2$s then
            raise exception 'Queue %% allows max %% events from one TX', quote_literal(%3$L), %2$s
                using errcode = 'PQ007', hint = 'commit more often, or raise queue_per_tx_limit in pgq.queue';
        end if;
        perform set_config('pgq.events_in_tx_%1$s',
            (coalesce(nullif(current_setting('pgq.events_in_tx_%1$s', true), ''), '0')::integer + 1)::text, true);
    end if;$part$, i_queue.queue_id, i_queue.queue_per_tx_limit, i_queue.queue_name);
    end if;

    execute format($function$
create or replace function pgq.event_%1$s_insert(
    i_ev_id bigint, i_ev_time timestamptz, i_ev_owner integer, i_ev_retry integer, i_ev_type text, i_ev_data text,
    i_ev_extra1 text, i_ev_extra2 text, i_ev_extra3 text, i_ev_extra4 text)
returns bigint language plpgsql as %2$L$function$, i_queue.queue_id, format($body$
declare
    v_ev_id bigint := nextval('pgq.event_%1$s_id_seq');
begin%2$s
    insert into %3$s (ev_id, ev_time, ev_owner, ev_retry, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4)
    values (coalesce(i_ev_id, v_ev_id), coalesce(i_ev_time, now()), i_ev_owner, i_ev_retry, i_ev_type, i_ev_data,
            i_ev_extra1, i_ev_extra2, i_ev_extra3, i_ev_extra4);
    return coalesce(i_ev_id, v_ev_id);
end $body$, i_queue.queue_id, v_checks, pgq._event_table(i_queue.queue_id, i_queue.queue_cur_table)));
    execute format('create or replace function pgq.event_%s_slot() returns integer language sql as %L',
                   i_queue.queue_id, format('select %s', i_queue.queue_cur_table));

    foreach v_name in array array[format('pgq.event_%s_insert(%s)', i_queue.queue_id, v_arguments),
                                  format('pgq.event_%s_slot()', i_queue.queue_id)] loop
        execute format('revoke all on function %s from public', v_name);
        execute format('comment on function %s is %L', v_name, v_note);
    end loop;
end $make$;

-- pgq._name_tree(i_names, i_ids, i_arguments, i_low, i_high) -> text
-- PL/pgSQL that finds a queue by name, by binary search, and calls its insert function.
-- i_names    queue names in the order of collation "C"
-- i_ids      their ids
-- i_arguments what to call the insert function with
-- runs as    caller
create or replace function pgq._name_tree(i_names text[], i_ids integer[], i_arguments text, i_low integer, i_high integer)
returns text
language plpgsql immutable as $$
declare
    v_middle integer := (i_low + i_high + 1) / 2;
begin
    if i_low = i_high then
        return format(e'if queue_name = %L then return pgq.event_%s_insert(%s); end if;\n',
                      i_names[i_low], i_ids[i_low], i_arguments);
    end if;
    return format(e'if queue_name < %L collate "C" then\n%selse\n%send if;\n', i_names[v_middle],
                  pgq._name_tree(i_names, i_ids, i_arguments, i_low, v_middle - 1),
                  pgq._name_tree(i_names, i_ids, i_arguments, v_middle, i_high));
end $$;

-- pgq._make_insert_event() -> void
-- Write pgq.insert_event() for the queues that there are now.
-- runs as    caller, within a security definer function
create or replace function pgq._make_insert_event() returns void
language plpgsql as $make$
declare
    v_names text[];
    v_ids integer[];
    v_parameters text := 'queue_name text, ev_type text, ev_data text';
    v_arguments text := 'null, null, null, null, ev_type, ev_data, ';
    v_extra boolean;
begin
    select array_agg(q.queue_name order by q.queue_name collate "C"),
           array_agg(q.queue_id order by q.queue_name collate "C")
      into v_names, v_ids from pgq.queue q;
    foreach v_extra in array array[false, true] loop
        if v_extra then
            v_parameters := v_parameters || ', ev_extra1 text, ev_extra2 text, ev_extra3 text, ev_extra4 text';
        end if;
        execute format($function$
create or replace function pgq.insert_event(%s)
returns bigint language plpgsql security definer set search_path = pg_catalog, pg_temp as %L$function$, v_parameters, format($body$
begin
%s    raise exception '%%', coalesce('No such queue: ' || queue_name, 'Queue name must not be NULL')
        using errcode = case when queue_name is null then 'PQ008' else 'PQ001' end,
              hint = 'queues there are: select queue_name from pgq.queue';
end $body$,
            case when v_names is null then '' else pgq._name_tree(v_names, v_ids,
                v_arguments || case when v_extra then 'ev_extra1, ev_extra2, ev_extra3, ev_extra4' else 'null, null, null, null' end,
                1, cardinality(v_names)) end));
    end loop;
end $make$;

-- pgq.refresh_code() -> integer
-- Generate the code of every queue anew, and pgq.insert_event(); for after a restore or a repair by hand.
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
