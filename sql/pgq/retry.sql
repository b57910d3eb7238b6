-- pgq.event_retry(x_batch_id, x_event_id, x_retry_time) -> integer
-- Have one event of an open batch delivered again, to this consumer alone; it counts when the batch's transaction commits.
-- x_retry_time not before this time
-- returns    1 noted, 0 it waits for a retry already
-- raises     PQ003  no such open batch
-- raises     PQ004  the event is not in the batch
-- runs as    owner
create or replace function pgq.event_retry(x_batch_id bigint, x_event_id bigint, x_retry_time timestamptz) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_count integer;
    v_found bigint;
begin
    execute format('with event as (%s), stored as (%s) select (select count(*) from event), (select count(*) from stored)',
                   pgq._batch_query(x_batch_id, ' and ev.ev_id = $1'), pgq._retry_insert('event', x_batch_id))
       into v_found, v_count using x_event_id, x_retry_time;
    if v_found = 0 then
        raise exception 'event not found: % in batch %', coalesce(x_event_id::text, 'NULL'), x_batch_id
            using errcode = 'PQ004', hint = format('events of the batch: select ev_id from pgq.get_batch_events(%s)', x_batch_id);
    end if;
    return v_count;
end $$;

-- pgq._retry_insert(i_source, i_batch_id) -> text
-- The statement that puts events into the retry queue of the subscription that has the batch open.
-- i_source   a table of events; $2 in the statement is the time to retry them
-- returns    an INSERT that skips events which wait already
-- runs as    caller
create or replace function pgq._retry_insert(i_source text, i_batch_id bigint) returns text
language plpgsql as $$
declare
    v_batch record := pgq._find_batch(i_batch_id);
begin
    return format('insert into pgq.retry_queue (ev_retry_after, ev_queue, ev_id, ev_time, ev_owner, ev_retry, ev_type, ev_data, '
                  'ev_extra1, ev_extra2, ev_extra3, ev_extra4) '
                  'select $2, %s, ev_id, ev_time, %s, coalesce(ev_retry, 0) + 1, ev_type, ev_data, '
                  'ev_extra1, ev_extra2, ev_extra3, ev_extra4 from %s on conflict do nothing returning 1',
                  v_batch.queue_id, v_batch.sub_id, i_source);
end $$;

-- pgq.event_retry(x_batch_id, x_event_id, x_retry_seconds) -> integer
-- Have one event of an open batch delivered again, to this consumer alone.
-- x_retry_seconds not before so many seconds from now
-- returns    1 noted, 0 it waits for a retry already
-- raises     PQ003, PQ004  as the form with a time
-- runs as    owner
create or replace function pgq.event_retry(x_batch_id bigint, x_event_id bigint, x_retry_seconds integer) returns integer
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select pgq.event_retry(x_batch_id, x_event_id, current_timestamp + make_interval(secs => x_retry_seconds))
$$;

-- pgq.event_retry(x_batch_id, x_event_id, x_retry) -> integer
-- Have one event of an open batch delivered again: the form that drivers reach which send parameters without types.
-- x_retry    seconds from now as digits, or a timestamp
-- returns    1 noted, 0 it waits for a retry already
-- raises     PQ003, PQ004  as the form with a time
-- raises     22007  neither digits nor a timestamp
-- runs as    caller; see the form with a time
create or replace function pgq.event_retry(x_batch_id bigint, x_event_id bigint, x_retry text) returns integer
language sql as $$
    select case when x_retry ~ '^[0-9]+$' then pgq.event_retry(x_batch_id, x_event_id, x_retry::integer)
                else pgq.event_retry(x_batch_id, x_event_id, x_retry::timestamptz) end
$$;

-- pgq.batch_retry(i_batch_id, i_retry_seconds) -> integer
-- Have all events of an open batch delivered again, to this consumer alone.
-- i_retry_seconds not before so many seconds from now
-- returns    how many were noted; those that wait already are left alone
-- raises     PQ003  no such open batch
-- runs as    owner
create or replace function pgq.batch_retry(i_batch_id bigint, i_retry_seconds integer) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_batch record := pgq._find_batch(i_batch_id);
    v_count integer;
