-- A tick stores a snapshot; a batch is what became visible between two. So the order of tick ids must be the order of the
-- snapshots, whoever ticks: an advisory lock for each queue holds tickers apart, and the snapshot is taken under it.

-- pgq._ticks_due(i_queue_id) -> setof integer
-- The queues for which a tick is due now: many new events, or the last tick is old; without events ever more seldom.
-- i_queue_id that queue alone; null: all that are ticked from here, by name
-- returns    queue ids
-- runs as    caller, within a security definer function
create or replace function pgq._ticks_due(i_queue_id integer) returns setof integer
language sql stable as $$
    select q.queue_id
      from pgq.queue q
     cross join lateral (select coalesce(l.value, 1) as event_seq, l.value is not null as drawn
                           from pg_sequence_last_value(pgq._event_seq(q.queue_id)) l (value)) s
      left join lateral (select t.tick_id, t.tick_time, t.tick_event_seq from pgq.tick t
                          where t.tick_queue = q.queue_id order by t.tick_queue desc, t.tick_id desc limit 1) last on true
      left join lateral (select t.tick_time from pgq.tick t
                          where t.tick_queue = q.queue_id and t.tick_id < last.tick_id
                          order by t.tick_queue desc, t.tick_id desc limit 1) prev on true
     where (q.queue_id = i_queue_id or i_queue_id is null and not q.queue_external_ticker and not q.queue_ticker_paused)
       and case
           when last.tick_id is null then true
           when s.event_seq > last.tick_event_seq then
               s.event_seq - last.tick_event_seq >= q.queue_ticker_max_count
               or now() - last.tick_time >= q.queue_ticker_max_lag
           when prev.tick_time is null then true
           else
               now() - last.tick_time >= q.queue_ticker_max_lag / 2
               and (now() - last.tick_time >= 2 * (last.tick_time - prev.tick_time)
                    or now() - last.tick_time >= q.queue_ticker_idle_period)
               -- The sequence reads 1 before the first event of a queue and after it.
               or s.drawn and last.tick_event_seq = 1 and s.event_seq = 1
                  and now() - last.tick_time >= q.queue_ticker_max_lag and pgq._has_new_events(q.queue_id)
           end
     order by q.queue_name
$$;

-- pgq._tick_snapshot() -> txid_snapshot
-- The snapshot for a tick. This transaction counts as still open in it, whatever its txid: it may go on and write events
-- after the tick, and none of its events may come before others of the same transaction.
-- runs as    caller
create or replace function pgq._tick_snapshot() returns txid_snapshot
language sql as $$
    select case when pg_catalog.txid_visible_in_snapshot(s.own, s.now)
                then pg_catalog.format('%s:%s:%s', least(s.own, pg_catalog.txid_snapshot_xmin(s.now)), pg_catalog.txid_snapshot_xmax(s.now),
                         (select pg_catalog.string_agg(x.txid::text, ',' order by x.txid)
                            from (select pg_catalog.txid_snapshot_xip(s.now) union all select s.own) as x (txid)))::txid_snapshot
                else s.now end
      from (select pg_catalog.txid_current() as own, pg_catalog.txid_current_snapshot() as now) s
$$;

-- pgq._tick(i_queue_id, i_now) -> bigint
-- Make a tick if it is still due; the caller holds the queue's ticker lock. Wakes the consumers where they ask for that.
-- i_now      due or not
-- returns    the tick's id; null when it is not due any more, or the queue is just being dropped or rotated
-- raises     PQ011  transaction ids have gone back: the database was restored into a younger cluster
-- raises     40001  under REPEATABLE READ and SERIALIZABLE, when there is a tick newer than the snapshot
-- runs as    caller, within a security definer function
create or replace function pgq._tick(i_queue_id integer, i_now boolean) returns bigint
language plpgsql as $$
declare
    v_queue pgq.queue;
    v_last pgq.tick;
    v_event_seq bigint;
    v_tick_id bigint;
    v_fixed boolean := current_setting('transaction_isolation') in ('repeatable read', 'serializable');
