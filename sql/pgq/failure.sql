-- What a consumer fails at now, so that whoever looks sees why nothing moves. A row comes with the first failure and goes
-- with the next success: no traffic here while all is well.
create table pgq.consumer_failure (
    sub_key     integer not null,
    attempts    integer not null,
    first_time  timestamptz not null default now(),
    last_time   timestamptz not null default now(),
    error       text,
    constraint consumer_failure_pkey primary key (sub_key),
    constraint consumer_failure_sub_fkey foreign key (sub_key) references pgq.subscriber (sub_key) on delete cascade
);
comment on table pgq.consumer_failure is 'Subscriptions whose batch fails: see pgq.note_failure()';

-- pgq.note_failure(i_queue_name, i_consumer_name, i_error) -> integer
-- Note that the batch of a consumer has failed again. Not in the batch's own transaction, which is rolled back.
-- i_consumer_name a cooperative worker is <consumer>.<subconsumer>
-- i_error    why, for people; null: not known
-- returns    how often in a row
-- raises     PQ002  not subscribed
-- runs as    owner
create or replace function pgq.note_failure(i_queue_name text, i_consumer_name text, i_error text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_attempts integer;
begin
    insert into pgq.consumer_failure as f (sub_key, attempts, error)
    values (pgq._subscription_key(i_queue_name, i_consumer_name), 1, i_error)
    on conflict (sub_key) do update set attempts = f.attempts + 1, last_time = now(), error = excluded.error
    returning attempts into v_attempts;
    return v_attempts;
end $$;

-- pgq.clear_failure(i_queue_name, i_consumer_name) -> integer
-- Note that a consumer gets on again.
-- i_consumer_name a cooperative worker is <consumer>.<subconsumer>
-- returns    how often its batch had failed in a row: 0 when it had not
-- raises     PQ002  not subscribed
-- runs as    owner
create or replace function pgq.clear_failure(i_queue_name text, i_consumer_name text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_attempts integer;
begin
    delete from pgq.consumer_failure f where f.sub_key = pgq._subscription_key(i_queue_name, i_consumer_name)
    returning f.attempts into v_attempts;
    return coalesce(v_attempts, 0);
end $$;
