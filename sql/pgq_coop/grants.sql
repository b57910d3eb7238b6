-- pgq_coop.upgrade_schema() -> integer
-- Give the functions their privileges: version() to PUBLIC, what workers call to pgq_reader. The install calls it; call it again
-- when the roles did not exist then (see pgq.upgrade_schema()).
-- returns    how many tables changed: 0
-- runs as    caller, who must own the schema
create or replace function pgq_coop.upgrade_schema() returns integer
language plpgsql as $$
begin
    revoke all on all functions in schema pgq_coop from public;
    grant execute on function pgq_coop.version() to public;
    if pg_catalog.to_regrole('pgq_reader') is not null then
        grant execute on function
            pgq_coop.register_subconsumer(text, text, text), pgq_coop.unregister_subconsumer(text, text, text, integer),
            pgq_coop.next_batch(text, text, text), pgq_coop.next_batch(text, text, text, interval),
            pgq_coop.next_batch_custom(text, text, text, interval, integer, interval),
            pgq_coop.next_batch_custom(text, text, text, interval, integer, interval, interval),
            pgq_coop.finish_batch(bigint), pgq_coop.finish_batch(bigint, text),
            pgq_coop.touch(bigint), pgq_coop.touch(bigint, text),
            pgq_coop.register_partitions(text, text, integer, text, bigint), pgq_coop.unregister_partitions(text, text),
            pgq_coop.next_partition(text, text, text, interval), pgq_coop.partition_filter(bigint),
            pgq_coop.get_batch_events(bigint)
            to pgq_reader;
    end if;
    return 0;
end $$;

select pgq_coop.upgrade_schema();
