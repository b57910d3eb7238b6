-- pgq_ext.is_batch_done(a_consumer, a_subconsumer, a_batch_id) -> boolean
-- Whether a batch is the last one that the consumer has applied in this database.
-- returns    false for a consumer of which nothing is stored; else null for a null batch
-- runs as    owner
create or replace function pgq_ext.is_batch_done(a_consumer text, a_subconsumer text, a_batch_id bigint) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_last bigint;
begin
    select b.last_batch_id into v_last from pgq_ext.completed_batch b
     where b.consumer_id = a_consumer and b.subconsumer_id = a_subconsumer;
    if not found then
        return false;
    end if;
    return v_last = a_batch_id;
end $$;

-- pgq_ext.is_batch_done(a_consumer, a_batch_id) -> boolean
-- Whether a batch is the last one that the consumer has applied in this database.
-- returns    false for a consumer of which nothing is stored; else null for a null batch
-- runs as    caller; see the form with a subconsumer
create or replace function pgq_ext.is_batch_done(a_consumer text, a_batch_id bigint) returns boolean
language sql as $$
    select pgq_ext.is_batch_done(a_consumer, '', a_batch_id)
$$;

-- pgq_ext.set_batch_done(a_consumer, a_subconsumer, a_batch_id) -> boolean
-- Note a batch as applied, in the transaction that applies it.
-- a_batch_id stored when above 0
-- returns    false when it is the last one already: then do not apply it again; else true
-- locks      the consumer's row: a second process with the same batch waits, and is told false
-- runs as    owner
create or replace function pgq_ext.set_batch_done(a_consumer text, a_subconsumer text, a_batch_id bigint) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if a_batch_id > 0 then
        insert into pgq_ext.completed_batch as b (consumer_id, subconsumer_id, last_batch_id)
        values (a_consumer, a_subconsumer, a_batch_id)
        on conflict (consumer_id, subconsumer_id) do update set last_batch_id = excluded.last_batch_id
         where b.last_batch_id <> excluded.last_batch_id;
        return found;
    end if;
    return coalesce(not pgq_ext.is_batch_done(a_consumer, a_subconsumer, a_batch_id), true);
end $$;

-- pgq_ext.set_batch_done(a_consumer, a_batch_id) -> boolean
-- Note a batch as applied, in the transaction that applies it.
-- a_batch_id stored when above 0
-- returns    false when it is the last one already: then do not apply it again; else true
-- runs as    caller; see the form with a subconsumer
create or replace function pgq_ext.set_batch_done(a_consumer text, a_batch_id bigint) returns boolean
language sql as $$
    select pgq_ext.set_batch_done(a_consumer, '', a_batch_id)
$$;
