-- Rows that are done with move to another table, a chunk a transaction, so that no lock is held for long and no replica is
-- left behind.

-- skytools.archive_chunk(source, target, condition, chunk, order_by) -> bigint
-- Move some rows of a table to another by one statement: DELETE ... RETURNING into INSERT.
-- source     the table, or partitioned table, that they leave
-- target     the one they go to. It has all columns of the source; those it has besides take their defaults
-- condition  which rows: SQL over the source's columns, run with the caller's rights; never build it from data. An index that
--            serves it keeps later chunks as fast as the first
-- chunk      how many at most
-- order_by   which first: SQL, such as 'created_at'; default: as they are found
-- returns    how many were moved; 0: none is left
-- raises     PQ024  an argument is wrong: the target lacks a column, the source is no table
-- raises     PQ024  there are rows, but none can be deleted
-- locks      the rows; one that another transaction changes meanwhile is left for the next chunk. An advisory lock for the
--            source: one chunk at a time
-- runs as    caller
-- see        docs/batch-updates.md
create or replace function skytools.archive_chunk(
    source regclass, target regclass, condition text default 'true', chunk integer default 10000, order_by text default null) returns bigint
language plpgsql as $$
#variable_conflict use_variable
declare
    v_sql text := skytools._archive_sql(source, target, condition, chunk, order_by);
    v_found bigint;
    v_moved bigint;
begin
    -- Two archives of a table would meet the same rows, in other orders where one has been changed.
    perform pg_advisory_xact_lock(hashtextextended('skytools.archive ' || source::oid, 0));
    -- All rows that were found may have been changed since, by others.
    for v_try in 1..10 loop
        execute v_sql into v_found, v_moved;
        if v_moved > 0 or v_found = 0 then
            return v_moved;
        end if;
    end loop;
    raise exception 'archive of %: % rows are to be moved, and none can be deleted', source, v_found
        using errcode = 'PQ024', hint = 'a trigger of the table keeps them, or other transactions change them again and again';
end $$;

-- skytools._archive_sql(i_source, i_target, i_condition, i_chunk, i_order_by) -> text
-- The statement that moves a chunk. It gives how many rows were found, and how many moved.
-- raises     PQ024  as skytools.archive_chunk()
-- runs as    caller
create or replace function skytools._archive_sql(i_source regclass, i_target regclass, i_condition text, i_chunk integer, i_order_by text) returns text
language plpgsql stable as $$
declare
    v_kind "char" := (select c.relkind from pg_catalog.pg_class c where c.oid = i_source);
    v_columns text[];
    v_lacking text;
