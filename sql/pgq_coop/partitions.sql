-- Order within a key, and different keys in parallel: a partitioned consumer. Each of its partitions is a subscription named
-- <consumer>#<number>, which has every event whose key hashes to that number. A worker gets the next batch of some partition
-- that nobody is working on. So the batches of one partition are worked on one after the other, by whoever comes, and with
-- them the events of each key. There are no leases, and nothing to rebalance when workers come and go.

create table pgq_coop.partitioned (
    par_queue     integer not null,
    par_consumer  text not null,
    par_count     integer not null,
    par_key       text not null,
    constraint partitioned_pkey primary key (par_queue, par_consumer),
    constraint par_queue_fkey foreign key (par_queue) references pgq.queue (queue_id) on delete cascade
);
comment on table pgq_coop.partitioned is 'Consumers that keep the order of events within a key';

-- pgq_coop.register_partitions(i_queue_name, i_consumer_name, i_count, i_key, i_tick_pos) -> integer
-- Subscribe a consumer that keeps the order of events within a key.
-- i_count    partitions: at most so many workers are busy at one time. It cannot change later
-- i_key      what the key of an event is: ev_type, ev_data, ev_extra1 .. ev_extra4, or ev_data.<name> for a field of JSON data.
--            An event whose key is null has no order to keep
-- i_tick_pos tick after which its events begin; null: the newest
-- returns    how many partitions were subscribed; 0: all were already
-- raises     PQ001  no such queue
-- raises     PQ005  no such tick
-- raises     PQ008  the count is below 1, or there is no such key
-- raises     PQ042  it is subscribed already with another count or key
-- locks      as pgq.register_consumer_at()
-- runs as    owner
create or replace function pgq_coop.register_partitions(
    i_queue_name text, i_consumer_name text, i_count integer, i_key text default 'ev_extra1', i_tick_pos bigint default null)
returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue_id integer;
    v_tick bigint := i_tick_pos;
    v_known pgq_coop.partitioned;
    v_count integer := 0;
begin
    if i_consumer_name is null or coalesce(i_count, 0) < 1 or not coalesce(i_key ~ '^ev_(type|data|extra[1-4]|data\..+)$', false) then
        raise exception 'consumer % of queue %: cannot be partitioned into % by %', coalesce(i_consumer_name, 'NULL'),
            coalesce(i_queue_name, 'NULL'), coalesce(i_count::text, 'NULL'), coalesce(i_key, 'NULL')
            using errcode = 'PQ008', hint = 'select pgq_coop.register_partitions(''queue'', ''consumer'', 8, ''ev_data.order_id'')';
    end if;
    select q.queue_id into v_queue_id from pgq.queue q where q.queue_name = i_queue_name for share;
    if not found then
        raise exception 'Event queue not created yet: %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ001', hint = format('select pgq.create_queue(%L)', i_queue_name);
    end if;
    insert into pgq_coop.partitioned values (v_queue_id, i_consumer_name, i_count, i_key) on conflict do nothing;
    select * into v_known from pgq_coop.partitioned p where p.par_queue = v_queue_id and p.par_consumer = i_consumer_name;
    if (v_known.par_count, v_known.par_key) is distinct from (i_count, i_key) then
        raise exception 'consumer % of queue % is partitioned already: into % by %', i_consumer_name, i_queue_name,
            v_known.par_count, v_known.par_key
            using errcode = 'PQ042', hint = format('let it finish what there is, then: select pgq_coop.unregister_partitions(%L, %L)',
                                                   i_queue_name, i_consumer_name);
    end if;
    if v_tick is null then
        select max(t.tick_id) into v_tick from pgq.tick t where t.tick_queue = v_queue_id;
    end if;
    for v_n in 0 .. i_count - 1 loop
        if not exists (select from pgq_coop._find(i_queue_name, format('%s#%s', i_consumer_name, v_n)) f where f.sub_key is not null) then
            v_count := v_count + pgq.register_consumer_at(i_queue_name, format('%s#%s', i_consumer_name, v_n), v_tick);
        end if;
    end loop;
    return v_count;
end $$;

