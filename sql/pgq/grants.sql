-- pgq._grant_all() -> void
-- The one table of privileges: who may do what in schema pgq. Roles that do not exist are passed over.
-- runs as    caller, who must own the schema
create or replace function pgq._grant_all() returns void
language plpgsql as $$
declare
    v_role text;
    v_function record;
begin
    grant select on pgq.consumer, pgq.queue, pgq.tick, pgq.subscriber, pgq.subscription, pgq.paused_consumer, pgq.captured_table, pgq.queue_option to public;
    foreach v_role in array array['pgq_reader', 'pgq_admin'] loop
        if pg_catalog.to_regrole(v_role) is not null then
            execute pg_catalog.format('grant select on pgq.consumer, pgq.queue, pgq.tick, pgq.subscription, pgq.event_template, pgq.dead_letter, pgq.consumer_failure to %I', v_role);
        end if;
    end loop;
    if pg_catalog.to_regrole('pgq_admin') is not null then
        grant insert, update, delete on pgq.consumer, pgq.queue, pgq.tick, pgq.subscription to pgq_admin;
        grant select, insert, update, delete on pgq.retry_queue, pgq.dead_letter, pgq.delayed_event, pgq.event_key to pgq_admin;
        grant insert, truncate on pgq.event_template to pgq_admin;
    end if;

    for v_function in
        select p.oid::pg_catalog.regprocedure as name, p.proname,
               case when g.roles is not null then g.roles
                    when p.proname like any (array['\_%', 'event\_%\_insert', 'event\_%\_insert\_many', 'event\_%\_slot', 'event\_%\_admit', 'event\_%\_newer']) then '{}'
                    else '{pgq_admin}' end as roles
          from pg_catalog.pg_proc p
          left join (values
            -- information, and what the view pgq.subscription is made of
            ('{version,get_queue_info,get_consumer_info,quote_fqname,seq_getval,_position}'::text[], '{public}'::text[]),
            -- what a trigger calls as whoever writes its table
            ('{_shape,_capture_statement,_urlencode,_null_key,_one_value,_condition_holds,_trigger_shape,_trigger_code,_truncate_event}', '{public}'),
            -- producing
            ('{insert_event,insert_events,insert_json,insert_event_at,cancel_event_at,insert_event_once,current_event_table,
               jsontriga,logutriga,sqltriga}', '{pgq_writer}'),
            -- subscribing and consuming
            ('{register_consumer,register_consumer_at,unregister_consumer,force_tick,next_batch,next_batch_info,next_batch_custom,
               find_tick_helper,_event_table,get_batch_info,get_batch_events,get_batch_json,get_batch_cursor,batch_event_sql,
               batch_event_tables,_open_batch,_batch_query,_find_batch,event_retry,batch_retry,event_dead,finish_batch,
               pause_consumer,resume_consumer,seek_consumer,note_failure,clear_failure}', '{pgq_reader}'),
            -- administration is the rest, and this one
            ('{_grant_perms_from,_store_capture,_drop_capture,_refresh_captures,_capture_triggers}', '{pgq_admin}')
          ) as g (functions, roles) on p.proname = any (g.functions)
         where p.pronamespace = 'pgq'::pg_catalog.regnamespace and p.prokind in ('f', 'p') and p.proname !~ '^trigger_[0-9]+_'
         order by p.oid
    loop
        if v_function.roles <> '{public}' then
            execute pg_catalog.format('revoke all on routine %s from public', v_function.name);
        end if;
        foreach v_role in array v_function.roles loop
            if v_role = 'public' or pg_catalog.to_regrole(v_role) is not null then
                execute pg_catalog.format('grant execute on routine %s to %s', v_function.name, v_role);
            end if;
        end loop;
    end loop;
    perform pgq.grant_perms(q.queue_name) from pgq.queue q;
    perform pgq._grant_trigger_code(p.oid::pg_catalog.regproc) from pg_catalog.pg_proc p
      where p.pronamespace = 'pgq'::pg_catalog.regnamespace and p.proname ~ '^trigger_[0-9]+_';
end $$;

select pgq.upgrade_schema();
