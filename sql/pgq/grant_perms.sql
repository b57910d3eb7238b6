-- pgq._grant_perms_from(src_schema, src_table, dst_schema, dst_table) -> integer
-- Copy the table privileges of one table, with their grant options, to another; those of the owner are left out.
-- returns    1; null when an argument is null
-- runs as    caller, who must own the second table
create or replace function pgq._grant_perms_from(src_schema text, src_table text, dst_schema text, dst_table text)
returns integer
language plpgsql strict as $$
declare
    v_grant record;
begin
    for v_grant in
        select a.privilege_type, a.is_grantable,
               case when a.grantee = 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) end as grantee
          from pg_catalog.pg_class c
          join pg_catalog.pg_namespace n on n.oid = c.relnamespace
         cross join lateral pg_catalog.aclexplode(c.relacl) a
         where n.nspname = src_schema and c.relname = src_table and a.grantee <> c.relowner
           and a.privilege_type in ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER')
         order by 3, 1
    loop
        execute pg_catalog.format('grant %s on table %I.%I to %s%s', v_grant.privilege_type, dst_schema, dst_table,
                                  v_grant.grantee, case when v_grant.is_grantable then ' with grant option' else '' end);
    end loop;
    return 1;
end $$;

-- pgq.grant_perms(x_queue_name) -> integer
-- Give a queue's tables the privileges of pgq.event_template, and its sequences those of every queue.
-- returns    1
-- raises     PQ001  no such queue
-- runs as    owner
create or replace function pgq.grant_perms(x_queue_name text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
    v_table text;
begin
    select * into v_queue from pgq.queue q where q.queue_name = x_queue_name;
    if not found then
        raise exception 'Queue not found: %', coalesce(x_queue_name, 'NULL')
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    v_table := format('event_%s', v_queue.queue_id);
    execute format('grant select on sequence pgq.%1$I_id_seq, pgq.%1$I_tick_seq to public', v_table);
    if to_regrole('pgq_admin') is not null then
        execute format('grant usage on sequence pgq.%I_id_seq to pgq_admin', v_table);
    end if;
    perform pgq._grant_perms_from('pgq', 'event_template', 'pgq', v_table);
    for v_slot in 0 .. v_queue.queue_ntables - 1 loop
        perform pgq._grant_perms_from('pgq', 'event_template', 'pgq', format('%s_%s', v_table, v_slot));
    end loop;
    return 1;
end $$;

-- pgq.tune_storage(i_queue_name) -> integer
-- Set storage parameters that suit event tables: they are only inserted into and truncated, so there is nothing to vacuum.
-- returns    1; 0 no such queue; null for null
-- locks      the event tables SHARE UPDATE EXCLUSIVE
-- runs as    caller, who must own the tables
create or replace function pgq.tune_storage(i_queue_name text) returns integer
language plpgsql strict as $$
declare
    v_queue pgq.queue;
begin
    select * into v_queue from pgq.queue q where q.queue_name = i_queue_name;
    if not found then
        return 0;
    end if;
    for v_slot in 0 .. v_queue.queue_ntables - 1 loop
        execute pg_catalog.format('alter table %s set (fillfactor = 100, autovacuum_enabled = off, toast.autovacuum_enabled = off)',
                                  pgq._event_table(v_queue.queue_id, v_slot));
    end loop;
    return 1;
end $$;
