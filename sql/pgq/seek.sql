-- Moving a consumer to another place in its queue. A tick exists as long as the events after it do: rotation drops both.

-- pgq.seek_consumer(i_queue_name, i_consumer_name, i_tick_id) -> bigint
-- Move a consumer to a tick, back or forward: its next batch begins there. A batch that it has open is dropped; events that
-- wait for a retry, and batches of subconsumers, stay as they are.
-- i_tick_id  tick after which its events begin
-- returns    the tick
-- raises     PQ002  not subscribed
-- raises     PQ005  no such tick (any more)
-- locks      the queue's row FOR SHARE, so that no rotation drops the tick; the consumer's row
-- runs as    owner
create or replace function pgq.seek_consumer(i_queue_name text, i_consumer_name text, i_tick_id bigint) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue_id integer;
    v_oldest pgq.tick;
begin
    perform pgq._subscription_key(i_queue_name, i_consumer_name);
    select q.queue_id into v_queue_id from pgq.queue q where q.queue_name = i_queue_name for share;
    perform 1 from pgq.tick t where t.tick_queue = v_queue_id and t.tick_id = i_tick_id;
    if not found then
        select * into v_oldest from pgq.tick t where t.tick_queue = v_queue_id order by t.tick_queue, t.tick_id limit 1;
        raise exception 'queue % has no tick %: the oldest is %, of %', i_queue_name, coalesce(i_tick_id::text, 'NULL'),
            v_oldest.tick_id, v_oldest.tick_time
            using errcode = 'PQ005', hint = format('select pgq.seek_consumer(%L, %L, %s)', i_queue_name, i_consumer_name, v_oldest.tick_id);
    end if;
    perform pgq.register_consumer_at(i_queue_name, i_consumer_name, i_tick_id);
    return i_tick_id;
end $$;

-- pgq.seek_consumer(i_queue_name, i_consumer_name, i_time) -> bigint
-- Move a consumer to the newest tick that is not after a time: it gets all that was committed since then, and at most what
-- the batch around that time holds besides.
-- i_time     after the newest tick: the consumer gets what comes from there on
-- returns    the tick
-- raises     PQ002  not subscribed
-- raises     PQ005  the events of that time are gone
-- locks      as the form with a tick
-- runs as    owner
create or replace function pgq.seek_consumer(i_queue_name text, i_consumer_name text, i_time timestamptz) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue_id integer;
    v_tick bigint;
    v_oldest timestamptz;
begin
    perform pgq._subscription_key(i_queue_name, i_consumer_name);
    select q.queue_id into v_queue_id from pgq.queue q where q.queue_name = i_queue_name for share;
    select t.tick_id into v_tick from pgq.tick t
     where t.tick_queue = v_queue_id and t.tick_time <= i_time
     order by t.tick_queue desc, t.tick_id desc limit 1;
    if not found then
        select t.tick_time into v_oldest from pgq.tick t where t.tick_queue = v_queue_id order by t.tick_queue, t.tick_id limit 1;
        raise exception 'queue % has no tick of % or before: the oldest is of %', i_queue_name, coalesce(i_time::text, 'NULL'), v_oldest
            using errcode = 'PQ005', hint = format('select pgq.seek_consumer(%L, %L, %L::timestamptz)', i_queue_name, i_consumer_name, v_oldest);
    end if;
    return pgq.seek_consumer(i_queue_name, i_consumer_name, v_tick);
end $$;

-- pgq.seek_consumer(i_queue_name, i_consumer_name, i_to) -> bigint
-- Move a consumer to a tick or a time: the form for literals and drivers that send parameters without types.
-- i_to       a tick as digits, or a timestamp
-- returns    the tick
-- raises     PQ002, PQ005  as the other forms
-- raises     22007  neither digits nor a timestamp
-- runs as    caller; see the other forms
create or replace function pgq.seek_consumer(i_queue_name text, i_consumer_name text, i_to text) returns bigint
language sql as $$
    select case when i_to ~ '^[0-9]+$' then pgq.seek_consumer(i_queue_name, i_consumer_name, i_to::bigint)
                else pgq.seek_consumer(i_queue_name, i_consumer_name, i_to::timestamptz) end
$$;
