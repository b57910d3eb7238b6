-- pgq.create_queue(i_queue_name) -> integer
-- Create a queue with its tables, sequences, code and first tick.
-- i_queue_name any text; tables are named by the queue's id, so every name is safe
-- returns    1 created, 0 there is one already
-- raises     PQ008  the name is null
-- locks      one change to the set of queues at a time, to the end of the transaction
-- runs as    owner
create or replace function pgq.create_queue(i_queue_name text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_id integer;
    v_table text;
begin
    if i_queue_name is null then
        raise exception 'Invalid NULL value: queue name'
            using errcode = 'PQ008', hint = 'select pgq.create_queue(''name'')';
    end if;
    perform pgq._lock_queue_set();
    perform 1 from pgq.queue q where q.queue_name = i_queue_name;
    if found then
        return 0;
    end if;

    v_id := nextval('pgq.queue_queue_id_seq');
    v_table := format('event_%s', v_id);
    execute format('create sequence pgq.%I', v_table || '_id_seq');
    execute format('create sequence pgq.%I', v_table || '_tick_seq');
    execute format('create table pgq.%I () inherits (pgq.event_template)', v_table);
    for v_slot in 0..2 loop
        execute format('create table pgq.%I () inherits (pgq.%I)', format('%s_%s', v_table, v_slot), v_table);
        execute format('alter table pgq.%I alter column ev_id set default nextval(%L)',
                       format('%s_%s', v_table, v_slot), format('pgq.%s_id_seq', v_table));
        execute format('create index %I on pgq.%I (ev_txid)',
                       format('%s_%s_txid_idx', v_table, v_slot), format('%s_%s', v_table, v_slot));
    end loop;
    execute format('comment on table pgq.%I is %L', v_table, 'skytools: events of queue ' || quote_literal(i_queue_name));

    insert into pgq.queue (queue_id, queue_name, queue_data_pfx, queue_event_seq, queue_tick_seq)
    values (v_id, i_queue_name, 'pgq.' || v_table, format('pgq.%s_id_seq', v_table), format('pgq.%s_tick_seq', v_table));
    perform pgq.grant_perms(i_queue_name);
    perform pgq.tune_storage(i_queue_name);
    perform pgq.ticker(i_queue_name);
    return 1;
end $$;

-- pgq.drop_queue(x_queue_name, x_force) -> integer
-- Drop a queue with everything in it.
-- x_queue_name the queue
-- x_force    true: its subscriptions go too, open batches included, and captures into it end
-- returns    1
-- raises     PQ001  no such queue
-- raises     PQ009  consumers are still attached, and x_force is not true
-- raises     PQ015  tables are captured into it, and x_force is not true
-- locks      the queue's row, then its tables ACCESS EXCLUSIVE: waits for transactions that use them
-- runs as    owner
create or replace function pgq.drop_queue(x_queue_name text, x_force bool) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
    v_consumers text;
    v_tables text;
    v_function regprocedure;
begin
    perform pgq._lock_queue_set();
    select * into v_queue from pgq.queue q where q.queue_name = x_queue_name for update;
    if not found then
        raise exception 'No such event queue: %', coalesce(x_queue_name, 'NULL')
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    if x_force then
        perform pgq.unregister_consumer(i.queue_name, i.consumer_name)
           from pgq.get_consumer_info(x_queue_name) i;
        perform pgq._drop_capture(c.cap_id, true) from pgq.captured c where c.cap_queue = v_queue.queue_id;
    else
        select string_agg(quote_ident(c.co_name), ', ' order by c.co_name) into v_consumers
          from pgq.subscriber s join pgq.consumer c on c.co_id = s.sub_consumer
         where s.sub_queue = v_queue.queue_id;
        if v_consumers is not null then
            raise exception 'cannot drop queue, consumers still attached: queue %, consumers %', quote_ident(x_queue_name), v_consumers
                using errcode = 'PQ009', hint = format('to drop them too: select pgq.drop_queue(%L, true)', x_queue_name);
        end if;
        perform pgq._drop_capture(c.cap_id, true) from pgq.captured c
          where c.cap_queue = v_queue.queue_id and not exists (select from pg_class r where r.oid = c.cap_table);
        select string_agg(c.cap_table::text, ', ' order by c.cap_table) into v_tables from pgq.captured c where c.cap_queue = v_queue.queue_id;
        if v_tables is not null then
            raise exception 'cannot drop queue %, tables are captured into it: %', quote_ident(x_queue_name), v_tables
                using errcode = 'PQ015', hint = format('to end that too: select pgq.drop_queue(%L, true)', x_queue_name);
        end if;
    end if;

    for v_slot in 0 .. v_queue.queue_ntables - 1 loop
        execute format('drop table %s', pgq._event_table(v_queue.queue_id, v_slot));
    end loop;
    execute format('drop table pgq.event_%s', v_queue.queue_id);
    delete from pgq.tick t where t.tick_queue = v_queue.queue_id;
    delete from pgq.retry_queue r where r.ev_queue = v_queue.queue_id;
    delete from pgq.dead_letter d where d.queue_name = x_queue_name;
    delete from pgq.queue q where q.queue_id = v_queue.queue_id;
    execute format('drop sequence pgq.event_%1$s_id_seq, pgq.event_%1$s_tick_seq', v_queue.queue_id);
    for v_function in select * from pgq._queue_functions(v_queue.queue_id) loop
        execute format('drop function %s', v_function);
    end loop;
    return 1;
end $$;

-- pgq.drop_queue(x_queue_name) -> integer
-- Drop a queue that has no consumers.
-- returns    1; null for null
-- raises     PQ001  no such queue
-- raises     PQ009  consumers are still attached
-- raises     PQ015  tables are captured into it
-- runs as    caller; see pgq.drop_queue(text, bool)
create or replace function pgq.drop_queue(x_queue_name text) returns integer
language sql strict as $$
    select pgq.drop_queue(x_queue_name, false)
$$;
