-- After an outage of the ticker all that was committed meanwhile waits as one batch. Here it is cut: ticks are put in
-- between, with snapshots made up for the purpose.
--
-- Any set of transactions that contains what one tick sees, and is contained in what the next one sees, makes a sound tick
-- between them: no event is lost, none comes twice, no transaction is split. Which sets are chosen decides the order.
-- Transactions are taken in the order of their last event: who has seen what another committed put its own event in later,
-- so it does not come before it.

-- pgq.split_ticks(i_queue_name, i_max_events) -> integer
-- Cut the batches that no consumer has opened yet, and what waits for a tick, into batches of bounded size.
-- i_max_events most events in one batch. A transaction is never cut: one with more events makes a batch of its own
-- returns    how many ticks were added
-- raises     PQ001  no such queue
-- raises     PQ008  i_max_events is null or below 1
-- raises     PQ010  the queue is ticked from elsewhere
-- raises     PQ058  nothing could be cut: what is too big for one consumer has been opened by it, or reached by another one
-- raises     40001  called under REPEATABLE READ or SERIALIZABLE
-- locks      the queue's row, its ticker lock and the positions of its consumers, to the end of the transaction: they
--            open and finish no batch meanwhile. Reads all the events in question once
-- runs as    owner
-- see        docs/operations.md; Lamport, Time, clocks, and the ordering of events in a distributed system (1978)
create or replace function pgq.split_ticks(i_queue_name text, i_max_events integer default 10000) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
    v_sub record;
    v_reached bigint;
    v_lowest bigint;
    v_last pgq.tick;
    v_event_seq bigint;
    v_tick pgq.tick;
    v_cuts pgq.tick[];
    v_new pgq.tick[] := array[]::pgq.tick[];
    v_count integer := 0;
    v_stuck bigint[] := array[]::bigint[];
begin
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        raise exception 'queue %: ticks cannot be split in a transaction with a fixed snapshot', coalesce(i_queue_name, 'NULL')
            using errcode = '40001', hint = 'run it in READ COMMITTED';
    end if;
    if i_max_events is null or i_max_events < 1 then
        raise exception 'queue %: a batch must be allowed at least one event, not %',
            coalesce(i_queue_name, 'NULL'), coalesce(i_max_events::text, 'NULL')
            using errcode = 'PQ008', hint = format('select pgq.split_ticks(%L, 10000)', i_queue_name);
    end if;
    select * into v_queue from pgq.queue q where q.queue_name = i_queue_name for update;
    if not found then
        raise exception 'no such queue: %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    if v_queue.queue_external_ticker then
        raise exception 'This queue has external tick source.  Queue: %', i_queue_name
            using errcode = 'PQ010', hint = 'split its ticks where they are made';
    end if;
    perform pg_advisory_xact_lock('pgq.tick'::regclass::oid::bigint::integer, v_queue.queue_id);

    -- Moving each position to where it is holds its consumer: who opens or finishes a batch just now waits, and looks again.
    for v_sub in select s.sub_key from pgq.subscriber s where s.sub_queue = v_queue.queue_id order by s.sub_key loop
        select greatest(v_reached, p.last_tick, p.next_tick), least(v_lowest, p.last_tick) into v_reached, v_lowest
          from pgq._hold_position(v_sub.sub_key) p;
    end loop;
    if v_reached is null then
        return 0;
    end if;

    select * into v_last from pgq.tick t where t.tick_queue = v_queue.queue_id order by t.tick_queue desc, t.tick_id desc limit 1;
    v_event_seq := coalesce(pg_sequence_last_value(pgq._event_seq(v_queue.queue_id)), 1);
    if v_event_seq > v_last.tick_event_seq and not v_queue.queue_ticker_paused then
        insert into pgq.tick (tick_queue, tick_id, tick_time, tick_snapshot, tick_event_seq)
        values (v_queue.queue_id, nextval(format('pgq.event_%s_tick_seq', v_queue.queue_id)), now(), pgq._tick_snapshot(), v_event_seq);
    end if;

    v_last := null;
    for v_tick in
        select * from pgq.tick t where t.tick_queue = v_queue.queue_id and t.tick_id >= v_lowest
         order by t.tick_queue, t.tick_id
    loop
        if v_last.tick_id is not null then
            v_cuts := pgq._cut_batch(v_last, v_tick, i_max_events);
            if v_tick.tick_id > v_reached then
                v_new := array_append(v_new || v_cuts, v_tick);
                v_count := v_count + cardinality(v_cuts);
            elsif v_cuts <> '{}' then
                v_stuck := v_stuck || v_tick.tick_id;
            end if;
        end if;
        v_last := v_tick;
    end loop;
    if v_count > 0 then
        delete from pgq.tick t where t.tick_queue = v_queue.queue_id and t.tick_id > v_reached;
        insert into pgq.tick (tick_queue, tick_id, tick_time, tick_snapshot, tick_event_seq)
        select v_queue.queue_id, v_reached + n.n, n.tick_time, n.tick_snapshot, n.tick_event_seq
          from unnest(v_new) with ordinality n (tick_queue, tick_id, tick_time, tick_snapshot, tick_event_seq, n);
        perform pgq.seq_setval(format('pgq.event_%s_tick_seq', v_queue.queue_id), v_reached + cardinality(v_new));
    end if;
    if v_count = 0 and v_stuck <> '{}' then
        raise exception 'queue %: no batch could be cut, consumers have reached tick %: %', i_queue_name, v_stuck[1],
            (select string_agg(quote_ident(c.co_name), ', ' order by c.co_name)
               from pgq.subscription s join pgq.consumer c on c.co_id = s.sub_consumer
              where s.sub_queue = v_queue.queue_id and greatest(s.sub_last_tick, s.sub_next_tick) >= v_stuck[1])
            using errcode = 'PQ058',
                  hint = format('a consumer gives up an open batch by going back to its start, last_tick in pgq.get_consumer_info(): '
                                'select pgq.register_consumer_at(%L, ''consumer'', last_tick)', i_queue_name);
    end if;
    return v_count;
