-- Which subscriptions are paused. Rows come and go by hand: no traffic here.
create table pgq.paused_consumer (
    sub_key      integer not null,
    paused_time  timestamptz not null default now(),
    constraint paused_consumer_pkey primary key (sub_key),
    constraint paused_consumer_sub_fkey foreign key (sub_key) references pgq.subscriber (sub_key) on delete cascade
);
comment on table pgq.paused_consumer is 'Subscriptions that get no batch now: see pgq.pause_consumer()';

-- pgq.pause_consumer(i_queue_name, i_consumer_name) -> integer
-- Give a consumer no batch until it is resumed, not even the one that it has open; a worker that holds it may finish it.
-- Its position stays, so the queue cannot rotate past it: a long pause lets the queue grow.
-- returns    1 paused, 0 it was already
-- raises     PQ002  not subscribed
-- runs as    owner
create or replace function pgq.pause_consumer(i_queue_name text, i_consumer_name text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_count integer;
begin
    insert into pgq.paused_consumer (sub_key) values (pgq._subscription_key(i_queue_name, i_consumer_name)) on conflict do nothing;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- pgq.resume_consumer(i_queue_name, i_consumer_name) -> integer
-- Let a paused consumer go on where it was.
-- returns    1 resumed, 0 it was not paused
-- raises     PQ002  not subscribed
-- runs as    owner
create or replace function pgq.resume_consumer(i_queue_name text, i_consumer_name text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_count integer;
begin
    delete from pgq.paused_consumer p where p.sub_key = pgq._subscription_key(i_queue_name, i_consumer_name);
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- pgq._subscription_key(i_queue_name, i_consumer_name) -> integer
-- The sub_key of a subscription.
-- raises     PQ002  not subscribed
-- runs as    caller, within a security definer function
create or replace function pgq._subscription_key(i_queue_name text, i_consumer_name text) returns integer
language plpgsql stable as $$
declare
    v_sub integer;
begin
    select s.sub_key into v_sub
      from pgq.subscriber s
      join pgq.queue q on q.queue_id = s.sub_queue
      join pgq.consumer c on c.co_id = s.sub_consumer
     where q.queue_name = i_queue_name and c.co_name = i_consumer_name;
    if not found then
        raise exception 'Not subscriber to queue: %/%', coalesce(i_queue_name, 'NULL'), coalesce(i_consumer_name, 'NULL')
            using errcode = 'PQ002', hint = format('select pgq.register_consumer(%L, %L)', i_queue_name, i_consumer_name);
    end if;
    return v_sub;
end $$;

-- pgq.pause_queue(i_queue_name) -> integer
-- Stop the ticks of a queue: events go on coming in, consumers get none of them.
-- returns    1
-- raises     PQ001  no such queue
-- runs as    caller; see pgq.set_queue_config()
create or replace function pgq.pause_queue(i_queue_name text) returns integer
language sql as $$
    select pgq.set_queue_config(i_queue_name, 'ticker_paused', 'true')
$$;

-- pgq.resume_queue(i_queue_name) -> integer
-- Let a paused queue tick again.
-- returns    1
-- raises     PQ001  no such queue
-- runs as    caller; see pgq.set_queue_config()
create or replace function pgq.resume_queue(i_queue_name text) returns integer
language sql as $$
    select pgq.set_queue_config(i_queue_name, 'ticker_paused', 'false')
$$;
