-- pgq.register_consumer(x_queue_name, x_consumer_id) -> integer
-- Subscribe a consumer to a queue: it will get every event that is committed after the queue's newest tick.
-- returns    1 subscribed, 0 it was already
-- raises     PQ001  no such queue
-- raises     PQ008  the consumer's name is null
-- raises     PQ012  the queue has no tick yet
-- runs as    owner
create or replace function pgq.register_consumer(x_queue_name text, x_consumer_id text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    return pgq.register_consumer_at(x_queue_name, x_consumer_id, null);
end $$;

-- pgq.register_consumer_at(x_queue_name, x_consumer_name, x_tick_pos) -> integer
-- Subscribe a consumer to a queue at a tick, or move a subscribed one there; a batch that it has open is then dropped.
-- x_tick_pos tick after which its events begin; null: the newest, and no change to a consumer that is subscribed
-- returns    1 subscribed, 0 it was already
-- raises     PQ001  no such queue
-- raises     PQ005  no such tick (any more)
-- raises     PQ008  the consumer's name is null
-- raises     PQ012  the queue has no tick yet
-- locks      the queue's row FOR SHARE, so that no rotation drops the tick; the consumer's row
-- runs as    owner
create or replace function pgq.register_consumer_at(x_queue_name text, x_consumer_name text, x_tick_pos bigint)
returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue_id integer;
    v_consumer_id integer;
    v_sub integer;
    v_tick bigint;
begin
    if x_consumer_name is null then
        raise exception 'Invalid NULL value: consumer name for queue %', coalesce(x_queue_name, 'NULL')
            using errcode = 'PQ008', hint = 'select pgq.register_consumer(''queue'', ''consumer'')';
    end if;
    select q.queue_id into v_queue_id from pgq.queue q where q.queue_name = x_queue_name for share;
    if not found then
        raise exception 'Event queue not created yet: %', coalesce(x_queue_name, 'NULL')
            using errcode = 'PQ001', hint = format('select pgq.create_queue(%L)', x_queue_name);
    end if;

    -- Whoever ends the consumer's last subscription just now deletes its row: then there is nothing to lock, and it is made anew.
    loop
        select c.co_id into v_consumer_id from pgq.consumer c where c.co_name = x_consumer_name for update;
        exit when found;
        insert into pgq.consumer (co_name) values (x_consumer_name) on conflict do nothing;
    end loop;

    select s.sub_key into v_sub from pgq.subscriber s
     where s.sub_queue = v_queue_id and s.sub_consumer = v_consumer_id;
    if v_sub is not null and x_tick_pos is null then
        return 0;
    end if;

    if x_tick_pos is not null then
        select t.tick_id into v_tick from pgq.tick t where t.tick_queue = v_queue_id and t.tick_id = x_tick_pos;
        if not found then
            raise exception 'cannot reposition, tick not found: % of queue %', x_tick_pos, x_queue_name
                using errcode = 'PQ005', hint = 'ticks there are: select min(tick_id), max(tick_id) from pgq.tick where tick_queue = '
                    || v_queue_id;
        end if;
    else
        select max(t.tick_id) into v_tick from pgq.tick t where t.tick_queue = v_queue_id;
        if v_tick is null then
            raise exception 'No ticks for this queue.  Please run ticker on database.  Queue: %', x_queue_name
                using errcode = 'PQ012', hint = format('select pgq.ticker(%L)', x_queue_name);
        end if;
    end if;

    if v_sub is not null then
        perform pgq._set_position(v_sub, v_tick, null, null, now());
        return 0;
    end if;
    insert into pgq.subscriber (sub_queue, sub_consumer) values (v_queue_id, v_consumer_id)
    on conflict do nothing returning sub_key into v_sub;
    perform pgq._move(v_sub, null, 0, v_tick, null, null, now());
    return 1;
end $$;

-- pgq._forget_names(i_consumers integer[]) -> void
-- Delete those of the consumer names that nobody uses any more: workers may come with a new name each time.
-- locks      their rows; one that somebody is just registering is left alone
-- runs as    caller, within a security definer function
create or replace function pgq._forget_names(i_consumers integer[]) returns void
language plpgsql as $$
declare
    v_free integer[];
begin
    -- Who registers a name holds its row: after this nobody can, and the next statement sees all who have.
    v_free := array(select c.co_id from pgq.consumer c where c.co_id = any (i_consumers) for update skip locked);
    delete from pgq.consumer c
     where c.co_id = any (v_free) and not exists (select from pgq.subscriber s where s.sub_consumer = c.co_id);
end $$;

-- pgq.unregister_consumer(x_queue_name, x_consumer_name) -> integer
-- End a subscription, its subconsumers' too. Its open batches and its events that wait for a retry are given up.
-- The name of a subconsumer ends that subconsumer alone.
-- returns    how many subscriptions ended; 0 there was none
-- locks      the subscription's and the consumer's row
-- runs as    owner
create or replace function pgq.unregister_consumer(x_queue_name text, x_consumer_name text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_sub pgq.subscriber;
    v_pos record;
    v_members integer;
    v_count integer;
begin
    select s.* into v_sub
      from pgq.subscriber s
      join pgq.queue q on q.queue_id = s.sub_queue
      join pgq.consumer c on c.co_id = s.sub_consumer
     where q.queue_name = x_queue_name and c.co_name = x_consumer_name
       for update of s, c;
    if not found then
        return 0;
    end if;

    v_pos := pgq._position(v_sub.sub_key);
    select count(*) into v_members from pgq.subscriber s where s.sub_queue = v_sub.sub_queue and s.sub_id = v_sub.sub_id;
    -- A subconsumer's row has both ticks (a batch is open) or none.
    if v_members > 1 and (v_pos.last_tick is null) = (v_pos.next_tick is null) then
        delete from pgq.subscriber s where s.sub_key = v_sub.sub_key;
        perform pgq._forget_names(array[v_sub.sub_consumer]);
        return 1;
    end if;

    delete from pgq.retry_queue r where r.ev_owner = v_sub.sub_id;
    delete from pgq.subscriber s where s.sub_id = v_sub.sub_id;
    get diagnostics v_count = row_count;
    perform pgq._forget_names(array(select c.co_id from pgq.consumer c
                                     where c.co_id = v_sub.sub_consumer or starts_with(c.co_name, x_consumer_name || '.')));
    return v_count;
end $$;
