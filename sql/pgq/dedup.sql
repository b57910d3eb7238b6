-- Keys of events that must not come twice, each until its window is over. Maintenance deletes those that are.
create table pgq.event_key (
    queue_id  integer not null,
    ev_key    text not null,
    until     timestamptz not null,
    constraint event_key_pkey primary key (queue_id, ev_key),
    constraint event_key_queue_fkey foreign key (queue_id) references pgq.queue (queue_id) on delete cascade
);
create index event_key_until_idx on pgq.event_key (until);
comment on table pgq.event_key is 'Keys that pgq.insert_event_once() refuses until their window is over';

-- pgq.insert_event_once(i_queue_name, i_key, i_window, i_type, i_data, i_extra1, i_extra2, i_extra3, i_extra4) -> bigint
-- Put an event into a queue unless one with the same key was put in within the window. A rollback frees the key again.
-- i_key      at most 1024 bytes; keys of different queues are different
-- i_window   how long the key is taken, from now on
-- i_type     what kind of event; any text
-- i_data     payload; any text
-- i_extra1   further fields, for the application; so are i_extra2, i_extra3 and i_extra4
-- returns    the event's id; null for a duplicate
-- raises     PQ001  no such queue
-- raises     PQ006, PQ007  as pgq.insert_event()
-- raises     PQ008  the key is null or too long, or the window is not above zero
-- raises     40001  under REPEATABLE READ and SERIALIZABLE, when the key was taken since the snapshot
-- locks      the key: another transaction with the same key waits until this one ends
-- runs as    owner: a producer needs EXECUTE, no table right
create or replace function pgq.insert_event_once(
    i_queue_name text, i_key text, i_window interval, i_type text, i_data text,
    i_extra1 text default null, i_extra2 text default null, i_extra3 text default null, i_extra4 text default null)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue_id integer;
begin
    if i_key is null or octet_length(i_key) > 1024 then
        raise exception 'queue %: a key of at most 1024 bytes is needed, not %', coalesce(i_queue_name, 'NULL'),
            coalesce(octet_length(i_key) || ' bytes', 'NULL')
            using errcode = 'PQ008', hint = 'a longer one can be hashed: md5(key)';
    end if;
    if i_window is null or i_window <= interval '0' then
        raise exception 'queue %: the window of a key must be above zero, not %', coalesce(i_queue_name, 'NULL'), coalesce(i_window::text, 'NULL')
            using errcode = 'PQ008', hint = 'select pgq.insert_event_once(''queue'', ''key'', ''1 hour'', ''type'', ''data'')';
    end if;
    select q.queue_id into v_queue_id from pgq.queue q where q.queue_name = i_queue_name;
    if not found then
        raise exception 'No such queue: %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    insert into pgq.event_key as k (queue_id, ev_key, until)
    values (v_queue_id, i_key, clock_timestamp() + i_window)
    on conflict (queue_id, ev_key) do update set until = excluded.until where k.until <= clock_timestamp();
    if not found then
        return null;
    end if;
    return pgq.insert_event(i_queue_name, i_type, i_data, i_extra1, i_extra2, i_extra3, i_extra4);
end $$;

-- pgq.maint_expire_keys() -> integer
-- Delete keys of pgq.insert_event_once() whose window is over. Called by maintenance; call again until it gives 0.
-- returns    how many, at most 10000
-- runs as    owner
create or replace function pgq.maint_expire_keys() returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_count integer;
begin
    delete from pgq.event_key k
     where k.ctid = any (array(select e.ctid from pgq.event_key e where e.until <= now() order by e.until limit 10000
                                  for update skip locked));
    get diagnostics v_count = row_count;
    return v_count;
end $$;