begin
    if not i_now then
        perform 1 from pgq._ticks_due(i_queue_id);
        if not found then
            return null;
        end if;
    end if;
    -- Whoever drops or rotates the queue just now must not hold up the ticks of all others: it gets its tick the next time.
    select * into v_queue from pgq.queue q where q.queue_id = i_queue_id for key share skip locked;
    if not found then
        return null;
    end if;
    select * into v_last from pgq.tick t where t.tick_queue = i_queue_id
     order by t.tick_queue desc, t.tick_id desc limit 1;
    if txid_current() < txid_snapshot_xmin(v_last.tick_snapshot) then
        raise exception 'Invalid PgQ state: old xmin=%, old xmax=%, cur txid=% (queue %)',
            txid_snapshot_xmin(v_last.tick_snapshot), txid_snapshot_xmax(v_last.tick_snapshot), txid_current(), v_queue.queue_name
            using errcode = 'PQ011', hint = 'was the database restored into a younger cluster? drop the queue and create it again';
    elsif txid_current() < txid_snapshot_xmax(v_last.tick_snapshot) then
        raise warning 'Dubious PgQ state: old xmax=%, cur txid=% (queue %)',
            txid_snapshot_xmax(v_last.tick_snapshot), txid_current(), v_queue.queue_name;
    end if;

    -- Read before the snapshot is taken: every event up to it belongs to this tick, or its transaction is still open.
    v_event_seq := coalesce(pg_sequence_last_value(pgq._event_seq(i_queue_id)), 1);
    if v_event_seq < v_last.tick_event_seq then
        raise warning 'Negative new_events?  old=% cur=% (queue %)', v_last.tick_event_seq, v_event_seq, v_queue.queue_name;
    end if;
    -- A fixed snapshot may be older than a tick that it does not see: then the id is taken already, and the insert fails.
    v_tick_id := case when v_fixed then coalesce(v_last.tick_id, 0) + 1 else nextval(format('pgq.event_%s_tick_seq', i_queue_id)) end;
    insert into pgq.tick (tick_queue, tick_id, tick_time, tick_snapshot, tick_event_seq)
    values (i_queue_id, v_tick_id, now(), pgq._tick_snapshot(), v_event_seq)
    on conflict do nothing;
    if not found then
        raise exception 'could not serialize access: queue % has tick % already', v_queue.queue_name, v_tick_id
            using errcode = '40001', hint = 'run the ticker in READ COMMITTED';
    end if;
    if v_fixed then
        perform pgq.seq_setval(format('pgq.event_%s_tick_seq', i_queue_id), v_tick_id);
    end if;
    if pgq._wakes(i_queue_id) then
        perform pg_notify('pgq_tick', i_queue_id::text);
    end if;
    return v_tick_id;
end $$;

-- pgq.ticker() -> bigint
-- Make a tick for every queue that is due; queues with an external ticker, or paused, are left out.
-- returns    how many queues got one
-- raises     PQ011, 40001  as pgq.ticker(text)
-- locks      an advisory lock for each queue ticked, to the end of the transaction; a queue that another ticker is just
--            ticking is left to it
-- runs as    owner
create or replace function pgq.ticker() returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue_id integer;
    v_count bigint := 0;
begin
    for v_queue_id in select * from pgq._ticks_due(null) loop
        if pg_try_advisory_xact_lock('pgq.tick'::regclass::oid::bigint::integer, v_queue_id) then
            if pgq._tick(v_queue_id, false) is not null then
                v_count := v_count + 1;
            end if;
        end if;
    end loop;
    return v_count;
end $$;

