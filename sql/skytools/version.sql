create schema if not exists skytools;
comment on schema skytools is 'skytools: migration ledger, settings and helpers';
grant usage on schema skytools to public;

-- skytools.version() -> text
-- The version of the installed bundle: the same number as in package.json and in the migration ledger.
-- returns    e.g. '4.0.0'
-- runs as    caller
create or replace function skytools.version() returns text
language sql immutable parallel safe as $$
    select '4.0.0'::text
$$;
