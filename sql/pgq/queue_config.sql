-- pgq.set_queue_config(x_queue_name, x_param_name, x_param_value) -> integer
-- Change a setting of a queue.
-- x_param_name  ticker_max_count, ticker_max_lag, ticker_idle_period, ticker_paused, rotation_period or external_ticker
-- x_param_value the value as text, e.g. '500', '3 seconds', 'true'
-- returns    1
-- raises     PQ001  no such queue
-- raises     PQ008  an argument is null, or there is no such parameter
-- raises     22P02, 22007  the value does not fit the parameter's type
-- locks      the queue's row
-- runs as    owner
create or replace function pgq.set_queue_config(x_queue_name text, x_param_name text, x_param_value text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_params text[] := array['ticker_max_count', 'ticker_max_lag', 'ticker_idle_period', 'ticker_paused',
                             'rotation_period', 'external_ticker'];
begin
    if x_queue_name is null or x_param_name is null or x_param_value is null then
        raise exception 'Invalid NULL value: queue %, parameter %, value %',
            coalesce(x_queue_name, 'NULL'), coalesce(x_param_name, 'NULL'), coalesce(x_param_value, 'NULL')
            using errcode = 'PQ008', hint = 'select pgq.set_queue_config(''queue'', ''parameter'', ''value'')';
    end if;
    perform 1 from pgq.queue q where q.queue_name = x_queue_name;
    if not found then
        raise exception 'No such event queue: %', x_queue_name
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    if x_param_name <> all (v_params) then
        raise exception 'cannot change parameter "%"', x_param_name
            using errcode = 'PQ008', hint = 'parameters: ' || array_to_string(v_params, ', ');
    end if;
    execute format('update pgq.queue set %1$I = cast($1 as %2$s) where queue_name = $2', 'queue_' || x_param_name,
                   (select format_type(a.atttypid, a.atttypmod) from pg_attribute a
                     where a.attrelid = 'pgq.queue'::regclass and a.attname = 'queue_' || x_param_name))
      using x_param_value, x_queue_name;
    return 1;
end $$;
