-- pgq_ext.is_event_done(a_consumer, a_subconsumer, a_batch_id, a_event_id) -> boolean
-- Whether the consumer has applied an event of its current batch in this database.
-- returns    true or false
-- runs as    owner
create or replace function pgq_ext.is_event_done(a_consumer text, a_subconsumer text, a_batch_id bigint, a_event_id bigint)
returns boolean
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select exists (select from pgq_ext.completed_event e
                    where e.consumer_id = a_consumer and e.subconsumer_id = a_subconsumer
                      and e.batch_id = a_batch_id and e.event_id = a_event_id)
$$;

-- pgq_ext.is_event_done(a_consumer, a_batch_id, a_event_id) -> boolean
-- Whether the consumer has applied an event of its current batch in this database.
-- returns    true or false
-- runs as    caller; see the form with a subconsumer
create or replace function pgq_ext.is_event_done(a_consumer text, a_batch_id bigint, a_event_id bigint) returns boolean
language sql as $$
    select pgq_ext.is_event_done(a_consumer, '', a_batch_id, a_event_id)
$$;

-- pgq_ext.set_event_done(a_consumer, a_subconsumer, a_batch_id, a_event_id) -> boolean
-- Note an event as applied, in the transaction that applies it. With the first event of another batch, those of the batch
-- before are forgotten.
-- returns    false when it is applied already: then do not apply it again; else true
-- locks      a second process with the same event waits, and is told false
-- runs as    owner
create or replace function pgq_ext.set_event_done(a_consumer text, a_subconsumer text, a_batch_id bigint, a_event_id bigint)
returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_before bigint;
begin
    select p.cur_batch_id into v_before from pgq_ext.partial_batch p
     where p.consumer_id = a_consumer and p.subconsumer_id = a_subconsumer;
    if v_before is distinct from a_batch_id then
        insert into pgq_ext.partial_batch as p (consumer_id, subconsumer_id, cur_batch_id)
        values (a_consumer, a_subconsumer, a_batch_id)
        on conflict (consumer_id, subconsumer_id) do update set cur_batch_id = excluded.cur_batch_id;
        delete from pgq_ext.completed_event e
         where e.consumer_id = a_consumer and e.subconsumer_id = a_subconsumer and e.batch_id = v_before;
    end if;
    insert into pgq_ext.completed_event (consumer_id, subconsumer_id, batch_id, event_id)
    values (a_consumer, a_subconsumer, a_batch_id, a_event_id)
    on conflict do nothing;
    return found;
end $$;

-- pgq_ext.set_event_done(a_consumer, a_batch_id, a_event_id) -> boolean
-- Note an event as applied, in the transaction that applies it.
-- returns    false when it is applied already: then do not apply it again; else true
-- runs as    caller; see the form with a subconsumer
create or replace function pgq_ext.set_event_done(a_consumer text, a_batch_id bigint, a_event_id bigint) returns boolean
language sql as $$
    select pgq_ext.set_event_done(a_consumer, '', a_batch_id, a_event_id)
$$;
