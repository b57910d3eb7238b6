-- pgq_coop.next_batch_custom(i_queue_name, i_consumer_name, i_subconsumer_name, i_min_lag, i_min_count, i_min_interval, i_dead_interval) -> bigint
-- Give a worker its next batch, or the one that it has open. Worker and consumer are registered if they are not yet.
-- i_min_lag       only events that are at least this old; null: any
-- i_min_count     only a batch of about this many events; null: any
-- i_min_interval  only a batch that covers this much time; null: any. With i_min_count too, either suffices
-- i_dead_interval a worker without a sign of life for this long is dead: its batch comes to this one, and it is
--                 unregistered (it is registered again when it calls). A batch that the main consumer has had open for as long,
--                 from before it became cooperative, comes too. Null: nobody is dead
-- returns    the batch's id; null when there is nothing to do yet, or the consumer or this worker is paused. Commit before working on the batch: another worker's call
--            waits for it
-- raises     PQ001  no such queue
-- raises     PQ002  it was unregistered just now
-- raises     PQ008  a name is null
-- raises     PQ011  the consumer's tick is gone
-- raises     PQ042  the main consumer has a batch open: it still works without subconsumers
-- raises     40001  its position was written by hand just now, or is newer than this transaction's snapshot
-- locks      an advisory lock for the consumer, to the end of the transaction: one worker at a time is given a batch
-- runs as    owner
create or replace function pgq_coop.next_batch_custom(
    i_queue_name text, i_consumer_name text, i_subconsumer_name text,
    i_min_lag interval, i_min_count int4, i_min_interval interval, i_dead_interval interval)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_main record;
    v_sub record;
    v_main_pos record;
    v_pos record;
    v_dead record;
    v_tick record;
    v_next record;
    v_batch bigint;
    v_held integer;
    v_name integer;
begin
    -- Both rows are held: whoever ends the worker, or takes it for dead, has done so before, or waits.
    loop
        select * into v_main from pgq_coop._find(i_queue_name, i_consumer_name);
        select * into v_sub from pgq_coop._find(i_queue_name, i_consumer_name || '.' || i_subconsumer_name);
        if v_sub.sub_key is null or v_sub.sub_id is distinct from v_main.sub_id then
            perform pgq_coop.register_subconsumer(i_queue_name, i_consumer_name, i_subconsumer_name);
            continue;
        end if;
        perform pg_advisory_xact_lock('pgq.subscriber'::regclass::oid::bigint::integer, v_main.sub_key);
        perform 1 from pgq.subscriber s where s.sub_key in (v_main.sub_key, v_sub.sub_key) order by s.sub_key for key share;
        get diagnostics v_held = row_count;
        exit when v_held = 2;
    end loop;
    if exists (select from pgq.paused_consumer p where p.sub_key in (v_main.sub_key, v_sub.sub_key)) then
        return null;
    end if;

    -- Under the lock nobody else gives out batches of this consumer; but they are finished, and worked on without subconsumers.
    loop
        v_main_pos := pgq._position(v_main.sub_key);
        v_pos := pgq._position(v_sub.sub_key);
        if v_main_pos.seq is null or v_pos.seq is null then
            raise exception 'Not subscriber to queue: %/%.%', i_queue_name, i_consumer_name, i_subconsumer_name
                using errcode = 'PQ002', hint = 'it was unregistered just now: call again';
        end if;
        if v_pos.batch is not null then
            if pgq._move(v_sub.sub_key, v_pos.slot, v_pos.seq, v_pos.last_tick, v_pos.batch, v_pos.next_tick, now()) then
                return v_pos.batch;
            end if;
            continue;
        end if;
        if v_main_pos.next_tick is not null and not coalesce(v_main_pos.active < now() - i_dead_interval, false) then
            raise exception 'main consumer has batch open?  Consumer % of queue %, batch %', i_consumer_name, i_queue_name, v_main_pos.batch
                using errcode = 'PQ042',
                      hint = 'it works without subconsumers: let it finish; if its worker is dead, give a dead interval';
        end if;

        select s.sub_key, p.* into v_dead
          from pgq.subscriber s cross join lateral pgq._position(s.sub_key) p
         where i_dead_interval is not null and s.sub_id = v_main.sub_id and s.sub_key <> v_sub.sub_key
           and p.active < now() - i_dead_interval
           and (s.sub_key <> v_main.sub_key or p.next_tick is not null)
         order by p.batch is null, p.active limit 1;
        if v_dead.sub_key is not null then
            -- Whoever finishes just now is alive after all: then this move fails.
            continue when not pgq._move(v_dead.sub_key, v_dead.slot, v_dead.seq,
                case when v_dead.sub_key = v_main.sub_key then v_dead.next_tick end, null, null, v_dead.active);
            if v_dead.sub_key <> v_main.sub_key then
                delete from pgq.subscriber s where s.sub_key = v_dead.sub_key returning s.sub_consumer into v_name;
                perform pgq._forget_names(array[v_name]);
            end if;
            continue when v_dead.batch is null;
            v_batch := v_dead.batch;
            v_next := v_dead;
        else
            select * into v_tick from pgq.tick t where t.tick_queue = v_main.queue_id and t.tick_id = v_main_pos.last_tick;
            if not found then
                raise exception 'PgQ corruption: Consumer % on queue % does not see tick %',
                    i_consumer_name, i_queue_name, coalesce(v_main_pos.last_tick::text, '<NULL>')
                    using errcode = 'PQ011', hint = format('start again at a tick that exists: pgq.register_consumer_at(%L, %L, ...)',
                                                           i_queue_name, i_consumer_name);
            end if;
            select v_main_pos.last_tick, n.tick_id as next_tick into v_next
              from pgq._batch_end(v_main.queue_id, v_tick.tick_id, v_tick.tick_time, v_tick.tick_event_seq,
                                  i_min_lag, i_min_count, i_min_interval) n;
            if v_next.next_tick is null then
                -- A sign of life, now and then: polling leaves no row a time.
                if v_pos.active < now() - interval '10 seconds' then
                    perform pgq._move(v_sub.sub_key, v_pos.slot, v_pos.seq, null, null, null, now());
                end if;
                return null;
            end if;
            v_batch := nextval('pgq.batch_id_seq');
            continue when not pgq._move(v_main.sub_key, v_main_pos.slot, v_main_pos.seq, v_next.next_tick, null, null, now());
        end if;
        exit when pgq._move(v_sub.sub_key, v_pos.slot, v_pos.seq, v_next.last_tick, v_batch, v_next.next_tick, now());
        -- Only somebody who writes to pgq.subscription by hand can have moved it: all of this call must go.
        raise exception 'could not serialize access: subconsumer %.% of queue % was moved', i_consumer_name, i_subconsumer_name, i_queue_name
            using errcode = '40001', hint = 'call again';
    end loop;
    return v_batch;