begin
    if i_source is null or i_target is null or i_source = i_target then
        raise exception 'archive of % to %: two tables are needed', coalesce(i_source::text, 'NULL'), coalesce(i_target::text, 'NULL')
            using errcode = 'PQ024', hint = 'call skytools.archive(''app.orders'', ''app.orders_archive'', ''done_at < now() - interval ''''90 days'''''')';
    elsif coalesce(i_chunk, 0) < 1 or coalesce(i_condition, '') = '' then
        raise exception 'archive of %: chunk is %, condition is %', i_source, quote_nullable(i_chunk), quote_nullable(i_condition)
            using errcode = 'PQ024', hint = 'a chunk has at least one row, and the condition is SQL over the columns: ''true'' for all rows';
    elsif v_kind not in ('r', 'p') or (v_kind = 'r' and not skytools._batch_is_plain(i_source)) then
        raise exception 'archive of %: not a table, or one that others inherit from', i_source
            using errcode = 'PQ024', hint = 'archive each table by itself; partitioned tables can be archived as they are';
    end if;
    select array_agg(quote_ident(s.attname) order by s.attnum) filter (where t.attgenerated = ''),
           string_agg(quote_ident(s.attname), ', ' order by s.attnum) filter (where t.attname is null and s.attgenerated = '')
      into v_columns, v_lacking
      from pg_catalog.pg_attribute s
      left join pg_catalog.pg_attribute t on t.attrelid = i_target and t.attname = s.attname and t.attnum > 0 and not t.attisdropped
     where s.attrelid = i_source and s.attnum > 0 and not s.attisdropped;
    if v_lacking is not null or v_columns is null then
        raise exception 'archive of %: table % has no column %', i_source, i_target, coalesce(v_lacking, 'of it')
            using errcode = 'PQ024', hint = 'the target has each column of the source: create table ... (like ... including defaults)';
    end if;
    return format($sql$
        with "#p" as materialized (select t.tableoid as r, t.ctid as c from %1$s t where (%2$s) %3$s limit %4$s),
             "#d" as (delete from %1$s t where t.ctid = any (array(select p.c from "#p" p)) %5$s returning %6$s),
             "#i" as (insert into %7$s (%8$s) overriding system value select * from "#d")
        select (select count(*) from "#p"), (select count(*) from "#d")$sql$,
        i_source, i_condition, case when i_order_by is not null then 'order by ' || i_order_by else '' end, i_chunk,
        -- Places are those within a partition.
        case when v_kind = 'p' then 'and (t.tableoid, t.ctid) in (select p.r, p.c from "#p" p)' else '' end,
        (select string_agg('t.' || c, ', ' order by n) from unnest(v_columns) with ordinality u (c, n)), i_target, array_to_string(v_columns, ', '));
end $$;

-- skytools.replica_lag() -> bigint
-- How far the replica that lags most is behind, in bytes of WAL, as far as replicas are connected: physical and logical ones.
-- returns    null without replicas
-- raises     42501  the caller may not see it: grant pg_monitor
-- runs as    caller
create or replace function skytools.replica_lag() returns bigint
language plpgsql volatile as $$
begin
    if exists (select from pg_catalog.pg_stat_replication r where r.state is null) then
        raise exception 'permission denied to see how far replicas are behind'
            using errcode = 'insufficient_privilege', hint = format('grant pg_monitor to %I', current_user);
    end if;
    -- What receives WAL without replaying it, such as pg_receivewal, tells what it has written.
    return (select max(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), coalesce(r.replay_lsn, r.flush_lsn, r.write_lsn, r.sent_lsn)))
              from pg_catalog.pg_stat_replication r);
end $$;

-- skytools.archive(source, target, condition, chunk, order_by, pause, max_lag, moved) -> record
-- Move all rows of a condition to another table, in chunks, each in its own transaction.
-- source     and target, condition, chunk, order_by: as in skytools.archive_chunk()
-- pause      how long to wait between chunks
-- max_lag    wait while a replica lags more bytes than this behind; null: do not look
-- returns    moved: how many rows were moved
-- raises     PQ024  as skytools.archive_chunk()
-- raises     2D000  called within a transaction: use skytools.archive_chunk()
-- raises     42501  with max_lag, the caller may not see how far replicas are behind
-- locks      rows, for as long as a chunk takes
-- runs as    caller
-- see        docs/batch-updates.md
create or replace procedure skytools.archive(
    source regclass, target regclass, condition text default 'true', chunk integer default 10000, order_by text default null,
    pause interval default '0', max_lag bigint default null, inout moved bigint default 0)
language plpgsql as $$
#variable_conflict use_variable
declare
    v_moved bigint;
    v_next timestamptz := clock_timestamp();
begin
    moved := 0;
    loop
        -- A wait must not hold a snapshot, or not for long.
        while clock_timestamp() < v_next or (max_lag is not null and skytools.replica_lag() > max_lag) loop
            perform pg_catalog.pg_sleep(case when v_next between clock_timestamp() and clock_timestamp() + interval '0.1 seconds' then extract(epoch from v_next - clock_timestamp()) else 0.1 end);
            commit;
        end loop;
        v_moved := skytools.archive_chunk(source, target, condition, chunk, order_by);
        commit;
        exit when v_moved = 0;
        moved := moved + v_moved;
        v_next := clock_timestamp() + pause;
    end loop;
end $$;