-- pgq_coop.unregister_partitions(i_queue_name, i_consumer_name) -> integer
-- End the subscriptions of a partitioned consumer; its open batches and what waits for a retry are given up.
-- returns    how many ended; 0: there is no such consumer
-- runs as    owner
create or replace function pgq_coop.unregister_partitions(i_queue_name text, i_consumer_name text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_known pgq_coop.partitioned;
    v_count integer := 0;
begin
    delete from pgq_coop.partitioned p using pgq.queue q
     where q.queue_id = p.par_queue and q.queue_name = i_queue_name and p.par_consumer = i_consumer_name
    returning p.* into v_known;
    for v_n in 0 .. coalesce(v_known.par_count, 0) - 1 loop
        v_count := v_count + pgq.unregister_consumer(i_queue_name, format('%s#%s', i_consumer_name, v_n));
    end loop;
    return v_count;
end $$;

-- pgq_coop.next_partition(i_queue_name, i_consumer_name, i_worker_name, i_dead_interval) -> bigint
-- Give a worker the next batch of a partition that nobody is working on, or the batch that the worker has open.
-- i_worker_name   the worker, any text; it need not be registered
-- i_dead_interval a worker that has had a batch for this long without pgq_coop.touch() is dead, and its batch comes to this
--                 one; null: nobody is dead
-- returns    the batch's id; null when there is nothing to do yet. Read it by pgq_coop.get_batch_events(), finish it by
--            pgq_coop.finish_batch(batch, worker)
-- raises     PQ002  the consumer is not partitioned
-- raises     PQ008  the worker's name is null
-- locks      an advisory lock for the partition, to the end of the transaction; partitions that others are just taking are
--            passed over, so nobody waits
-- runs as    owner
create or replace function pgq_coop.next_partition(
    i_queue_name text, i_consumer_name text, i_worker_name text, i_dead_interval interval default null)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_known pgq_coop.partitioned;
    v_part record;
    v_pos record;
    v_tick record;
    v_next bigint;
    v_batch bigint;
begin
    if i_worker_name is null then
        raise exception 'Invalid NULL value: worker of consumer % of queue %', coalesce(i_consumer_name, 'NULL'), coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ008', hint = 'select pgq_coop.next_partition(''queue'', ''consumer'', ''worker'')';
    end if;
    select p.* into v_known from pgq_coop.partitioned p join pgq.queue q on q.queue_id = p.par_queue
     where q.queue_name = i_queue_name and p.par_consumer = i_consumer_name;
    if not found then
        raise exception 'Not partitioned: %/%', coalesce(i_queue_name, 'NULL'), coalesce(i_consumer_name, 'NULL')
            using errcode = 'PQ002', hint = format('select pgq_coop.register_partitions(%L, %L, 8, ''ev_extra1'')', i_queue_name, i_consumer_name);
    end if;
    -- Its own batch first, then those of the dead, then the partition that is furthest behind.
    for v_part in
        select s.sub_key, p.holder = i_worker_name as own
          from pgq.subscriber s join pgq.consumer c on c.co_id = s.sub_consumer
         cross join lateral pgq._position(s.sub_key) p
         where s.sub_queue = v_known.par_queue
           and c.co_name = any (array(select format('%s#%s', i_consumer_name, n) from generate_series(0, v_known.par_count - 1) n))
           and (p.batch is null or p.holder = i_worker_name or p.active < now() - i_dead_interval)
         order by p.batch is not null and p.holder = i_worker_name desc, p.batch is null, p.last_tick, random()
    loop
        continue when not pg_try_advisory_xact_lock('pgq.subscriber'::regclass::oid::bigint::integer, v_part.sub_key);
        v_pos := pgq._position(v_part.sub_key);
        if v_pos.batch is not null then
            continue when v_pos.holder <> i_worker_name and not coalesce(v_pos.active < now() - i_dead_interval, false);
            v_batch := v_pos.batch;
            v_next := v_pos.next_tick;
        else
            select * into v_tick from pgq.tick t where t.tick_queue = v_known.par_queue and t.tick_id = v_pos.last_tick;
            -- As each partition keeps but a part of what it reads, it takes what waits at one go, up to a thousand events for each.
            select coalesce(max(t.tick_id) filter (where t.tick_event_seq - v_tick.tick_event_seq <= 1000 * v_known.par_count), min(t.tick_id))
              into v_next
              from (select n.tick_id, n.tick_event_seq from pgq.tick n
                     where n.tick_queue = v_known.par_queue and n.tick_id > v_tick.tick_id
                     order by n.tick_queue, n.tick_id limit 1000) t;
            continue when v_next is null;
            v_batch := nextval('pgq.batch_id_seq');
        end if;
        if pgq._move(v_part.sub_key, v_pos.slot, v_pos.seq, v_pos.last_tick, v_batch, v_next, now(), i_worker_name) then
            return v_batch;
        end if;
    end loop;
    return null;
end $$;

-- pgq_coop.partition_filter(i_batch_id) -> text
-- The condition that holds for the events of a batch which belong to its partition: for pgq.get_batch_cursor().
-- returns    SQL text over ev_...; 'true' for a batch of a consumer that is not partitioned
-- raises     PQ003  no such open batch
-- runs as    owner
create or replace function pgq_coop.partition_filter(i_batch_id bigint) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_batch record := pgq._find_batch(i_batch_id);
    v_part record;
begin
    if v_batch.sub_key is null then
        raise exception 'batch not found: %', coalesce(i_batch_id::text, 'NULL')
            using errcode = 'PQ003', hint = 'it may be finished, or given to another worker';
    end if;
    select p.par_count, p.par_key, substr(c.co_name, length(p.par_consumer) + 2)::integer as number into v_part
      from pgq.consumer c join pgq_coop.partitioned p on c.co_name like '%#%' and p.par_consumer = regexp_replace(c.co_name, '#[0-9]+$', '')
     where c.co_id = v_batch.consumer_id and p.par_queue = v_batch.queue_id;
    if not found then
        return 'true';
    end if;
    -- By md5, which is the same in every version: a key must not move to another partition when the server is upgraded.
    return format($sql$coalesce(('x' || substr(md5(%s), 1, 8))::bit(32)::bigint, ev_id) %% %s = %s$sql$,
        case when v_part.par_key like 'ev\_data.%' then format('(ev_data::jsonb ->> %L)', substr(v_part.par_key, 9))
             else quote_ident(v_part.par_key) end,
        v_part.par_count, v_part.number);
end $$;

-- pgq_coop.get_batch_events(i_batch_id) -> setof record
-- The events of an open batch that belong to its partition, by id.
-- returns    as pgq.get_batch_events()
-- raises     PQ003  no such open batch
-- raises     PQ011  a tick of the batch is gone
-- runs as    caller
create or replace function pgq_coop.get_batch_events(
    i_batch_id bigint, out ev_id bigint, out ev_time timestamptz, out ev_txid bigint, out ev_retry int4, out ev_type text,
    out ev_data text, out ev_extra1 text, out ev_extra2 text, out ev_extra3 text, out ev_extra4 text)
returns setof record
language plpgsql as $$
begin
    return query execute pgq._batch_query(i_batch_id, ' and ' || pgq_coop.partition_filter(i_batch_id)) || ' order by 1';
end $$;
