-- skytools._batch(i_kind, i_target, i_source, i_on_missing, i_timeout, i_options) -> record
-- Run the statement that skytools._batch_sql() writes, as its concurrency asks for.
-- raises     PQ024, PQ025, PQ027  as skytools._batch_sql()
-- raises     PQ026  a row is missing in the target, and i_on_missing is error
-- raises     PQ028  the lock was not granted in time
-- runs as    caller
create or replace function skytools._batch(
    i_kind text, i_target regclass, i_source text, i_on_missing text, i_timeout interval, i_options jsonb,
    out inserted bigint, out updated bigint, out unchanged bigint, out deleted bigint, out missing bigint, out rows jsonb)
language plpgsql set jit = off set work_mem = '64MB' as $$
declare
    v_source text := skytools._batch_source(i_source);
    v_sql text;
    v_try integer := 0;
    v_before text;
begin
    if coalesce(i_on_missing, '') not in ('ignore', 'error', 'insert') or (i_on_missing = 'insert' and i_kind = 'delete') then
        raise exception 'batch % of %: on_missing is %', i_kind, i_target, quote_nullable(i_on_missing)
            using errcode = 'PQ024', hint = 'on_missing: ignore, error, or insert for an update';
    end if;
    v_sql := skytools._batch_sql(case when i_on_missing = 'insert' then 'upsert' else i_kind end, i_target, v_source,
                                 skytools._batch_columns(v_source),
                                 -- A query has joins of its own, which want to be planned freely.
                                 i_options || jsonb_build_object('ordered', v_source !~ '^\(' and skytools._batch_is_plain(v_source::regclass)));
    if i_options->>'concurrency' = 'lock' then
        v_before := current_setting('lock_timeout');
        perform set_config('lock_timeout', (extract(epoch from i_timeout) * 1000)::bigint::text, true);
        begin
            execute format('lock table %s in share row exclusive mode', i_target);
        exception when lock_not_available then
            raise exception 'batch % of %: another transaction held the table for longer than %', i_kind, i_target, i_timeout
                using errcode = 'PQ028', hint = 'try again, or wait longer: timeout => ''1 minute''';
        end;
        perform set_config('lock_timeout', v_before, true);
    end if;
    if i_options->>'concurrency' = 'retry' then
        loop
            begin
                select * into inserted, updated, unchanged, deleted, missing, rows from skytools._batch_run(v_sql);
                exit;
            exception when unique_violation or deadlock_detected or serialization_failure then
                v_try := v_try + 1;
                -- With a fixed snapshot a second look finds what the first found.
                if v_try > 9 or current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
                    raise;
                end if;
            end;
        end loop;
    else
        select * into inserted, updated, unchanged, deleted, missing, rows from skytools._batch_run(v_sql);
    end if;
    if i_on_missing = 'error' and missing > 0 then
        raise exception 'batch % of %: % of the source''s rows are not in the target', i_kind, i_target, missing
            using errcode = 'PQ026', hint = 'nothing was changed; on_missing => ''ignore'' leaves them out';
    end if;
end $$;

-- skytools._batch_run(i_sql) -> record
-- Run a statement of skytools._batch_sql(), an ordered one in the order of its keys.
-- raises     as the statement
-- runs as    caller
create or replace function skytools._batch_run(
    i_sql text,
    out inserted bigint, out updated bigint, out unchanged bigint, out deleted bigint, out missing bigint, out rows jsonb)
language plpgsql as $$
begin
    if i_sql like '/* ordered%' then
        select * into inserted, updated, unchanged, deleted, missing, rows from skytools._batch_ordered(i_sql);
    else
        execute i_sql into inserted, updated, unchanged, deleted, missing, rows;
    end if;
end $$;

