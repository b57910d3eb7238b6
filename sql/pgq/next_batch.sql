-- pgq.find_tick_helper(i_queue_id, i_prev_tick_id, i_prev_tick_time, i_prev_tick_seq, i_min_count, i_min_interval) -> record
-- The tick that ends a batch of at least so many events, or so long a time.
-- i_prev_tick_id the tick where the batch begins, with its time and event sequence
-- i_min_count    events wanted; null: any
-- i_min_interval time wanted; null: any. Given both, either suffices
-- returns    the tick; all null when there is none yet. A tick further on than twice what is wanted gives way to the first
--            that suffices
-- runs as    caller
create or replace function pgq.find_tick_helper(
    i_queue_id int4, i_prev_tick_id int8, i_prev_tick_time timestamptz, i_prev_tick_seq int8, i_min_count int8,
    i_min_interval interval, out next_tick_id int8, out next_tick_time timestamptz, out next_tick_seq int8)
returns record
language plpgsql stable as $$
declare
    v_tick pgq.tick;
    v_first pgq.tick;
begin
    select * into v_tick from pgq.tick t
     where t.tick_queue = i_queue_id and t.tick_id > i_prev_tick_id
     order by t.tick_queue desc, t.tick_id desc limit 1;
    if not found then
        return;
    end if;
    if v_tick.tick_event_seq - i_prev_tick_seq > 2 * i_min_count or v_tick.tick_time - i_prev_tick_time > 2 * i_min_interval then
        select * into v_first from pgq.tick t
         where t.tick_queue = i_queue_id and t.tick_id > i_prev_tick_id
           and (t.tick_event_seq - i_prev_tick_seq >= i_min_count or t.tick_time - i_prev_tick_time >= i_min_interval)
         order by t.tick_queue, t.tick_id limit 1;
        v_tick := v_first;
    elsif not coalesce(v_tick.tick_event_seq - i_prev_tick_seq >= i_min_count, false)
      and not coalesce(v_tick.tick_time - i_prev_tick_time >= i_min_interval, false) then
        return;
    end if;
    next_tick_id := v_tick.tick_id;
    next_tick_time := v_tick.tick_time;
    next_tick_seq := v_tick.tick_event_seq;
end $$;

-- pgq._batch_end(i_queue_id, i_prev_tick_id, i_prev_tick_time, i_prev_tick_seq, i_min_lag, i_min_count, i_min_interval) -> record
-- The tick that ends the next batch.
-- i_prev_tick_id the tick where it begins, with its time and event sequence; the others as in pgq.next_batch_custom()
-- returns    all null when there is nothing to do yet
-- runs as    caller
create or replace function pgq._batch_end(
    i_queue_id integer, i_prev_tick_id bigint, i_prev_tick_time timestamptz, i_prev_tick_seq bigint,
    i_min_lag interval, i_min_count integer, i_min_interval interval,
    out tick_id bigint, out tick_time timestamptz, out tick_event_seq bigint)
returns record
language plpgsql stable as $$
begin
    if i_min_count is null and i_min_interval is null then
        select t.tick_id, t.tick_time, t.tick_event_seq into tick_id, tick_time, tick_event_seq
          from pgq.tick t where t.tick_queue = i_queue_id and t.tick_id > i_prev_tick_id
         order by t.tick_queue, t.tick_id limit 1;
    else
        select h.next_tick_id, h.next_tick_time, h.next_tick_seq into tick_id, tick_time, tick_event_seq
          from pgq.find_tick_helper(i_queue_id, i_prev_tick_id, i_prev_tick_time, i_prev_tick_seq, i_min_count, i_min_interval) h;
    end if;
    if now() - tick_time < i_min_lag then
        tick_id := null;
        tick_time := null;
        tick_event_seq := null;
    end if;
end $$;

-- pgq.next_batch_custom(i_queue_name, i_consumer_name, i_min_lag, i_min_count, i_min_interval) -> record
-- Open the consumer's next batch, or give the one that it has open.
-- i_min_lag      only events that are at least this old; null: any
-- i_min_count    only a batch of about this many events; null: any
-- i_min_interval only a batch that covers this much time; null: any. With i_min_count too, either suffices
-- returns    the batch and its ticks; all null when there is nothing to do yet, or the consumer is paused
-- raises     PQ002  not subscribed
-- raises     PQ011  the subscription's tick is gone
-- locks      none; when another transaction opens or closes a batch of this consumer, waits for it to end
-- runs as    owner
create or replace function pgq.next_batch_custom(
    i_queue_name text, i_consumer_name text, i_min_lag interval, i_min_count int4, i_min_interval interval,
    out batch_id int8, out cur_tick_id int8, out prev_tick_id int8, out cur_tick_time timestamptz,
    out prev_tick_time timestamptz, out cur_tick_event_seq int8, out prev_tick_event_seq int8)
