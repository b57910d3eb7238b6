-- pgq.get_queue_info(i_queue_name) -> setof record
-- Settings and state of queues, by name.
-- i_queue_name that queue alone; null: all
-- returns    the queue's settings; ticker_lag since the newest tick; ev_per_sec over the last 20 ticks, null while unknown;
--            ev_new events since the newest tick; last_tick_id. No rows for an unknown queue
-- runs as    caller
create or replace function pgq.get_queue_info(
    i_queue_name text, out queue_name text, out queue_ntables integer, out queue_cur_table integer,
    out queue_rotation_period interval, out queue_switch_time timestamptz, out queue_external_ticker boolean,
    out queue_ticker_paused boolean, out queue_ticker_max_count integer, out queue_ticker_max_lag interval,
    out queue_ticker_idle_period interval, out ticker_lag interval, out ev_per_sec float8, out ev_new bigint,
    out last_tick_id bigint)
returns setof record
language plpgsql as $$
begin
    return query
    select q.queue_name, q.queue_ntables, q.queue_cur_table, q.queue_rotation_period, q.queue_switch_time,
           q.queue_external_ticker, q.queue_ticker_paused, q.queue_ticker_max_count, q.queue_ticker_max_lag,
           q.queue_ticker_idle_period, current_timestamp - last.tick_time,
           case when last.tick_time > first.tick_time
                then (last.tick_event_seq - first.tick_event_seq) / extract(epoch from last.tick_time - first.tick_time)::float8
           end,
           pgq.seq_getval(q.queue_event_seq) - last.tick_event_seq, last.tick_id
      from pgq.queue q
      left join lateral (select * from pgq.tick t where t.tick_queue = q.queue_id
                          order by t.tick_queue desc, t.tick_id desc limit 1) last on true
      left join lateral (select * from pgq.tick t where t.tick_queue = q.queue_id and t.tick_id >= last.tick_id - 20
                          order by t.tick_queue, t.tick_id limit 1) first on true
     where q.queue_name = i_queue_name or i_queue_name is null
     order by 1;
end $$;

-- pgq.get_queue_info() -> setof record
-- Settings and state of all queues, by name.
-- returns    as the form with a name
-- runs as    caller
create or replace function pgq.get_queue_info(
    out queue_name text, out queue_ntables integer, out queue_cur_table integer,
    out queue_rotation_period interval, out queue_switch_time timestamptz, out queue_external_ticker boolean,
    out queue_ticker_paused boolean, out queue_ticker_max_count integer, out queue_ticker_max_lag interval,
    out queue_ticker_idle_period interval, out ticker_lag interval, out ev_per_sec float8, out ev_new bigint,
    out last_tick_id bigint)
returns setof record
language sql as $$
    select * from pgq.get_queue_info(null)
$$;

-- pgq.get_consumer_info(i_queue_name, i_consumer_name) -> setof record
-- State of subscriptions, by queue and consumer.
-- i_queue_name that queue alone; null: all
-- i_consumer_name that consumer alone; null: all
-- returns    lag since the consumer's tick; last_seen since its last contact; last_tick, current_batch and next_tick;
--            pending_events, an estimate. A subconsumer without a batch has no tick, so no lag. No rows for unknown names
-- runs as    owner
create or replace function pgq.get_consumer_info(
    i_queue_name text, i_consumer_name text, out queue_name text, out consumer_name text, out lag interval,
    out last_seen interval, out last_tick bigint, out current_batch bigint, out next_tick bigint, out pending_events bigint)
returns setof record
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    return query
    select q.queue_name, c.co_name, current_timestamp - t.tick_time, current_timestamp - s.sub_active,
           s.sub_last_tick, s.sub_batch, s.sub_next_tick, top.tick_event_seq - t.tick_event_seq
      from pgq.subscription s
      join pgq.queue q on q.queue_id = s.sub_queue
      join pgq.consumer c on c.co_id = s.sub_consumer
      left join pgq.tick t on t.tick_queue = s.sub_queue and t.tick_id = s.sub_last_tick
      left join lateral (select n.tick_event_seq from pgq.tick n where n.tick_queue = s.sub_queue
                          order by n.tick_queue desc, n.tick_id desc limit 1) top on true
     where (q.queue_name = i_queue_name or i_queue_name is null)
       and (c.co_name = i_consumer_name or i_consumer_name is null)
     order by 1, 2;
end $$;

-- pgq.get_consumer_info(i_queue_name) -> setof record
-- State of the subscriptions of one queue, or of all for null.
-- returns    as the form with both names
-- runs as    caller
create or replace function pgq.get_consumer_info(
    i_queue_name text, out queue_name text, out consumer_name text, out lag interval,
    out last_seen interval, out last_tick bigint, out current_batch bigint, out next_tick bigint, out pending_events bigint)
returns setof record
language sql as $$
    select * from pgq.get_consumer_info(i_queue_name, null)
$$;

-- pgq.get_consumer_info() -> setof record
-- State of all subscriptions.
-- returns    as the form with both names
-- runs as    caller
create or replace function pgq.get_consumer_info(
    out queue_name text, out consumer_name text, out lag interval,
    out last_seen interval, out last_tick bigint, out current_batch bigint, out next_tick bigint, out pending_events bigint)
returns setof record
language sql as $$
    select * from pgq.get_consumer_info(null, null)
$$;
