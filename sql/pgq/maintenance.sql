-- pgq.maint_tables_to_vacuum() -> setof text
-- Tables that want a VACUUM from outside because the server does none by itself.
-- returns    names; no rows where autovacuum is on
-- runs as    caller
create or replace function pgq.maint_tables_to_vacuum() returns setof text
language sql as $$
    select n.nspname || '.' || c.relname
      from (values ('pgq', 'subscriber'), ('pgq', 'position_epoch'), ('pgq', 'consumer'), ('pgq', 'queue'), ('pgq', 'tick'),
                   ('pgq', 'retry_queue'), ('pgq', 'delayed_event'), ('pgq', 'event_key'), ('pgq', 'dead_letter'), ('pgq', 'consumer_failure'), ('pgq_ext', 'completed_tick'), ('pgq_ext', 'completed_batch'),
                   ('pgq_ext', 'completed_event'), ('pgq_ext', 'partial_batch'), ('pgq_node', 'local_state'),
                   ('londiste', 'seq_info'), ('txid', 'epoch'), ('londiste', 'completed')) as v (schema, name)
      join pg_catalog.pg_namespace n on n.nspname = v.schema
      join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = v.name and c.relkind = 'r'
     where pg_catalog.current_setting('autovacuum') = 'off'
$$;

-- pgq.maint_operations() -> setof record
-- What maintenance has to do now. Call each in a transaction of its own, in this order: select func_name(func_arg), without
-- an argument where func_arg is null, again while it returns other than 0; the names vacuum and vacuum analyze stand for
-- that command on the table func_arg.
-- returns    func_name and func_arg; extra hooks (queue_extra_maint) as they are stored. A daemon that gives up a round at
--            the first failure still gets to all: in every other round that has hooks they come last, and each time another
--            one comes first
-- runs as    owner
create or replace function pgq.maint_operations(out func_name text, out func_arg text) returns setof record
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_rotates boolean;
    v_hooks text[][];
    v_count integer;
    v_round bigint := 0;
begin
    func_name := 'pgq.maint_rotate_tables_step1';
    for func_arg in
        select q.queue_name from pgq.queue q
         where q.queue_switch_step2 is not null
           and q.queue_switch_time + q.queue_rotation_period < current_timestamp
         order by q.queue_name
    loop
        v_rotates := true;
        return next;
    end loop;
    if v_rotates or exists (select from pgq.queue q where q.queue_switch_step2 is null) then
        func_name := 'pgq.maint_rotate_tables_step2';
        func_arg := null;
        return next;
    end if;
    -- The current slot of the position log is worth leaving when it holds some thousand rows.
    if exists (select from pgq.position_epoch e where pg_relation_size(format('pgq.position_%s', e.epoch % 3)::regclass) > 1048576) then
        func_name := 'pgq.maint_rotate_positions';
        func_arg := null;
        return next;
    end if;
    if exists (select from pgq.event_key k where k.until <= now()) then
        func_name := 'pgq.maint_expire_keys';
        func_arg := null;
        return next;
    end if;

    select array_agg(array[h.hook, q.queue_name] order by q.queue_name, h.n), count(*) into v_hooks, v_count
      from pgq.queue q cross join lateral unnest(q.queue_extra_maint) with ordinality h (hook, n);
    if v_count > 0 then
        v_round := nextval('pgq.maint_round_seq') - 1;
    end if;
    for v_part in 0..1 loop
        if v_part = v_round % 2 then
            for v_n in 0 .. v_count - 1 loop
                func_name := v_hooks[(v_n + v_round / 2) % v_count + 1][1];
                func_arg := v_hooks[(v_n + v_round / 2) % v_count + 1][2];
                return next;
            end loop;
        else
            return query select 'vacuum', t from pgq.maint_tables_to_vacuum() t;
            return query select * from pgq._maint_other_schemas();
        end if;
    end loop;
end $$;

-- pgq._maint_other_schemas() -> setof record
-- What cascaded queues and replication have to do, where those are installed.
-- returns    as pgq.maint_operations()
-- runs as    caller, within a security definer function
create or replace function pgq._maint_other_schemas(out func_name text, out func_arg text) returns setof record
language plpgsql as $$
begin
    if to_regprocedure('pgq_node.maint_watermark(text)') is not null then
        return query execute 'select ''pgq_node.maint_watermark'', queue_name from pgq_node.node_info where node_type = ''root'' order by 2';
    end if;
    if to_regprocedure('londiste.root_check_seqs(text)') is not null then
        return query execute 'select distinct ''londiste.root_check_seqs'', s.queue_name from londiste.seq_info s
            join pgq_node.node_info n on n.queue_name = s.queue_name where s.local and n.node_type = ''root'' order by 2';
    end if;
    if to_regprocedure('londiste.periodic_maintenance()') is not null then
        return query select 'londiste.periodic_maintenance', null::text;
    end if;
end $$;

-- pgq.upgrade_schema() -> integer
-- Create the roles that are missing (pgq_reader, pgq_writer, pgq_admin) and give them and PUBLIC their privileges. The
-- install calls it; call it again when roles could not be created then, or privileges were lost. Without the right to
-- create roles it warns, and goes on without those that are missing. Sees to the schemas pgq_coop, pgq_ext and skytools too.
-- returns    0
-- runs as    caller, who must own the schema
create or replace function pgq.upgrade_schema() returns integer
language plpgsql as $$
declare
    v_role text;
begin
    foreach v_role in array array['pgq_reader', 'pgq_writer', 'pgq_admin'] loop
        if pg_catalog.to_regrole(v_role) is null then
            begin
                execute pg_catalog.format('create role %I', v_role);
                if v_role = 'pgq_admin' then
                    execute 'grant pgq_reader, pgq_writer to pgq_admin';
                end if;
            exception
                when duplicate_object or unique_violation then
                    null; -- an install in another database of this cluster was faster
                when insufficient_privilege or undefined_object then
                    raise warning 'role % was not created: %', v_role, sqlerrm
                        using hint = 'let a role with CREATEROLE create pgq_reader, pgq_writer and pgq_admin (a member of both), then: select pgq.upgrade_schema()';
            end;
        end if;
    end loop;
    perform pgq._grant_all();
    if pg_catalog.to_regprocedure('skytools.upgrade_schema()') is not null then
        execute 'select skytools.upgrade_schema()';
    end if;
    if pg_catalog.to_regprocedure('pgq_coop.upgrade_schema()') is not null then
        execute 'select pgq_coop.upgrade_schema()';
    end if;
    if pg_catalog.to_regprocedure('pgq_ext.upgrade_schema()') is not null then
        execute 'select pgq_ext.upgrade_schema()';
    end if;
    return 0;
end $$;