returns record
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue_id integer;
    v_sub integer;
    v_paused boolean;
    v_pos record;
begin
    loop
        select s.sub_queue, s.sub_key, exists (select from pgq.paused_consumer p where p.sub_key = s.sub_key)
          into v_queue_id, v_sub, v_paused
          from pgq.queue q
          join pgq.subscriber s on s.sub_queue = q.queue_id
          join pgq.consumer c on c.co_id = s.sub_consumer
         where q.queue_name = i_queue_name and c.co_name = i_consumer_name;
        if not found then
            raise exception 'Not subscriber to queue: %/%', coalesce(i_queue_name, 'NULL'), coalesce(i_consumer_name, 'NULL')
                using errcode = 'PQ002', hint = format('select pgq.register_consumer(%L, %L)', i_queue_name, i_consumer_name);
        end if;

        if v_paused then
            return;
        end if;

        v_pos := pgq._position(v_sub);
        select t.tick_id, t.tick_time, t.tick_event_seq into prev_tick_id, prev_tick_time, prev_tick_event_seq
          from pgq.tick t where t.tick_queue = v_queue_id and t.tick_id = v_pos.last_tick;
        if not found then
            raise exception 'PgQ corruption: Consumer % on queue % does not see tick %',
                i_consumer_name, i_queue_name, coalesce(v_pos.last_tick::text, '<NULL>')
                using errcode = 'PQ011',
                      hint = format('start again at a tick that exists: select pgq.register_consumer_at(%L, %L, (select max(tick_id) from pgq.tick where tick_queue = %s))',
                                    i_queue_name, i_consumer_name, v_queue_id);
        end if;

        if v_pos.batch is not null then
            batch_id := v_pos.batch;
            select t.tick_id, t.tick_time, t.tick_event_seq into cur_tick_id, cur_tick_time, cur_tick_event_seq
              from pgq.tick t where t.tick_queue = v_queue_id and t.tick_id = v_pos.next_tick;
            return;
        end if;

        select n.tick_id, n.tick_time, n.tick_event_seq into cur_tick_id, cur_tick_time, cur_tick_event_seq
          from pgq._batch_end(v_queue_id, prev_tick_id, prev_tick_time, prev_tick_event_seq, i_min_lag, i_min_count, i_min_interval) n;
        if cur_tick_id is null then
            prev_tick_id := null;
            prev_tick_time := null;
            prev_tick_event_seq := null;
            return;
        end if;

        batch_id := nextval('pgq.batch_id_seq');
        if pgq._move(v_sub, v_pos.slot, v_pos.seq, prev_tick_id, batch_id, cur_tick_id, now()) then
            return;
        end if;
        -- Another transaction has moved this consumer, or ended it: look at what it left.
        batch_id := null;
    end loop;
end $$;

-- pgq.next_batch_info(i_queue_name, i_consumer_name) -> record
-- Open the consumer's next batch, or give the one that it has open.
-- returns    the batch and its ticks; all null when there is nothing to do yet, or the consumer is paused
-- raises     PQ002, PQ011  as pgq.next_batch_custom()
-- runs as    caller; see pgq.next_batch_custom()
create or replace function pgq.next_batch_info(
    i_queue_name text, i_consumer_name text, out batch_id int8, out cur_tick_id int8, out prev_tick_id int8,
    out cur_tick_time timestamptz, out prev_tick_time timestamptz, out cur_tick_event_seq int8, out prev_tick_event_seq int8)
returns record
language sql as $$
    select * from pgq.next_batch_custom(i_queue_name, i_consumer_name, null, null, null)
$$;

-- pgq.next_batch(i_queue_name, i_consumer_name) -> bigint
-- Open the consumer's next batch, or give the one that it has open.
-- returns    the batch's id; null when there is nothing to do yet
-- raises     PQ002, PQ011  as pgq.next_batch_custom()
-- runs as    caller; see pgq.next_batch_custom()
create or replace function pgq.next_batch(i_queue_name text, i_consumer_name text) returns bigint
language sql as $$
    select b.batch_id from pgq.next_batch_custom(i_queue_name, i_consumer_name, null, null, null) b
$$;
