-- pgq_ext.get_last_tick(a_consumer, a_subconsumer) -> bigint
-- The last tick that a consumer has applied in this database.
-- returns    null when none is stored
-- runs as    owner
create or replace function pgq_ext.get_last_tick(a_consumer text, a_subconsumer text) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select t.last_tick_id from pgq_ext.completed_tick t
     where t.consumer_id = a_consumer and t.subconsumer_id = a_subconsumer
$$;

-- pgq_ext.get_last_tick(a_consumer) -> bigint
-- The last tick that a consumer has applied in this database.
-- returns    null when none is stored
-- runs as    caller; see the form with a subconsumer
create or replace function pgq_ext.get_last_tick(a_consumer text) returns bigint
language sql as $$
    select pgq_ext.get_last_tick(a_consumer, '')
$$;

-- pgq_ext.set_last_tick(a_consumer, a_subconsumer, a_tick_id) -> integer
-- Store the last tick that a consumer has applied, in the transaction that applied it; it may go back.
-- a_tick_id  null: forget the consumer
-- returns    1
-- runs as    owner
create or replace function pgq_ext.set_last_tick(a_consumer text, a_subconsumer text, a_tick_id bigint) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if a_tick_id is null then
        delete from pgq_ext.completed_tick t where t.consumer_id = a_consumer and t.subconsumer_id = a_subconsumer;
    else
        insert into pgq_ext.completed_tick as t (consumer_id, subconsumer_id, last_tick_id)
        values (a_consumer, a_subconsumer, a_tick_id)
        on conflict (consumer_id, subconsumer_id) do update set last_tick_id = excluded.last_tick_id;
    end if;
    return 1;
end $$;

-- pgq_ext.set_last_tick(a_consumer, a_tick_id) -> integer
-- Store the last tick that a consumer has applied, in the transaction that applied it; it may go back.
-- a_tick_id  null: forget the consumer
-- returns    1
-- runs as    caller; see the form with a subconsumer
create or replace function pgq_ext.set_last_tick(a_consumer text, a_tick_id bigint) returns integer
language sql as $$
    select pgq_ext.set_last_tick(a_consumer, '', a_tick_id)
$$;
