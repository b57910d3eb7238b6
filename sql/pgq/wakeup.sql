-- Wake-up: a queue that has it on does not wait to be polled. Its producers notify the ticker when they commit (channel
-- pgq_insert), and its ticks notify the consumers (channel pgq_tick); the payload is the queue's id. One transaction notifies
-- once, however many events it inserts.
-- NOTIFY takes a lock that all databases of a cluster share while its transaction commits, so that commits with it are made one after the
-- other. A ticker that is woken too often therefore says that it looks by itself for a while (pgq.wakeup_state), and the
-- producers save theirs. As a prepared transaction cannot notify, queues that are written to by PREPARE TRANSACTION leave it off.
create table pgq.queue_option (
    queue_id  integer not null,
    wakeup    boolean not null default false,
    constraint queue_option_pkey primary key (queue_id),
    constraint queue_option_queue_fkey foreign key (queue_id) references pgq.queue (queue_id) on delete cascade
);
comment on table pgq.queue_option is 'Settings of queues beyond those of pgq.queue: see pgq.set_wakeup()';

-- 1: producers notify, 2: the ticker looks by itself. A sequence, because what it holds is seen at once by all, and costs no
-- dead rows.
create sequence pgq.wakeup_state maxvalue 2 cycle;
comment on sequence pgq.wakeup_state is '1: producers notify the ticker; 2: it looks by itself';

-- pgq.set_wakeup(i_queue_name, i_enabled) -> integer
-- Have the producers of a queue wake the ticker and its ticks wake the consumers, so that an event is on its way within
-- milliseconds; or no longer. Without a listening ticker it changes nothing but the cost of NOTIFY.
-- returns    1 changed, 0 it was so already
-- raises     PQ001  no such queue
-- raises     PQ008  i_enabled is null
-- locks      the queue's row; a transaction that inserts just now may still act by the old setting
-- runs as    owner
create or replace function pgq.set_wakeup(i_queue_name text, i_enabled boolean) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
begin
    if i_enabled is null then
        raise exception 'Invalid NULL value: wake-up of queue %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ008', hint = format('select pgq.set_wakeup(%L, true)', i_queue_name);
    end if;
    select * into v_queue from pgq.queue q where q.queue_name = i_queue_name for no key update;
    if not found then
        raise exception 'No such event queue: %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    insert into pgq.queue_option as o (queue_id, wakeup) values (v_queue.queue_id, i_enabled)
    on conflict (queue_id) do update set wakeup = excluded.wakeup where o.wakeup <> excluded.wakeup;
    if not found then
        return 0;
    end if;
    perform pgq._make_queue_code(v_queue);
    return 1;
end $$;

-- pgq._wakes(i_queue_id) -> boolean
-- Whether a queue has wake-up on.
-- runs as    caller, within a security definer function
create or replace function pgq._wakes(i_queue_id integer) returns boolean
language sql stable as $$
    select exists (select from pgq.queue_option o where o.queue_id = i_queue_id and o.wakeup)
$$;

-- pgq.wakeup_polling(i_polling) -> void
-- A ticker says whether it looks for events by itself, so that producers need not notify. What was inserted before the
-- change may still be without a notification when it commits: go on looking until those transactions have ended.
-- runs as    owner
create or replace function pgq.wakeup_polling(i_polling boolean) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select pg_catalog.setval('pgq.wakeup_state', case when i_polling then 2 else 1 end)
$$;

-- pgq.tick_now(i_queue_name) -> bigint
-- Make a tick for one queue whatever its settings, if there are committed events that no tick covers yet.
-- returns    the tick's id; null when there is nothing to tick, or the queue is ticked from elsewhere, or paused
-- raises     PQ001  no such queue
-- raises     PQ011, 40001  as pgq.ticker(text)
-- locks      as pgq.ticker(text)
-- runs as    owner
create or replace function pgq.tick_now(i_queue_name text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
begin
    select * into v_queue from pgq.queue q where q.queue_name = i_queue_name;
    if not found then
        raise exception 'no such queue: %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    if v_queue.queue_external_ticker or v_queue.queue_ticker_paused then
        return null;
    end if;
    perform pg_advisory_xact_lock('pgq.tick'::regclass::oid::bigint::integer, v_queue.queue_id);
    if not pgq._has_new_events(v_queue.queue_id) then
        return null;
    end if;
    return pgq._tick(v_queue.queue_id, true);
end $$;

-- pgq.tick_new() -> integer
-- Make ticks for all queues that have wake-up on and committed events that no tick covers yet.
-- returns    how many queues got one
-- raises     PQ011, 40001  as pgq.ticker(text)
-- locks      as pgq.ticker(); a queue that another ticker is just ticking is left to it
-- runs as    owner
create or replace function pgq.tick_new() returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue_id integer;
    v_count integer := 0;
begin
    for v_queue_id in
        select q.queue_id from pgq.queue_option o join pgq.queue q on q.queue_id = o.queue_id
         where o.wakeup and not q.queue_external_ticker and not q.queue_ticker_paused
         order by q.queue_id
    loop
        if pg_try_advisory_xact_lock('pgq.tick'::regclass::oid::bigint::integer, v_queue_id)
           and pgq._has_new_events(v_queue_id) and pgq._tick(v_queue_id, true) is not null then
            v_count := v_count + 1;
        end if;
    end loop;
    return v_count;
end $$;

-- pgq._has_new_events(i_queue_id) -> boolean
-- Whether there are committed events that the queue's newest tick does not cover.
-- runs as    caller, within a security definer function
create or replace function pgq._has_new_events(i_queue_id integer) returns boolean
language plpgsql as $$
declare
    v_snapshot txid_snapshot;
    v_newer boolean;
begin
    select t.tick_snapshot into v_snapshot from pgq.tick t where t.tick_queue = i_queue_id
     order by t.tick_queue desc, t.tick_id desc limit 1;
    if not found then
        return true;
    end if;
    execute format('select pgq.event_%s_newer($1)', i_queue_id) into v_newer using v_snapshot;
    return coalesce(v_newer, false);
end $$;
