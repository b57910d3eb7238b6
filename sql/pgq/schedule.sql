-- A ticker where no process of ours can run: pg_cron calls a procedure each minute, which ticks for just under a minute.

-- pgq.ticker_loop(i_seconds, i_period, i_retry_period, i_maintenance_period) -> void
-- Tick, put back retries and do maintenance for so many seconds, committing after each step: call it outside of a transaction.
-- Leaves at once when another ticker leads, so that calls that overlap, and skytools ticker, do not do the same work twice.
-- i_seconds  how long; it ends when the next tick would come after that
-- i_period   seconds between ticks, fractions too
-- i_retry_period, i_maintenance_period  seconds between rounds of those; the first of each is at once
-- raises     2D000  it was called inside a transaction or a function
-- locks      the advisory lock by which a ticker leads, until it ends
-- runs as    caller, who needs pgq_admin. VACUUM, which maintenance asks for where autovacuum is off, cannot run here
create or replace procedure pgq.ticker_loop(
    i_seconds float8 default 59, i_period float8 default 0.5, i_retry_period float8 default 30, i_maintenance_period float8 default 120)
language plpgsql as $$
declare
    v_end timestamptz := clock_timestamp() + i_seconds * interval '1 second';
    v_retry timestamptz := clock_timestamp();
    v_maintenance timestamptz := clock_timestamp();
    v_next timestamptz;
    v_again bigint;
    v_operation record;
begin
    if not pg_catalog.pg_try_advisory_lock('pgq.tick'::pg_catalog.regclass::oid::bigint::integer, 0) then
        return;
    end if;
    loop
        v_next := clock_timestamp() + i_period * interval '1 second';
        -- An error must neither end the minute nor keep the lock.
        begin
            perform pgq.ticker();
        exception when others then
            raise warning 'ticker: %', sqlerrm;
        end;
        commit;
        if clock_timestamp() >= v_retry then
            v_retry := clock_timestamp() + i_retry_period * interval '1 second';
            loop
                begin
                    v_again := pgq.maint_retry_events();
                exception when others then
                    raise warning 'retries: %', sqlerrm;
                    v_again := 0;
                end;
                commit;
                exit when v_again = 0;
            end loop;
        end if;
        if clock_timestamp() >= v_maintenance then
            v_maintenance := clock_timestamp() + i_maintenance_period * interval '1 second';
            for v_operation in select m.func_name, m.func_arg from pgq.maint_operations() m where m.func_name !~* '^vacuum' loop
                for v_turn in 1..1000 loop
                    begin
                        execute pg_catalog.format('select %s(%s)', pgq.quote_fqname(v_operation.func_name),
                                                  case when v_operation.func_arg is not null then '$1' end)
                           into v_again using v_operation.func_arg;
                    exception when others then
                        raise warning '%: %', v_operation.func_name, sqlerrm;
                        v_again := 0;
                    end;
                    commit;
                    exit when coalesce(v_again, 0) = 0;
                end loop;
            end loop;
        end if;
        exit when greatest(v_next, clock_timestamp()) > v_end;
        perform pg_catalog.pg_sleep(greatest(extract(epoch from v_next - clock_timestamp())::float8, 0));
    end loop;
    perform pg_catalog.pg_advisory_unlock('pgq.tick'::pg_catalog.regclass::oid::bigint::integer, 0);
end $$;

-- pgq.schedule(i_period, i_database) -> bigint
-- Have pg_cron tick: each minute it calls pgq.ticker_loop(). Called again, it changes the period.
-- i_period   seconds between ticks, fractions too
-- i_database which database to tick, where pg_cron lives in this one and skytools (also) in that; null: this one
-- returns    the id of pg_cron's job
-- raises     PQ008  the period is null, or not between 0.01 and 30
-- raises     PQ055  pg_cron is not in this database; the hint says what to run in the one where it is
-- runs as    caller, who needs the rights that pg_cron asks for, and pgq_admin in the database that is ticked
create or replace function pgq.schedule(i_period float8 default 0.5, i_database text default null) returns bigint
language plpgsql as $$
declare
    v_name text := pgq._cron_job(i_database);
    v_command text := pg_catalog.format('call pgq.ticker_loop(i_period => %s)', i_period);
    v_job bigint;
    v_cron text := 'cron'; -- not written out: it may not be there
begin
    if i_period is null or i_period not between 0.01 and 30 then
        raise exception 'Invalid period: % seconds', coalesce(i_period::text, 'NULL')
            using errcode = 'PQ008', hint = 'from 0.01 to 30 seconds: select pgq.schedule(0.5)';
    end if;
    if pg_catalog.to_regproc('cron.schedule') is null then
        raise exception 'pg_cron is not in database %', pg_catalog.current_database()
            using errcode = 'PQ055', hint = pg_catalog.format('in database %s: select cron.schedule_in_database(%L, ''* * * * *'', %L, %L)',
                coalesce(nullif(pg_catalog.current_setting('cron.database_name', true), ''), 'postgres'), v_name, v_command,
                pg_catalog.current_database());
    end if;
    if i_database is null then
        execute pg_catalog.format('select %s.schedule($1::text, $2::text, $3::text)', v_cron) into v_job using v_name, '* * * * *', v_command;
    else
        execute pg_catalog.format('select %s.schedule_in_database($1::text, $2::text, $3::text, $4::text)', v_cron) into v_job
          using v_name, '* * * * *', v_command, i_database;
    end if;
    return v_job;
end $$;

-- pgq.unschedule(i_database) -> integer
-- Take the job of pgq.schedule() away. A call that is running ends within its minute.
-- i_database as in pgq.schedule()
-- returns    1 it was there, 0 there was none
-- raises     PQ055  pg_cron is not in this database
-- runs as    caller
create or replace function pgq.unschedule(i_database text default null) returns integer
language plpgsql as $$
declare
    v_name text := pgq._cron_job(i_database);
    v_job bigint;
    v_cron text := 'cron'; -- not written out: it may not be there
begin
    if pg_catalog.to_regproc('cron.schedule') is null then
        raise exception 'pg_cron is not in database %', pg_catalog.current_database()
            using errcode = 'PQ055', hint = pg_catalog.format('in the database where it is: select cron.unschedule(%L)', v_name);
    end if;
    execute pg_catalog.format('select jobid from %s.job where jobname = $1', v_cron) into v_job using v_name;
    if v_job is null then
        return 0;
    end if;
    execute pg_catalog.format('select %s.unschedule($1)', v_cron) using v_job;
    return 1;
end $$;

-- pgq._cron_job(i_database) -> text
-- The name of pg_cron's job: one for each database that is ticked.
-- runs as    caller
create or replace function pgq._cron_job(i_database text) returns text
language sql stable as $$
    select pg_catalog.format('pgq ticker of %s', coalesce(i_database, pg_catalog.current_database()))
$$;
