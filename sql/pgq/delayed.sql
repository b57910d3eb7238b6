-- Events for later wait in a plain table, and are put into their queues by maintenance when their time has come. Rows leave
-- it by DELETE: unlike in a queue, vacuum has work here.
create table pgq.delayed_event (
    delayed_id  bigint generated always as identity,
    queue_id    integer not null,
    due_time    timestamptz not null,
    ev_type     text,
    ev_data     text,
    ev_extra1   text,
    ev_extra2   text,
    ev_extra3   text,
    ev_extra4   text,
    constraint delayed_event_pkey primary key (delayed_id),
    constraint delayed_event_queue_fkey foreign key (queue_id) references pgq.queue (queue_id) on delete cascade
);
create index delayed_event_due_idx on pgq.delayed_event (due_time, delayed_id);
create index delayed_event_queue_idx on pgq.delayed_event (queue_id);
comment on table pgq.delayed_event is 'Events that wait for their time: see pgq.insert_event_at()';

-- pgq.insert_event_at(i_queue_name, i_time, i_type, i_data, i_extra1, i_extra2, i_extra3, i_extra4) -> bigint
-- Put an event into a queue at a later time, if the caller's transaction commits. It comes with the first maintenance round
-- (pgq.maint_retry_events()) after that time; events that are due come in the order of their times. Its ev_time is then i_time.
-- i_time     not before this time; one that is past: with the next round
-- i_type     what kind of event; any text
-- i_data     payload; any text
-- i_extra1   further fields, for the application; so are i_extra2, i_extra3 and i_extra4
-- returns    a number for pgq.cancel_event_at(); the event gets its id when it is put into the queue
-- raises     PQ001  no such queue
-- raises     PQ008  the time is null
-- runs as    owner: a producer needs EXECUTE, no table right
create or replace function pgq.insert_event_at(
    i_queue_name text, i_time timestamptz, i_type text, i_data text,
    i_extra1 text default null, i_extra2 text default null, i_extra3 text default null, i_extra4 text default null)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_id bigint;
begin
    if i_time is null then
        raise exception 'Invalid NULL value: time of an event for queue %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ008', hint = 'select pgq.insert_event_at(''queue'', now() + interval ''1 hour'', ''type'', ''data'')';
    end if;
    insert into pgq.delayed_event (queue_id, due_time, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4)
    select q.queue_id, i_time, i_type, i_data, i_extra1, i_extra2, i_extra3, i_extra4
      from pgq.queue q where q.queue_name = i_queue_name
    returning delayed_id into v_id;
    if v_id is null then
        raise exception 'No such queue: %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    return v_id;
end $$;

-- pgq.cancel_event_at(i_queue_name, i_delayed_id) -> integer
-- Withdraw an event that waits for its time.
-- i_delayed_id what pgq.insert_event_at() returned
-- returns    1; 0 when it does not wait (any more)
-- locks      waits for a maintenance round that is just putting it into the queue
-- runs as    owner
create or replace function pgq.cancel_event_at(i_queue_name text, i_delayed_id bigint) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_count integer;
begin
    delete from pgq.delayed_event d
     using pgq.queue q
     where q.queue_id = d.queue_id and q.queue_name = i_queue_name and d.delayed_id = i_delayed_id;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- pgq.maint_delayed_events() -> integer
-- Put delayed events whose time has come into their queues, the longest due first. pgq.maint_retry_events() calls it.
-- Queues that do not take events now (queue_disable_insert) keep theirs waiting. Not counted against queue_per_tx_limit.
-- returns    how many, at most 1000
-- locks      pgq.delayed_event SHARE UPDATE EXCLUSIVE: one caller at a time; producers go on
-- runs as    owner
create or replace function pgq.maint_delayed_events() returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue record;
    v_count integer := 0;
begin
    perform 1 from pgq.delayed_event d where d.due_time <= current_timestamp limit 1;
    if not found then
        return 0;
    end if;
    lock table pgq.delayed_event in share update exclusive mode;
    for v_queue in
        select q.queue_name, array_agg(d.delayed_id) as ids
          from (select d.queue_id, d.delayed_id
                  from pgq.delayed_event d join pgq.queue q on q.queue_id = d.queue_id
                 where d.due_time <= current_timestamp and not q.queue_disable_insert
                 order by d.due_time, d.delayed_id limit 1000) d
          join pgq.queue q on q.queue_id = d.queue_id
         group by q.queue_name
         order by q.queue_name
    loop
        -- An event that was cancelled meanwhile is not there to be deleted, so it is not put in.
        execute format($sql$
            with due as (delete from pgq.delayed_event d where d.delayed_id = any ($1) returning *)
            insert into %s (ev_time, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4)
            select due_time, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4 from due order by due_time, delayed_id
            $sql$, pgq.current_event_table(v_queue.queue_name))
          using v_queue.ids;
        v_count := v_count + cardinality(v_queue.ids);
    end loop;
    return v_count;
end $$;
