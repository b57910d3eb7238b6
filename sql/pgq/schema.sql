create schema pgq;
comment on schema pgq is 'skytools: PgQ, a transactional, snapshot-batched queue';
grant usage on schema pgq to public;

-- pgq.version() -> text
-- The version of the queue schema; the ticker daemon pgqd works with any that begins with 3 or more.
-- returns    the bundle's version, e.g. '4.0.0'
-- runs as    caller
-- see        skytools.version()
create or replace function pgq.version() returns text
language sql immutable parallel safe as $$
    select skytools.version()
$$;
