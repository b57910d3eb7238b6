-- The trigger functions hand each row to code that was generated for the trigger. EXECUTE, for the code's name is known at
-- run time only; it holds a single call, so parsing it is short. They are declared stable, as what they generate is, so that
-- expressions in arguments see tables as they were before the statement, and no snapshot is taken for each row.

-- pgq.jsontriga() -> trigger
-- Log each change of a table as an event with the row as JSON.
-- returns    the row, or null with SKIP
-- raises     PQ016  wrong arguments
-- raises     PQ017  changes are denied
-- raises     PQ018  the key is missing, null or changed
-- raises     PQ001, PQ006, PQ007  as pgq.insert_event()
-- runs as    caller, who needs pgq_writer
-- see        docs/triggers.md

-- pgq.logutriga() -> trigger
-- Log each change of a table as an event with the row urlencoded.
-- returns    the row, or null with SKIP
-- raises     PQ001, PQ006, PQ007, PQ016, PQ017, PQ018  as pgq.jsontriga()
-- runs as    caller, who needs pgq_writer
-- see        docs/triggers.md

-- pgq.sqltriga() -> trigger
-- Log each change of a table as an event with a part of an SQL statement that repeats it.
-- returns    the row, or null with SKIP
-- raises     PQ001, PQ006, PQ007, PQ016, PQ017, PQ018  as pgq.jsontriga(); PQ018 also for a null in the key
-- runs as    caller, who needs pgq_writer
-- see        docs/triggers.md
do $do$
declare
    v_name text;
begin
    foreach v_name in array array['jsontriga', 'logutriga', 'sqltriga'] loop
        execute format($create$
create or replace function pgq.%I() returns trigger language plpgsql stable as $function$
declare
    v_code text;
    v_event record;
    v_passes boolean;
begin
    if tg_level = 'ROW' and current_setting('session_replication_role') <> 'local' then
        v_code := 'pgq.trigger_' || tg_relid || '_' || left(md5(tg_name), 12);
        if has_function_privilege(to_regproc(v_code)::oid, 'execute') is not true then
            v_code := pgq._trigger_code(tg_relid, tg_name);
            if not has_function_privilege(v_code::regproc::oid, 'execute') then
                perform pgq.insert_event(null, null, null);
            end if;
        end if;
        execute 'select ' || v_code || '($1, $2, $3)' into v_passes using tg_op, coalesce(new, old), old;
        -- It no longer fits.
        for v_try in 1..2 loop
            exit when v_passes is not null;
            v_code := pgq._trigger_code(tg_relid, tg_name);
            execute 'select ' || v_code || '($1, $2, $3)' into v_passes using tg_op, coalesce(new, old), old;
        end loop;
        if v_passes is null then
            raise exception 'could not serialize access: table %%.%% was altered', tg_table_schema, tg_table_name
                using errcode = '40001', hint = 'run the transaction again';
        elsif not v_passes then
            return null;
        end if;
    elsif current_setting('session_replication_role') <> 'local' then
        select * into v_event from pgq._truncate_event(tg_relid, tg_name, tg_op);
        perform pgq.insert_event(v_event.queue_name, v_event.ev_type, v_event.ev_data, v_event.ev_extra1, null, null, null);
    end if;
    if tg_op = 'DELETE' then
        return old;
    end if;
    return new;
end $function$$create$, v_name);
    end loop;
end $do$;