end $$;

-- pgq_coop.next_batch_custom(i_queue_name, i_consumer_name, i_subconsumer_name, i_min_lag, i_min_count, i_min_interval) -> bigint
-- Give a worker its next batch, or the one that it has open; nobody is taken for dead.
-- returns    the batch's id; null when there is nothing to do yet
-- raises     PQ001, PQ008, PQ011, PQ042  as the form with i_dead_interval
-- runs as    caller; see the form with i_dead_interval
create or replace function pgq_coop.next_batch_custom(
    i_queue_name text, i_consumer_name text, i_subconsumer_name text,
    i_min_lag interval, i_min_count int4, i_min_interval interval)
returns bigint
language sql as $$
    select pgq_coop.next_batch_custom(i_queue_name, i_consumer_name, i_subconsumer_name, i_min_lag, i_min_count, i_min_interval, null)
$$;

-- pgq_coop.next_batch(i_queue_name, i_consumer_name, i_subconsumer_name, i_dead_interval) -> bigint
-- Give a worker its next batch, or the one that it has open.
-- i_dead_interval a worker without a sign of life for this long is dead, and its batch comes to this one
-- returns    the batch's id; null when there is nothing to do yet
-- raises     PQ001, PQ008, PQ011, PQ042  as pgq_coop.next_batch_custom()
-- runs as    caller; see pgq_coop.next_batch_custom()
create or replace function pgq_coop.next_batch(
    i_queue_name text, i_consumer_name text, i_subconsumer_name text, i_dead_interval interval)
returns bigint
language sql as $$
    select pgq_coop.next_batch_custom(i_queue_name, i_consumer_name, i_subconsumer_name, null, null, null, i_dead_interval)
$$;

-- pgq_coop.next_batch(i_queue_name, i_consumer_name, i_subconsumer_name) -> bigint
-- Give a worker its next batch, or the one that it has open; nobody is taken for dead.
-- returns    the batch's id; null when there is nothing to do yet
-- raises     PQ001, PQ008, PQ011, PQ042  as pgq_coop.next_batch_custom()
-- runs as    caller; see pgq_coop.next_batch_custom()
create or replace function pgq_coop.next_batch(i_queue_name text, i_consumer_name text, i_subconsumer_name text)
returns bigint
language sql as $$
    select pgq_coop.next_batch_custom(i_queue_name, i_consumer_name, i_subconsumer_name, null, null, null, null)
$$;