-- skytools._batch_source(i_source) -> text
-- A source as a FROM item: a query in parentheses, or a table's quoted name.
-- runs as    caller
create or replace function skytools._batch_source(i_source text) returns text
language plpgsql stable as $$
begin
    if i_source ~* '^\s*(\(|(select|with|values|table)\M)' then
        return format(E'(%s\n)', i_source);
    elsif to_regclass(i_source) is null then
        raise exception 'no such source: %', coalesce(i_source, 'NULL')
            using errcode = 'PQ024', hint = 'a source is a table''s name, or a query such as ''select id, name from ...''';
    end if;
    return (select format('%I.%I', n.nspname, c.relname)
              from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
             where c.oid = to_regclass(i_source));
end $$;

-- skytools._batch_columns(i_source) -> text[]
-- The columns of a FROM item, without running it.
-- runs as    caller
create or replace function skytools._batch_columns(i_source text) returns text[]
language plpgsql stable as $$
declare
    v_row json;
begin
    execute format('select row_to_json(y) from (select x.* from (select 1) one left join (select * from %s q limit 0) x on true) y', i_source)
       into v_row;
    return array(select json_object_keys(v_row));
end $$;

-- skytools.batch_update(target, source, ...) -> record
-- Update the rows of a table that a source names by key, in one statement.
-- target     the table, partitioned table or view
-- source     a table, temporary or not, or as text a query
-- key        the columns that identify a row; default: the primary key. A null in them equals nothing, unless the unique
--            index on them says nulls not distinct
-- columns    the columns to set; default: all that both have, generated ones aside
-- set        expressions for columns, over t (the row there is) and s (the source's): '{"n": "t.n + s.n"}'. They are SQL
--            and run with the caller's rights: never build them from data
-- fold       of rows with one key: error, last (take the last one) or first
-- aggregates fold columns by an aggregate instead: '{"n": "sum"}', or an expression over s; the other columns take the last
-- order_by   the column that says which row is the last; default: the order in which the source gives them
-- on_missing what to do with rows that the target lacks: ignore, error or insert
-- concurrency 'on conflict': row locks in key order, and the unique index on the key decides what is inserted; 'lock': the
--            table is locked against all other writers; 'retry': tried again when another transaction came first
-- timeout    how long to wait for that lock of the table
-- rewrite    write rows that would stay as they are, too
-- return_rows give the rows that were changed
-- returns    one row of counts; rows: null, or with return_rows a JSON array of {"action": "update", "row": {...}}
-- raises     PQ024  an argument is wrong: no such column, no primary key, an unknown word
-- raises     PQ025  the source repeats a key, and fold is error
-- raises     PQ026  the target lacks a row, and on_missing is error
-- raises     PQ027  no unique index on the key, and concurrency is on conflict
-- raises     PQ028  the lock was not granted in time
-- locks      the rows, in the order of their keys; with 'lock' the table SHARE ROW EXCLUSIVE
-- runs as    caller
-- see        docs/batch-updates.md
create or replace function skytools.batch_update(
    target regclass, source text, key text[] default null,
    columns text[] default null, set jsonb default '{}',
    fold text default 'error', aggregates jsonb default '{}', order_by text default null, on_missing text default 'ignore',
    concurrency text default 'on conflict', timeout interval default '10 seconds', rewrite boolean default false, return_rows boolean default false,
    out inserted bigint, out updated bigint, out unchanged bigint, out deleted bigint, out missing bigint, out rows jsonb)
language sql as $$
    select b.inserted, b.updated, b.unchanged, b.deleted, b.missing, b.rows
      from skytools._batch('update', batch_update.target, batch_update.source, batch_update.on_missing, batch_update.timeout,
                           jsonb_build_object('key', batch_update.key, 'columns', batch_update.columns, 'set', batch_update.set, 'fold', batch_update.fold, 'aggregates', batch_update.aggregates, 'order_by', batch_update.order_by, 'concurrency', batch_update.concurrency, 'rewrite', batch_update.rewrite, 'return_rows', batch_update.return_rows)) b
$$;

create or replace function skytools.batch_update(
    target regclass, source regclass, key text[] default null,
    columns text[] default null, set jsonb default '{}',
    fold text default 'error', aggregates jsonb default '{}', order_by text default null, on_missing text default 'ignore',
    concurrency text default 'on conflict', timeout interval default '10 seconds', rewrite boolean default false, return_rows boolean default false,
    out inserted bigint, out updated bigint, out unchanged bigint, out deleted bigint, out missing bigint, out rows jsonb)
language sql as $$
    select b.inserted, b.updated, b.unchanged, b.deleted, b.missing, b.rows
      from skytools._batch('update', batch_update.target, batch_update.source::text, batch_update.on_missing, batch_update.timeout,
                           jsonb_build_object('key', batch_update.key, 'columns', batch_update.columns, 'set', batch_update.set, 'fold', batch_update.fold, 'aggregates', batch_update.aggregates, 'order_by', batch_update.order_by, 'concurrency', batch_update.concurrency, 'rewrite', batch_update.rewrite, 'return_rows', batch_update.return_rows)) b
$$;

-- skytools.batch_upsert(target, source, ...) -> record
-- Update the rows of a table that a source names by key, and insert those that are not there, in one statement.
-- target     the table, partitioned table or view
-- source     a table, temporary or not, or as text a query
-- key        the columns that identify a row; default: the primary key. A null in them equals nothing, unless the unique
--            index on them says nulls not distinct
-- columns    the columns to set; default: all that both have, generated ones aside
-- set        expressions for columns, over t (the row there is) and s (the source's): '{"n": "t.n + s.n"}'. They are SQL
--            and run with the caller's rights: never build them from data
-- fold       of rows with one key: error, last (take the last one) or first
-- aggregates fold columns by an aggregate instead: '{"n": "sum"}', or an expression over s; the other columns take the last
-- order_by   the column that says which row is the last; default: the order in which the source gives them
-- concurrency 'on conflict': row locks in key order, and the unique index on the key decides what is inserted; 'lock': the
--            table is locked against all other writers; 'retry': tried again when another transaction came first
-- timeout    how long to wait for that lock of the table
-- rewrite    write rows that would stay as they are, too
-- return_rows give the rows that were changed
-- returns    one row of counts; rows: null, or with return_rows a JSON array of {"action": "update", "row": {...}}
-- raises     PQ024  an argument is wrong: no such column, no primary key, an unknown word
-- raises     PQ025  the source repeats a key, and fold is error
-- raises     PQ027  no unique index on the key, and concurrency is on conflict
-- raises     PQ028  the lock was not granted in time
-- locks      the rows, in the order of their keys; with 'lock' the table SHARE ROW EXCLUSIVE
-- runs as    caller
-- see        docs/batch-updates.md
create or replace function skytools.batch_upsert(
    target regclass, source text, key text[] default null,
    columns text[] default null, set jsonb default '{}',
    fold text default 'error', aggregates jsonb default '{}', order_by text default null,
    concurrency text default 'on conflict', timeout interval default '10 seconds', rewrite boolean default false, return_rows boolean default false,
    out inserted bigint, out updated bigint, out unchanged bigint, out deleted bigint, out missing bigint, out rows jsonb)
language sql as $$
    select b.inserted, b.updated, b.unchanged, b.deleted, b.missing, b.rows
      from skytools._batch('upsert', batch_upsert.target, batch_upsert.source, 'ignore', batch_upsert.timeout,
                           jsonb_build_object('key', batch_upsert.key, 'columns', batch_upsert.columns, 'set', batch_upsert.set, 'fold', batch_upsert.fold, 'aggregates', batch_upsert.aggregates, 'order_by', batch_upsert.order_by, 'concurrency', batch_upsert.concurrency, 'rewrite', batch_upsert.rewrite, 'return_rows', batch_upsert.return_rows)) b
$$;

create or replace function skytools.batch_upsert(
    target regclass, source regclass, key text[] default null,
    columns text[] default null, set jsonb default '{}',
    fold text default 'error', aggregates jsonb default '{}', order_by text default null,
    concurrency text default 'on conflict', timeout interval default '10 seconds', rewrite boolean default false, return_rows boolean default false,
    out inserted bigint, out updated bigint, out unchanged bigint, out deleted bigint, out missing bigint, out rows jsonb)
language sql as $$
    select b.inserted, b.updated, b.unchanged, b.deleted, b.missing, b.rows
      from skytools._batch('upsert', batch_upsert.target, batch_upsert.source::text, 'ignore', batch_upsert.timeout,
                           jsonb_build_object('key', batch_upsert.key, 'columns', batch_upsert.columns, 'set', batch_upsert.set, 'fold', batch_upsert.fold, 'aggregates', batch_upsert.aggregates, 'order_by', batch_upsert.order_by, 'concurrency', batch_upsert.concurrency, 'rewrite', batch_upsert.rewrite, 'return_rows', batch_upsert.return_rows)) b
$$;

-- skytools.batch_delete(target, source, ...) -> record
-- Delete the rows of a table that a source names by key, in one statement.
-- target     the table, partitioned table or view
-- source     a table, temporary or not, or as text a query
-- key        the columns that identify a row; default: the primary key. A null in them equals nothing, unless the unique
--            index on them says nulls not distinct
-- fold       of rows with one key: error, last (take the last one) or first
-- aggregates fold columns by an aggregate instead: '{"n": "sum"}', or an expression over s; the other columns take the last
-- order_by   the column that says which row is the last; default: the order in which the source gives them
-- on_missing what to do with rows that the target lacks: ignore or error
-- concurrency 'on conflict': row locks in key order, and the unique index on the key decides what is inserted; 'lock': the
--            table is locked against all other writers; 'retry': tried again when another transaction came first
-- timeout    how long to wait for that lock of the table
-- return_rows give the rows that were changed
-- returns    one row of counts; rows: null, or with return_rows a JSON array of {"action": "update", "row": {...}}
-- raises     PQ024  an argument is wrong: no such column, no primary key, an unknown word
-- raises     PQ025  the source repeats a key, and fold is error
-- raises     PQ026  the target lacks a row, and on_missing is error
-- raises     PQ028  the lock was not granted in time
-- locks      the rows, in the order of their keys; with 'lock' the table SHARE ROW EXCLUSIVE
-- runs as    caller
-- see        docs/batch-updates.md
create or replace function skytools.batch_delete(
    target regclass, source text, key text[] default null,
    fold text default 'error', aggregates jsonb default '{}', order_by text default null, on_missing text default 'ignore',
    concurrency text default 'on conflict', timeout interval default '10 seconds', return_rows boolean default false,
    out inserted bigint, out updated bigint, out unchanged bigint, out deleted bigint, out missing bigint, out rows jsonb)
language sql as $$
    select b.inserted, b.updated, b.unchanged, b.deleted, b.missing, b.rows
      from skytools._batch('delete', batch_delete.target, batch_delete.source, batch_delete.on_missing, batch_delete.timeout,
                           jsonb_build_object('key', batch_delete.key, 'fold', batch_delete.fold, 'aggregates', batch_delete.aggregates, 'order_by', batch_delete.order_by, 'concurrency', batch_delete.concurrency, 'return_rows', batch_delete.return_rows)) b
$$;

create or replace function skytools.batch_delete(
    target regclass, source regclass, key text[] default null,
    fold text default 'error', aggregates jsonb default '{}', order_by text default null, on_missing text default 'ignore',
    concurrency text default 'on conflict', timeout interval default '10 seconds', return_rows boolean default false,
    out inserted bigint, out updated bigint, out unchanged bigint, out deleted bigint, out missing bigint, out rows jsonb)
language sql as $$
    select b.inserted, b.updated, b.unchanged, b.deleted, b.missing, b.rows
      from skytools._batch('delete', batch_delete.target, batch_delete.source::text, batch_delete.on_missing, batch_delete.timeout,
                           jsonb_build_object('key', batch_delete.key, 'fold', batch_delete.fold, 'aggregates', batch_delete.aggregates, 'order_by', batch_delete.order_by, 'concurrency', batch_delete.concurrency, 'return_rows', batch_delete.return_rows)) b
$$;

-- skytools.batch_merge(target, source, ...) -> record
-- Make a table, or a part of it, like a source: insert, update, and delete rows that the source lacks, in one statement.
-- target     the table, partitioned table or view
-- source     a table, temporary or not, or as text a query
-- key        the columns that identify a row; default: the primary key. A null in them equals nothing, unless the unique
--            index on them says nulls not distinct
-- columns    the columns to set; default: all that both have, generated ones aside
-- set        expressions for columns, over t (the row there is) and s (the source's): '{"n": "t.n + s.n"}'. They are SQL
--            and run with the caller's rights: never build them from data
-- fold       of rows with one key: error, last (take the last one) or first
-- aggregates fold columns by an aggregate instead: '{"n": "sum"}', or an expression over s; the other columns take the last
-- order_by   the column that says which row is the last; default: the order in which the source gives them
-- within     a condition over t: only rows for which it holds are deleted when the source lacks them
-- concurrency 'on conflict': row locks in key order, and the unique index on the key decides what is inserted; 'lock': the
--            table is locked against all other writers; 'retry': tried again when another transaction came first
-- timeout    how long to wait for that lock of the table
-- rewrite    write rows that would stay as they are, too
-- return_rows give the rows that were changed
-- returns    one row of counts; rows: null, or with return_rows a JSON array of {"action": "update", "row": {...}}
-- raises     PQ024  an argument is wrong: no such column, no primary key, an unknown word
-- raises     PQ025  the source repeats a key, and fold is error
-- raises     PQ027  no unique index on the key, and concurrency is on conflict
-- raises     PQ028  the lock was not granted in time
-- locks      the rows, in the order of their keys; with 'lock' the table SHARE ROW EXCLUSIVE
-- runs as    caller
-- see        docs/batch-updates.md
create or replace function skytools.batch_merge(
    target regclass, source text, key text[] default null,
    columns text[] default null, set jsonb default '{}',
    fold text default 'error', aggregates jsonb default '{}', order_by text default null, within text default null,
    concurrency text default 'on conflict', timeout interval default '10 seconds', rewrite boolean default false, return_rows boolean default false,
    out inserted bigint, out updated bigint, out unchanged bigint, out deleted bigint, out missing bigint, out rows jsonb)
language sql as $$
    select b.inserted, b.updated, b.unchanged, b.deleted, b.missing, b.rows
      from skytools._batch('merge', batch_merge.target, batch_merge.source, 'ignore', batch_merge.timeout,
                           jsonb_build_object('key', batch_merge.key, 'columns', batch_merge.columns, 'set', batch_merge.set, 'fold', batch_merge.fold, 'aggregates', batch_merge.aggregates, 'order_by', batch_merge.order_by, 'concurrency', batch_merge.concurrency, 'within', batch_merge.within, 'rewrite', batch_merge.rewrite, 'return_rows', batch_merge.return_rows)) b
$$;

create or replace function skytools.batch_merge(
    target regclass, source regclass, key text[] default null,
    columns text[] default null, set jsonb default '{}',
    fold text default 'error', aggregates jsonb default '{}', order_by text default null, within text default null,
    concurrency text default 'on conflict', timeout interval default '10 seconds', rewrite boolean default false, return_rows boolean default false,
    out inserted bigint, out updated bigint, out unchanged bigint, out deleted bigint, out missing bigint, out rows jsonb)
language sql as $$
    select b.inserted, b.updated, b.unchanged, b.deleted, b.missing, b.rows
      from skytools._batch('merge', batch_merge.target, batch_merge.source::text, 'ignore', batch_merge.timeout,
                           jsonb_build_object('key', batch_merge.key, 'columns', batch_merge.columns, 'set', batch_merge.set, 'fold', batch_merge.fold, 'aggregates', batch_merge.aggregates, 'order_by', batch_merge.order_by, 'concurrency', batch_merge.concurrency, 'within', batch_merge.within, 'rewrite', batch_merge.rewrite, 'return_rows', batch_merge.return_rows)) b
$$;
