-- Cooperative consumers: several workers share the batches of one consumer.
--
-- A worker is a subconsumer, a subscription of its own named <consumer>.<subconsumer> with the consumer's sub_id. The
-- consumer itself, the main one, only hands out: its position moves on when a worker gets a batch, which then stands in the
-- worker's position. An idle worker stands nowhere. All positions are in the log of pgq/positions.sql.
create schema pgq_coop;
comment on schema pgq_coop is 'skytools: consumers that share their work among several workers';
grant usage on schema pgq_coop to public;

-- pgq_coop.version() -> text
-- The version of the schema: the bundle's.
-- returns    e.g. '4.0.0'
-- runs as    caller
-- see        skytools.version()
create or replace function pgq_coop.version() returns text
language sql immutable parallel safe as $$
    select skytools.version()
$$;
