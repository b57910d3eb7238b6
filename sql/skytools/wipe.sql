-- skytools.wipe_list(i_queue_pattern) -> setof record
-- What skytools.wipe() would drop.
-- i_queue_pattern queues whose names are like it; % stands for any text, _ for any character, \ before them for themselves
-- returns    kind (capture, subconsumer, consumer, queue), queue and name, in the order in which they go
-- runs as    owner
create or replace function skytools.wipe_list(i_queue_pattern text default '%', out kind text, out queue text, out name text)
returns setof record
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    return query select 'capture', c.queue_name, c.table_name from pgq.captured_table c where c.queue_name like i_queue_pattern order by 2, 3;
    return query
    select case when s.sub_key > min(s.sub_key) over (partition by s.sub_id) then 'subconsumer' else 'consumer' end,
           q.queue_name, c.co_name
      from pgq.queue q
      join pgq.subscriber s on s.sub_queue = q.queue_id
      join pgq.consumer c on c.co_id = s.sub_consumer
     where q.queue_name like i_queue_pattern
     order by 1 desc, 2, 3;
    return query select 'queue', q.queue_name, q.queue_name from pgq.queue q where q.queue_name like i_queue_pattern order by 2;
end $$;

-- skytools.wipe(i_queue_pattern, i_database, i_lock_timeout) -> setof record
-- Drop queues with all that belongs to them: events, captures, consumers, subconsumers and their open batches. All or nothing.
-- Producers and consumers may be connected: they are told that there is no such queue.
-- i_queue_pattern queues whose names are like it; '%' is all
-- i_database the name of this database, needed where it is protected (skytools.protect())
-- i_lock_timeout how long to wait for transactions that are using the queues
-- returns    what was dropped, as skytools.wipe_list() gives it
-- raises     PQ021  the database is protected
-- raises     PQ022  somebody has been using the queues for longer than i_lock_timeout: who it is
-- raises     PQ023  i_database is the name of another database
-- locks      the set of queues, and all their tables ACCESS EXCLUSIVE, to the end of the transaction
-- runs as    owner; needs EXECUTE (pgq_admin)
create or replace function skytools.wipe(
    i_queue_pattern text default '%', i_database text default null, i_lock_timeout interval default '5 seconds',
    out kind text, out queue text, out name text)
returns setof record
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_timeout text := current_setting('lock_timeout');
    v_queue pgq.queue;
    v_holders text;
begin
    perform skytools.refuse_protected('wipe', i_database);
    perform set_config('lock_timeout', greatest(1, extract(epoch from i_lock_timeout) * 1000)::bigint || 'ms', true);
    begin
        perform pgq._lock_queue_set();
        for v_queue in select * from pgq.queue q where q.queue_name like i_queue_pattern order by q.queue_id for update loop
            execute format('lock table pgq.event_%s in access exclusive mode', v_queue.queue_id);
        end loop;
    exception
        when lock_not_available then
            select string_agg(format('session %s (%s%s, %s since %s)', a.pid, a.usename, ', ' || nullif(a.application_name, ''), a.state,
                                     to_char(a.xact_start, 'HH24:MI:SS')), '; ') into v_holders
              from pg_stat_activity a
             where a.pid <> pg_backend_pid()
               and exists (select from pg_locks l
                            where l.pid = a.pid and l.granted and l.database = (select d.oid from pg_database d where d.datname = current_database())
                              and (l.locktype = 'advisory' and l.classid = 'pgq.queue'::regclass
                                   or l.relation = any (array(select i.inhrelid from pg_inherits i join pgq.queue q on i.inhparent = q.queue_data_pfx::regclass
                                                               where q.queue_name like i_queue_pattern))));
            raise exception 'queues like % are in use: %', quote_literal(i_queue_pattern), coalesce(v_holders, 'by a session that is not there any more')
                using errcode = 'PQ022',
                      hint = 'let it end its transaction, or end it: select pg_terminate_backend(pid); or wait longer: i_lock_timeout, --lock-timeout';
    end;
    perform set_config('lock_timeout', v_timeout, true);

    return query select * from skytools.wipe_list(i_queue_pattern);
    -- The code that finds queues by name is made once, at the end.
    perform set_config('skytools.keep_code', 'on', true);
    perform pgq.drop_queue(q.queue_name, true) from pgq.queue q where q.queue_name like i_queue_pattern order by q.queue_id;
    perform set_config('skytools.keep_code', '', true);
    perform pgq._make_insert_event();
end $$;

-- skytools.upgrade_schema() -> integer
-- Give the functions their privileges: operators' to pgq_admin, questions to PUBLIC. The install calls it; call it again when
-- the roles did not exist then (see pgq.upgrade_schema()).
-- returns    0
-- runs as    caller, who must own the schema
create or replace function skytools.upgrade_schema() returns integer
language plpgsql as $$
begin
    revoke all on function skytools.protect(text), skytools.unprotect(), skytools.wipe_list(text), skytools.wipe(text, text, interval),
        skytools.upgrade_schema() from public;
    if pg_catalog.to_regrole('pgq_admin') is not null then
        grant usage on schema skytools to pgq_admin;
        grant execute on function skytools.protect(text), skytools.unprotect(), skytools.wipe_list(text),
            skytools.wipe(text, text, interval) to pgq_admin;
    end if;
    return 0;
end $$;

select skytools.upgrade_schema();
