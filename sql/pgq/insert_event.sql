-- pgq.insert_event(queue_name, ev_type, ev_data) -> bigint
-- Put an event into a queue, as part of the caller's transaction: it exists when that commits.
-- queue_name the queue
-- ev_type    what kind of event; any text
-- ev_data    payload; any text
-- returns    the event's id
-- raises     PQ001  no such queue
-- raises     PQ006  the queue does not take events (queue_disable_insert)
-- raises     PQ007  more events in one transaction than queue_per_tx_limit
-- raises     PQ008  the queue name is null
-- locks      the queue's current table ROW EXCLUSIVE, like any INSERT
-- runs as    owner: a producer needs EXECUTE, no table right
-- see        generated for the queues there are, by pgq._make_insert_event()

-- pgq.insert_event(queue_name, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4) -> bigint
-- Put an event with extra fields into a queue, as part of the caller's transaction.
-- queue_name the queue
-- ev_type    what kind of event; any text
-- ev_data    payload; any text
-- ev_extra1  further fields, for the application; so are ev_extra2, ev_extra3 and ev_extra4
-- returns    the event's id
-- raises     PQ001, PQ006, PQ007, PQ008  as the short form
-- runs as    owner

-- pgq.insert_event_raw(queue_name, ev_id, ev_time, ev_owner, ev_retry, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4) -> bigint
-- Put an event with given id, time, owner and retry count into a queue: for replication and for events that come back.
-- The queue's event sequence advances in any case, so that the ticker takes notice.
-- queue_name the queue
-- ev_id      null: the next of the sequence
-- ev_time    null: now()
-- ev_owner   sub_id of the only subscription that shall see it; null: all. Not counted against queue_per_tx_limit if set
-- ev_retry   how often it was retried; null: never
-- returns    the event's id
-- raises     PQ001, PQ006, PQ007, PQ008  as pgq.insert_event()
-- runs as    owner
create or replace function pgq.insert_event_raw(
    queue_name text, ev_id bigint, ev_time timestamptz, ev_owner integer, ev_retry integer, ev_type text, ev_data text,
    ev_extra1 text, ev_extra2 text, ev_extra3 text, ev_extra4 text)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue_id integer;
    v_id bigint;
begin
    if queue_name is null then
        raise exception 'Queue name must not be NULL'
            using errcode = 'PQ008', hint = 'name a queue: select queue_name from pgq.queue';
    end if;
    select q.queue_id into v_queue_id from pgq.queue q where q.queue_name = insert_event_raw.queue_name;
    if not found then
        raise exception 'No such queue: %', queue_name
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    execute format('select pgq.event_%s_insert($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)', v_queue_id) into v_id
      using ev_id, ev_time, ev_owner, ev_retry, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4;
    return v_id;
end $$;

-- pgq.current_event_table(x_queue_name) -> text
-- The table that takes a queue's events now, for INSERT and COPY straight into it. ev_id and ev_txid have defaults,
-- ev_time must be given. The name holds to the end of the transaction: the table cannot be rotated away before.
-- returns    e.g. 'pgq.event_1_0', needs no quoting
-- raises     PQ001  no such queue
-- raises     PQ006  the queue does not take events (unless session_replication_role is replica)
-- locks      the table ROW EXCLUSIVE
-- runs as    owner; to write the table the caller needs INSERT on it (pgq_admin)
create or replace function pgq.current_event_table(x_queue_name text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
    v_slot integer;
    v_again integer;
begin
    select * into v_queue from pgq.queue q where q.queue_name = x_queue_name;
    if not found then
        raise exception 'Event queue not found: %', coalesce(x_queue_name, 'NULL')
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    if v_queue.queue_disable_insert and current_setting('session_replication_role') <> 'replica' then
        raise exception 'Writing to queue disabled: %', x_queue_name
            using errcode = 'PQ006', hint = format('to allow it: update pgq.queue set queue_disable_insert = false where queue_name = %L', x_queue_name);
    end if;
    -- Asked of the catalog, which is newer than the snapshot of an old REPEATABLE READ transaction.
    execute format('select pgq.event_%s_slot()', v_queue.queue_id) into v_slot;
    loop
        execute format('lock table %s in row exclusive mode', pgq._event_table(v_queue.queue_id, v_slot));
        execute format('select pgq.event_%s_slot()', v_queue.queue_id) into v_again;
        exit when v_again = v_slot;
        v_slot := v_again;
    end loop;
    return pgq._event_table(v_queue.queue_id, v_slot);
end $$;