-- pgq.ticker(i_queue_name) -> bigint
-- Make a tick for one queue, if it is due.
-- returns    the tick's id; null when none was due
-- raises     PQ001  no such queue
-- raises     PQ010  the queue is ticked from elsewhere, or paused
-- raises     PQ011  transaction ids have gone back: the database was restored into a younger cluster
-- raises     40001  under REPEATABLE READ and SERIALIZABLE, when there is a tick newer than the snapshot
-- locks      an advisory lock for the queue, to the end of the transaction: waits for another ticker
-- runs as    owner
create or replace function pgq.ticker(i_queue_name text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
begin
    select * into v_queue from pgq.queue q where q.queue_name = i_queue_name;
    if not found then
        raise exception 'no such queue: %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    if v_queue.queue_external_ticker then
        raise exception 'This queue has external tick source.  Queue: %', i_queue_name
            using errcode = 'PQ010', hint = format('to tick it here: select pgq.set_queue_config(%L, ''external_ticker'', ''false'')', i_queue_name);
    end if;
    if v_queue.queue_ticker_paused then
        raise exception 'Ticker has been paused for this queue: %', i_queue_name
            using errcode = 'PQ010', hint = format('to go on: select pgq.set_queue_config(%L, ''ticker_paused'', ''false'')', i_queue_name);
    end if;
    perform 1 from pgq._ticks_due(v_queue.queue_id);
    if not found then
        return null;
    end if;
    perform pg_advisory_xact_lock('pgq.tick'::regclass::oid::bigint::integer, v_queue.queue_id);
    return pgq._tick(v_queue.queue_id, false);
end $$;

-- pgq.ticker(i_queue_name, i_tick_id, i_orig_timestamp, i_event_seq) -> bigint
-- Make a tick that was made elsewhere, on a queue that has an external ticker.
-- i_tick_id  its id there
-- i_orig_timestamp its time there
-- i_event_seq the event sequence there; the queue's sequences follow it, never back
-- returns    i_tick_id
-- raises     PQ010  no such queue, it has no external ticker, or it is paused
-- raises     23505  there is a tick of that id
-- locks      as pgq.ticker(text)
-- runs as    owner
create or replace function pgq.ticker(i_queue_name text, i_tick_id bigint, i_orig_timestamp timestamptz, i_event_seq bigint)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
begin
    select * into v_queue from pgq.queue q
     where q.queue_name = i_queue_name and q.queue_external_ticker and not q.queue_ticker_paused;
    if not found then
        raise exception 'queue not found or ticker disabled: %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ010', hint = format('select pgq.set_queue_config(%L, ''external_ticker'', ''true'')', i_queue_name);
    end if;
    perform pg_advisory_xact_lock('pgq.tick'::regclass::oid::bigint::integer, v_queue.queue_id);
    insert into pgq.tick (tick_queue, tick_id, tick_time, tick_snapshot, tick_event_seq)
    values (v_queue.queue_id, i_tick_id, i_orig_timestamp, pgq._tick_snapshot(), i_event_seq);
    perform pgq.seq_setval(format('pgq.event_%s_tick_seq', v_queue.queue_id), i_tick_id);
    perform pgq.seq_setval(format('pgq.event_%s_id_seq', v_queue.queue_id), i_event_seq);
    return i_tick_id;
end $$;

-- pgq.force_tick(i_queue_name) -> bigint
-- Make the next call of the ticker tick this queue, by a jump of its event sequence; call until the result changes.
-- returns    the newest tick's id; null when there is no such queue or no tick. Nothing jumps where the ticker is external
--            or paused
-- runs as    owner
create or replace function pgq.force_tick(i_queue_name text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
begin
    select * into v_queue from pgq.queue q where q.queue_name = i_queue_name;
    if not found then
        return null;
    end if;
    if not v_queue.queue_external_ticker and not v_queue.queue_ticker_paused then
        perform setval(pgq._event_seq(v_queue.queue_id),
                       nextval(pgq._event_seq(v_queue.queue_id)) + v_queue.queue_ticker_max_count * 2::bigint + 1000);
    end if;
    return (select max(t.tick_id) from pgq.tick t where t.tick_queue = v_queue.queue_id);
end $$;
