-- pgq_coop._find(i_queue_name, i_consumer_name) -> record
-- A subscription by its names.
-- returns    all null when there is none
-- runs as    caller, within a security definer function
create or replace function pgq_coop._find(
    i_queue_name text, i_consumer_name text, out sub_key integer, out sub_id integer, out queue_id integer)
returns record
language sql as $$
    select s.sub_key, s.sub_id, s.sub_queue
      from pgq.queue q
      join pgq.subscriber s on s.sub_queue = q.queue_id
      join pgq.consumer c on c.co_id = s.sub_consumer
     where q.queue_name = i_queue_name and c.co_name = i_consumer_name
$$;

-- pgq_coop.register_subconsumer(i_queue_name, i_consumer_name, i_subconsumer_name) -> integer
-- Let a worker take part in a consumer's work; the consumer is subscribed too if it is not yet.
-- i_subconsumer_name the worker, any text
-- returns    1 registered, 0 it was already
-- raises     PQ001  no such queue
-- raises     PQ008  a name is null
-- raises     PQ012  the queue has no tick yet
-- raises     PQ042  another consumer has the name consumer.subconsumer
-- locks      the queue's row FOR SHARE, the consumers' rows
-- runs as    owner
create or replace function pgq_coop.register_subconsumer(i_queue_name text, i_consumer_name text, i_subconsumer_name text)
returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_main record;
    v_name text := i_consumer_name || '.' || i_subconsumer_name;
    v_consumer_id integer;
    v_sub integer;
begin
    if v_name is null then
        raise exception 'Invalid NULL value: consumer % and subconsumer % for queue %', coalesce(i_consumer_name, 'NULL'),
            coalesce(i_subconsumer_name, 'NULL'), coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ008', hint = 'select pgq_coop.register_subconsumer(''queue'', ''consumer'', ''worker'')';
    end if;
    perform pgq.register_consumer(i_queue_name, i_consumer_name);
    select * into v_main from pgq_coop._find(i_queue_name, i_consumer_name);
    loop
        select c.co_id into v_consumer_id from pgq.consumer c where c.co_name = v_name for update;
        exit when found;
        insert into pgq.consumer (co_name) values (v_name) on conflict do nothing;
    end loop;
    insert into pgq.subscriber (sub_id, sub_queue, sub_consumer) values (v_main.sub_id, v_main.queue_id, v_consumer_id)
    on conflict do nothing returning sub_key into v_sub;
    if not found then
        perform 1 from pgq.subscriber s
          where s.sub_queue = v_main.queue_id and s.sub_consumer = v_consumer_id and s.sub_id = v_main.sub_id;
        if not found then
            raise exception 'consumer % of queue % is there already, and is no subconsumer of %', v_name, i_queue_name, i_consumer_name
                using errcode = 'PQ042', hint = 'choose another name for the subconsumer';
        end if;
        return 0;
    end if;
    perform pgq._move(v_sub, null, 0, null, null, null, now());
    return 1;
end $$;

-- pgq_coop.unregister_subconsumer(i_queue_name, i_consumer_name, i_subconsumer_name, i_batch_handling) -> integer
-- End a worker's part in a consumer's work; the consumer and its other workers go on.
-- i_batch_handling what to do where it has a batch open: 1 gives the batch up, its events are lost to the consumer (to have
--            them come again: pgq.batch_retry() first); any other value refuses
-- returns    1; 0 there is no such worker
-- raises     PQ042  the worker has a batch open, and i_batch_handling is not 1
-- locks      waits for a transaction that opens or finishes a batch of the worker
-- runs as    owner
create or replace function pgq_coop.unregister_subconsumer(
    i_queue_name text, i_consumer_name text, i_subconsumer_name text, i_batch_handling integer)
returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_main record;
    v_sub record;
    v_pos record;
    v_consumer_id integer;
begin
    select * into v_main from pgq_coop._find(i_queue_name, i_consumer_name);
    select * into v_sub from pgq_coop._find(i_queue_name, i_consumer_name || '.' || i_subconsumer_name);
    if v_sub.sub_key is null or v_sub.sub_id is distinct from v_main.sub_id then
        return 0;
    end if;
    v_pos := pgq._hold_position(v_sub.sub_key);
    if v_pos.next_tick is not null and i_batch_handling is distinct from 1 then
        raise exception 'subconsumer has active batch: %.% of queue %', i_consumer_name, i_subconsumer_name, i_queue_name
            using errcode = 'PQ042',
                  hint = format('let it finish, or give the batch''s events up: select pgq_coop.unregister_subconsumer(%L, %L, %L, 1)',
                                i_queue_name, i_consumer_name, i_subconsumer_name);
    end if;
    delete from pgq.subscriber s where s.sub_key = v_sub.sub_key returning s.sub_consumer into v_consumer_id;
    if not found then
        return 0;
    end if;
    perform pgq._forget_names(array[v_consumer_id]);
    return 1;
end $$;