begin
    if v_batch.sub_key is null then
        raise exception 'batch_retry: batch % not found', coalesce(i_batch_id::text, 'NULL')
            using errcode = 'PQ003', hint = 'it may be finished; open one: select pgq.next_batch(''queue'', ''consumer'')';
    end if;
    execute format('with event as (%s), stored as (%s) select count(*) from stored',
                   pgq._batch_query(i_batch_id, ''), pgq._retry_insert('event', i_batch_id))
       into v_count using null::bigint, current_timestamp + make_interval(secs => i_retry_seconds);
    return v_count;
end $$;

-- pgq.event_retry_raw(x_queue, x_consumer, x_retry_after, x_ev_id, x_ev_time, x_ev_retry, x_ev_type, x_ev_data, x_ev_extra1, x_ev_extra2, x_ev_extra3, x_ev_extra4) -> bigint
-- Have an event, given in full, delivered to one consumer.
-- x_retry_after not before this time
-- x_ev_id    null: the next of the queue's sequence
-- x_ev_retry stored as given
-- returns    the event's id
-- raises     PQ002  the consumer is not subscribed to the queue
-- raises     23505  the event waits for a retry already
-- runs as    owner
create or replace function pgq.event_retry_raw(
    x_queue text, x_consumer text, x_retry_after timestamptz, x_ev_id bigint, x_ev_time timestamptz, x_ev_retry integer,
    x_ev_type text, x_ev_data text, x_ev_extra1 text, x_ev_extra2 text, x_ev_extra3 text, x_ev_extra4 text)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
    v_sub_id integer;
    v_ev_id bigint;
begin
    select q.* into v_queue from pgq.queue q where q.queue_name = x_queue;
    select s.sub_id into v_sub_id
      from pgq.subscriber s join pgq.consumer c on c.co_id = s.sub_consumer
     where s.sub_queue = v_queue.queue_id and c.co_name = x_consumer;
    if not found then
        raise exception 'consumer not registered: %/%', coalesce(x_queue, 'NULL'), coalesce(x_consumer, 'NULL')
            using errcode = 'PQ002', hint = format('select pgq.register_consumer(%L, %L)', x_queue, x_consumer);
    end if;
    v_ev_id := coalesce(x_ev_id, nextval(pgq._event_seq(v_queue.queue_id)));
    insert into pgq.retry_queue (ev_retry_after, ev_queue, ev_id, ev_time, ev_owner, ev_retry, ev_type, ev_data,
                                 ev_extra1, ev_extra2, ev_extra3, ev_extra4)
    values (x_retry_after, v_queue.queue_id, v_ev_id, x_ev_time, v_sub_id, x_ev_retry, x_ev_type, x_ev_data,
            x_ev_extra1, x_ev_extra2, x_ev_extra3, x_ev_extra4);
    return v_ev_id;
end $$;

-- pgq.maint_retry_events() -> integer
-- Put events whose time to be retried has come back into their queues, the longest due first; call again until it gives 0.
-- Delayed events whose time has come go with them. Queues that do not take events now (queue_disable_insert) keep theirs
-- waiting and hold up no other queue.
-- returns    how many: at most 10, and at most 1000 delayed ones besides
-- locks      pgq.retry_queue SHARE UPDATE EXCLUSIVE: one caller at a time; consumers go on noting retries
-- runs as    caller (pgq_admin)
create or replace function pgq.maint_retry_events() returns integer
language plpgsql as $$
declare
    v_event record;
    v_count integer := 0;
begin
    lock table pgq.retry_queue in share update exclusive mode;
    for v_event in
        select q.queue_name, r.*
          from pgq.retry_queue r join pgq.queue q on q.queue_id = r.ev_queue
         where r.ev_retry_after <= current_timestamp and not q.queue_disable_insert
         order by r.ev_retry_after
         limit 10
    loop
        perform pgq.insert_event_raw(v_event.queue_name, v_event.ev_id, v_event.ev_time, v_event.ev_owner, v_event.ev_retry,
                                     v_event.ev_type, v_event.ev_data, v_event.ev_extra1, v_event.ev_extra2,
                                     v_event.ev_extra3, v_event.ev_extra4);
        delete from pgq.retry_queue r where r.ev_owner = v_event.ev_owner and r.ev_id = v_event.ev_id;
        v_count := v_count + 1;
    end loop;
    return v_count + pgq.maint_delayed_events();
end $$;
