-- Events that a consumer gave up, with the error. Names instead of keys: a dead letter outlives its subscription, so that it
-- can be read, and replayed once the consumer is registered again; it goes with its queue.
create table pgq.dead_letter (
    queue_name     text not null,
    consumer_name  text not null,
    dead_time      timestamptz not null default now(),
    error          text,
    tries          integer not null,
    ev_id          bigint not null,
    ev_time        timestamptz not null,
    ev_txid        bigint,
    ev_retry       integer,
    ev_type        text,
    ev_data        text,
    ev_extra1      text,
    ev_extra2      text,
    ev_extra3      text,
    ev_extra4      text,
    constraint dead_letter_pkey primary key (queue_name, consumer_name, ev_id)
);
comment on table pgq.dead_letter is 'Events that a consumer gave up: see pgq.event_dead(), pgq.dead_letter_replay()';

-- pgq.event_dead(i_batch_id, i_ev_id, i_error) -> integer
-- Put an event of an open batch among the dead letters of its consumer; it counts when the batch's transaction commits.
-- A retry that was noted for the event is withdrawn. Subconsumers give it up in the name of their consumer.
-- i_error    why, for people; null: not known
-- returns    1; when the event is a dead letter already, it takes the new error, time and count of tries
-- raises     PQ003  no such open batch
-- raises     PQ004  the event is not in the batch
-- runs as    owner
create or replace function pgq.event_dead(i_batch_id bigint, i_ev_id bigint, i_error text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_batch record := pgq._find_batch(i_batch_id);
    v_queue text;
    v_consumer text;
    v_count integer;
begin
    select q.queue_name into v_queue from pgq.queue q where q.queue_id = v_batch.queue_id;
    -- Subconsumers share the sub_id of their consumer, which was there before them.
    select c.co_name into v_consumer
      from pgq.subscriber s join pgq.consumer c on c.co_id = s.sub_consumer
     where s.sub_id = v_batch.sub_id order by s.sub_key limit 1;
    execute format($sql$
        insert into pgq.dead_letter (queue_name, consumer_name, error, tries, ev_id, ev_time, ev_txid, ev_retry, ev_type, ev_data,
                                     ev_extra1, ev_extra2, ev_extra3, ev_extra4)
        select $2, $3, $4, coalesce(ev_retry, 0) + 1, ev_id, ev_time, ev_txid, ev_retry, ev_type, ev_data,
               ev_extra1, ev_extra2, ev_extra3, ev_extra4
          from (%s) event
        on conflict (queue_name, consumer_name, ev_id)
        do update set dead_time = excluded.dead_time, error = excluded.error, tries = excluded.tries, ev_retry = excluded.ev_retry,
                      ev_txid = excluded.ev_txid
        $sql$, pgq._batch_query(i_batch_id, ' and ev.ev_id = $1'))
      using i_ev_id, v_queue, v_consumer, i_error;
    get diagnostics v_count = row_count;
    if v_count = 0 then
        raise exception 'event not found: % in batch %', coalesce(i_ev_id::text, 'NULL'), i_batch_id
            using errcode = 'PQ004', hint = format('events of the batch: select ev_id from pgq.get_batch_events(%s)', i_batch_id);
    end if;
    delete from pgq.retry_queue r where r.ev_owner = v_batch.sub_id and r.ev_id = i_ev_id;
    return 1;
end $$;

-- pgq.dead_letter_replay(i_queue_name, i_consumer_name, i_ev_id) -> integer
-- Have dead letters delivered again, to their consumer alone, as if never tried: the next pgq.maint_retry_events() takes them.
-- i_ev_id    one event; null: all that the consumer has in this queue
-- returns    how many; an event that waits for a retry already stays among the dead letters
-- raises     PQ002  the consumer is not subscribed to the queue
-- runs as    owner
create or replace function pgq.dead_letter_replay(i_queue_name text, i_consumer_name text, i_ev_id bigint default null)
returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_sub record;
    v_count integer;
begin
    select s.sub_queue, s.sub_id into v_sub
      from pgq.subscriber s
      join pgq.queue q on q.queue_id = s.sub_queue
      join pgq.consumer c on c.co_id = s.sub_consumer
     where q.queue_name = i_queue_name and c.co_name = i_consumer_name
       for share of s;
    if not found then
        raise exception 'consumer not registered: %/%', coalesce(i_queue_name, 'NULL'), coalesce(i_consumer_name, 'NULL')
            using errcode = 'PQ002', hint = format('select pgq.register_consumer(%L, %L)', i_queue_name, i_consumer_name);
    end if;
    with replayed as (
        insert into pgq.retry_queue (ev_retry_after, ev_queue, ev_id, ev_time, ev_owner, ev_retry, ev_type, ev_data,
                                     ev_extra1, ev_extra2, ev_extra3, ev_extra4)
        select now(), v_sub.sub_queue, d.ev_id, d.ev_time, v_sub.sub_id, 0, d.ev_type, d.ev_data,
               d.ev_extra1, d.ev_extra2, d.ev_extra3, d.ev_extra4
          from pgq.dead_letter d
         where d.queue_name = i_queue_name and d.consumer_name = i_consumer_name and (i_ev_id is null or d.ev_id = i_ev_id)
         order by d.ev_id
           for update
        on conflict do nothing
        returning ev_id
    )
    delete from pgq.dead_letter d
     where d.queue_name = i_queue_name and d.consumer_name = i_consumer_name and d.ev_id in (select r.ev_id from replayed r);
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- pgq.dead_letter_purge(i_queue_name, i_consumer_name, i_ev_id, i_before) -> integer
-- Delete dead letters for good.
-- i_consumer_name those of one consumer; null: of all
-- i_ev_id    one event; null: all
-- i_before   those that were given up before this time; null: any
-- returns    how many
-- runs as    owner
create or replace function pgq.dead_letter_purge(
    i_queue_name text, i_consumer_name text default null, i_ev_id bigint default null, i_before timestamptz default null)
returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_count integer;
begin
    delete from pgq.dead_letter d
     where d.queue_name = i_queue_name
       and (i_consumer_name is null or d.consumer_name = i_consumer_name)
       and (i_ev_id is null or d.ev_id = i_ev_id)
       and (i_before is null or d.dead_time < i_before);
    get diagnostics v_count = row_count;
    return v_count;
end $$;
