-- pgq_ext.version() -> text
-- The version of the schema: the bundle's.
-- returns    e.g. '4.0.0'
-- runs as    caller
-- see        skytools.version()
create or replace function pgq_ext.version() returns text
language sql immutable parallel safe as $$
    select skytools.version()
$$;

-- pgq_ext.upgrade_schema() -> integer
-- Give the functions their privileges: all to pgq_writer, version() to PUBLIC. The install calls it; call it again when the
-- roles did not exist then (see pgq.upgrade_schema()).
-- returns    how many tables changed: 0
-- runs as    caller, who must own the schema
create or replace function pgq_ext.upgrade_schema() returns integer
language plpgsql as $$
begin
    revoke all on all functions in schema pgq_ext from public;
    grant execute on function pgq_ext.version() to public;
    if pg_catalog.to_regrole('pgq_writer') is not null then
        grant execute on function
            pgq_ext.get_last_tick(text), pgq_ext.get_last_tick(text, text),
            pgq_ext.set_last_tick(text, bigint), pgq_ext.set_last_tick(text, text, bigint),
            pgq_ext.is_batch_done(text, bigint), pgq_ext.is_batch_done(text, text, bigint),
            pgq_ext.set_batch_done(text, bigint), pgq_ext.set_batch_done(text, text, bigint),
            pgq_ext.is_event_done(text, bigint, bigint), pgq_ext.is_event_done(text, text, bigint, bigint),
            pgq_ext.set_event_done(text, bigint, bigint), pgq_ext.set_event_done(text, text, bigint, bigint)
            to pgq_writer;
    end if;
    return 0;
end $$;

select pgq_ext.upgrade_schema();