end $$;

-- pgq._cut_batch(i_from, i_to, i_max_events) -> pgq.tick[]
-- Ticks to put between two, so that no batch has more than so many events, as far as its transactions allow.
-- returns    their times, snapshots and event sequences, in order; tick_id is null. Empty when there is nothing to cut
-- runs as    caller, within a security definer function
create or replace function pgq._cut_batch(i_from pgq.tick, i_to pgq.tick, i_max_events integer) returns pgq.tick[]
language plpgsql as $$
declare
    -- Its transactions by txid: how many events, the last of them, and when that was.
    v_txids bigint[];
    v_counts bigint[];
    v_last_ids bigint[];
    v_times timestamptz[];
    v_open bigint[] := array(select txid_snapshot_xip(i_to.tick_snapshot));
    v_cuts pgq.tick[] := array[]::pgq.tick[];
    v_cut pgq.tick := i_from;
    v_xmax bigint := txid_snapshot_xmax(i_from.tick_snapshot);
    v_events bigint := 0;
    v_n integer;
    v_highest integer := 0;
    v_done boolean[];
    v_first integer := 1;
    v_excluded bigint[];
begin
    execute format($sql$
        select array_agg(x.ev_txid order by x.ev_txid), array_agg(x.events order by x.ev_txid),
               array_agg(x.last_id order by x.ev_txid), array_agg(x.last_time order by x.ev_txid)
          from (select e.ev_txid, count(*) as events, max(e.ev_id) as last_id, max(e.ev_time) as last_time
                  from pgq.event_%s e
                 where e.ev_txid >= %s and e.ev_txid < %s
                   and txid_visible_in_snapshot(e.ev_txid, %L) and not txid_visible_in_snapshot(e.ev_txid, %L)
                 group by e.ev_txid) x
        $sql$, i_from.tick_queue, txid_snapshot_xmin(i_from.tick_snapshot), txid_snapshot_xmax(i_to.tick_snapshot),
               i_to.tick_snapshot, i_from.tick_snapshot)
       into v_txids, v_counts, v_last_ids, v_times;
    if coalesce((select sum(c) from unnest(v_counts) c), 0) <= i_max_events then
        return v_cuts;
    end if;

    v_cut.tick_id := null;
    v_done := array_fill(false, array[cardinality(v_txids)]);
    for v_n in select l.n from unnest(v_last_ids) with ordinality l (last_id, n) order by l.last_id loop
        if v_events > 0 and v_events + v_counts[v_n] > i_max_events then
            -- What the cut does not see: those still to come, as far as they have lower txids than one that it sees.
            while v_done[v_first] loop
                v_first := v_first + 1;
            end loop;
            v_excluded := array(select x.txid from unnest(v_txids[v_first:v_highest], v_done[v_first:v_highest]) x (txid, done)
                                 where not x.done
                                union select o from unnest(v_open) o where o < v_xmax
                                order by 1);
            v_cut.tick_snapshot := format('%s:%s:%s', coalesce(v_excluded[1], v_xmax), v_xmax, array_to_string(v_excluded, ','))::txid_snapshot;
            v_cuts := array_append(v_cuts, v_cut);
            v_events := 0;
        end if;
        v_done[v_n] := true;
        v_highest := greatest(v_highest, v_n);
        v_xmax := greatest(v_xmax, v_txids[v_n] + 1);
        v_events := v_events + v_counts[v_n];
        v_cut.tick_time := least(greatest(v_cut.tick_time, v_times[v_n]), i_to.tick_time);
        v_cut.tick_event_seq := least(greatest(v_cut.tick_event_seq, v_last_ids[v_n]), i_to.tick_event_seq);
    end loop;
    return v_cuts;
end $$;
