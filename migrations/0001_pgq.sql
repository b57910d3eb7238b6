-- skytools 4.0.0
-- Written by `npm run migration` from sql/; never edited once released.

-- Up Migration

create schema if not exists skytools;
comment on schema skytools is 'skytools: migration ledger, settings and helpers';
grant usage on schema skytools to public;

-- skytools.version() -> text
-- The version of the installed bundle: the same number as in package.json and in the migration ledger.
-- returns    e.g. '4.0.0'
-- runs as    caller
create or replace function skytools.version() returns text
language sql immutable parallel safe as $$
    select '4.0.0'::text
$$;

-- What an operator has set for the whole database.
create table skytools.setting (
    name   text not null,
    value  text not null,
    constraint setting_pkey primary key (name)
);
comment on table skytools.setting is 'Settings of this database';

-- skytools.protect(i_reason) -> void
-- Mark this database, so that whatever destroys queues (wipe, reset, uninstall ...) refuses it unless it is named.
-- i_reason   shown in each refusal, e.g. 'production'
-- raises     PQ020  the reason is null or empty
-- runs as    owner: an operator needs EXECUTE (pgq_admin), no table right
create or replace function skytools.protect(i_reason text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if coalesce(i_reason, '') = '' then
        raise exception 'database %: a reason is needed', quote_ident(current_database())
            using errcode = 'PQ020', hint = 'try: select skytools.protect(''production'')';
    end if;
    insert into skytools.setting (name, value) values ('protected', i_reason)
    on conflict (name) do update set value = excluded.value;
end $$;

-- skytools.unprotect() -> boolean
-- Take the mark of skytools.protect() away.
-- returns    false when there was none
-- runs as    owner
create or replace function skytools.unprotect() returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    delete from skytools.setting s where s.name = 'protected';
    return found;
end $$;

-- skytools.protection() -> text
-- Why this database is protected.
-- returns    the reason; null when it is not
-- runs as    owner: everybody may ask
create or replace function skytools.protection() returns text
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select s.value from skytools.setting s where s.name = 'protected'
$$;

-- skytools.refuse_protected(i_action, i_database) -> void
-- Refuse to destroy anything in a protected database.
-- i_action   what shall be done, for the message: 'wipe'
-- i_database the name of this database, given to insist; null: not insisting
-- raises     PQ021  the database is protected, and i_database is not its name
-- raises     PQ023  i_database is the name of another database
-- runs as    caller
create or replace function skytools.refuse_protected(i_action text, i_database text) returns void
language plpgsql as $$
begin
    if i_database is not null and i_database <> pg_catalog.current_database() then
        raise exception 'this is database %, not %', pg_catalog.quote_ident(pg_catalog.current_database()), pg_catalog.quote_ident(i_database)
            using errcode = 'PQ023', hint = 'look where you are connected: nothing was changed';
    end if;
    if i_database is null and skytools.protection() is not null then
        raise exception 'database % is protected (%): no %', pg_catalog.quote_ident(pg_catalog.current_database()),
            skytools.protection(), i_action
            using errcode = 'PQ021',
                  hint = pg_catalog.format('to do it all the same, name it: --force %1$s, or in SQL %1$L as argument', pg_catalog.current_database());
    end if;
end $$;

-- Changing many rows by one statement. One function writes that statement, for SQL and for the library alike.
--
-- Two statements that touch the same rows in different orders may deadlock, so rows are locked in the order of their keys
-- before any is changed. An UPDATE of a plain table by its unique key needs no such pass where the planner is held to the
-- nested loop over the sorted source or, by one column, a merge join (skytools._batch_ordered): it meets the rows in that order
-- by itself, and is about as fast as the fastest UPDATE that gives no guarantee. An INSERT ... ON CONFLICT gets its rows in that order. A merge, which also deletes rows that the source
-- lacks, locks all of them first: who waits for a row lock has inserted nothing yet.

-- skytools._batch_sql(i_kind, i_target, i_source, i_source_columns, i_options) -> text
-- Write the statement that changes a table by the rows of a source, and counts what it did.
-- i_kind     update, upsert, delete or merge
-- i_source   a FROM item without alias: a quoted table name, '(select ...)' or 'unnest($1::int[], ...)'
-- i_source_columns its columns, in order
-- i_options  key, columns, set, fold, aggregates, order_by, concurrency, within, rewrite, return_rows: as the public functions;
--            ordered: the caller runs the statement by skytools._batch_ordered(), if it begins with that word in a comment;
--            few: there are at most some thousands of rows; the caller runs the statement as it is, and gives the columns of the
--            source as arrays: $1, $2 and so on
-- returns    a statement that gives one row (inserted, updated, unchanged, deleted, missing, rows); of few, perhaps one with
--            updated and missing alone, where none is inserted or deleted
-- raises     PQ024  an option is wrong: the key, a column, a kind of relation
-- raises     PQ025  (by the statement) the source repeats a key, and fold is error
-- raises     PQ027  no unique index can decide between insert and update
-- runs as    caller
create or replace function skytools._batch_sql(
    i_kind text, i_target regclass, i_source text, i_source_columns text[], i_options jsonb default '{}') returns text
language plpgsql stable as $$
declare
    v_kind text;
    v_target text;
    v_key text[];
    v_columns text[];
    v_insert text[];
    v_bad text;
    v_set jsonb := coalesce(nullif(i_options->'set', 'null'), '{}');
    v_aggregates jsonb := coalesce(nullif(i_options->'aggregates', 'null'), '{}');
    v_fold text := coalesce(i_options->>'fold', 'error');
    v_concurrency text := coalesce(i_options->>'concurrency', 'on conflict');
    v_within text := coalesce(i_options->>'within', 'true');
    v_order text := i_options->>'order_by';
    v_returning boolean := coalesce((i_options->>'return_rows')::boolean, false);
    v_index record;
    v_overriding text := '';
    v_match text;
    v_changed text;
    v_assign text;
    v_key_order text;
    v_source_order text;
    v_key_source text;
    v_repeated text;
    v_missing text;
    v_lock text;
    v_ctes text[];
    v_rows text := '';
    v_counts text;
    v_many boolean;
begin
    select c.relkind, format('%I.%I', n.nspname, c.relname) into v_kind, v_target
      from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where c.oid = i_target;
    if v_kind is null or v_kind not in ('r', 'p', 'v', 'f') then
        raise exception 'no table to change: %', coalesce(i_target::text, 'NULL')
            using errcode = 'PQ024', hint = 'name a table, a partitioned table or a view that can be written to';
    end if;
    if v_fold not in ('error', 'last', 'first') or v_concurrency not in ('on conflict', 'lock', 'retry') then
        raise exception 'batch % of %: fold % and concurrency % are not both known', i_kind, i_target, quote_literal(v_fold), quote_literal(v_concurrency)
            using errcode = 'PQ024', hint = 'fold: error, last or first; concurrency: on conflict, lock or retry';
    end if;

    v_key := coalesce(
        array(select jsonb_array_elements_text(nullif(i_options->'key', 'null'))),
        '{}');
    if v_key = '{}' then
        v_key := array(select a.attname::text
                         from pg_catalog.pg_index i, unnest(i.indkey::smallint[]) with ordinality k (num, n), pg_catalog.pg_attribute a
                        where i.indrelid = i_target and i.indisprimary and k.n <= i.indnkeyatts
                          and a.attrelid = i_target and a.attnum = k.num
                        order by k.n);
    end if;
    if v_key = '{}' then
        raise exception 'table % has no primary key', i_target
            using errcode = 'PQ024', hint = 'say which columns identify a row: key => array[''id'']';
    end if;

    -- All that follows works on the columns of the target by name.
    v_columns := case when nullif(i_options->'columns', 'null') is not null
        then array(select jsonb_array_elements_text(i_options->'columns'))
        else array(select a.attname::text from pg_catalog.pg_attribute a
                    where a.attrelid = i_target and a.attnum > 0 and not a.attisdropped
                      and a.attgenerated = '' and a.attidentity <> 'a'
                      and a.attname <> all (v_key) and (a.attname = any (i_source_columns) or v_set ? a.attname)
                    order by a.attnum) end;
    if i_kind = 'delete' then
        v_columns := '{}';
    end if;
    select string_agg(format('%I (%s)', w.name, w.why), ', ') into v_bad
      from (select k, 'of the key, is not in the source' from unnest(v_key) k where k <> all (i_source_columns)
            union all
            select c, 'is neither in the source nor in set' from unnest(v_columns) c
             where c <> all (i_source_columns) and not v_set ? c
            union all
            select c, case when a.attname is null then 'is not in the target' else 'is generated' end
              from unnest(v_key || v_columns) c
              left join pg_catalog.pg_attribute a
                on a.attrelid = i_target and a.attname = c and a.attnum > 0 and not a.attisdropped
             where a.attname is null or (a.attgenerated <> '' and c = any (v_columns))
            union all
            select o, 'of set, is not among the columns' from jsonb_object_keys(v_set) o where o <> all (v_columns)
            union all
            select o, 'of aggregates, is not in the source or is of the key' from jsonb_object_keys(v_aggregates) o
             where o <> all (i_source_columns) or o = any (v_key)
            union all
            select v_order, 'of order_by, is not in the source' where v_order <> all (i_source_columns)) w (name, why);
    if v_bad is not null then
        raise exception 'batch % of %: columns do not fit: %', i_kind, i_target, v_bad
            using errcode = 'PQ024', hint = format('the source has: %s', array_to_string(i_source_columns, ', '));
    end if;

    -- The unique index on exactly the key, if there is one.
    select i.indexrelid::regclass as name, i.indimmediate as immediate,
           coalesce((to_jsonb(i)->>'indnullsnotdistinct')::boolean, false) as nulls_equal
      into v_index
      from pg_catalog.pg_index i
     where i.indrelid = i_target and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
       and i.indnkeyatts = cardinality(v_key)
       and (select array_agg(a.attname::text order by a.attname)
              from unnest(i.indkey::smallint[]) with ordinality k (num, n), pg_catalog.pg_attribute a
             where k.n <= i.indnkeyatts and a.attrelid = i_target and a.attnum = k.num)
           = array(select k from unnest(v_key) k order by k collate "C")
     order by i.indimmediate desc, i.indisprimary desc
     limit 1;
    if i_kind in ('upsert', 'merge') and v_concurrency = 'on conflict' and v_index.immediate is not true then
        raise exception 'batch % of %: no unique index on (%)', i_kind, i_target,
            (select string_agg(quote_ident(k), ', ') from unnest(v_key) k)
            using errcode = 'PQ027',
                  hint = format('create unique index on %s (%s); or: concurrency => ''lock''', i_target,
                                (select string_agg(quote_ident(k), ', ') from unnest(v_key) k));
    end if;

    select string_agg(format(case when v_index.nulls_equal then 't.%1$I is not distinct from s.%1$I' else 't.%1$I = s.%1$I' end, k.k),
                      ' and ' order by k.n),
           string_agg(format('t.%I', k.k), ', ' order by k.n),
           string_agg(format('s.%I::%s%s', k.k, pg_catalog.format_type(a.atttypid, -1),
                             case when a.attcollation <> 0
                                  then (select format(' collate %I.%I', n.nspname, c.collname)
                                          from pg_catalog.pg_collation c join pg_catalog.pg_namespace n on n.oid = c.collnamespace
                                         where c.oid = a.attcollation) else '' end), ', ' order by k.n),
           format('select %s from unnest(%s) s (%s)', string_agg(format('s.%I::%s as %1$I', k.k, pg_catalog.format_type(a.atttypid, -1)), ', ' order by k.n),
                  string_agg(format('$1[%s]::text[]', k.n), ', ' order by k.n), string_agg(quote_ident(k.k), ', ' order by k.n))
      into v_match, v_key_order, v_source_order, v_key_source
      from unnest(v_key) with ordinality k (k, n)
      join pg_catalog.pg_attribute a on a.attrelid = i_target and a.attname = k.k;

    -- The source, each key once.
    v_ctes := array[format('"#s" as materialized (%s)', skytools._batch_fold(i_target, i_source, i_source_columns, v_key, v_fold, v_order, v_aggregates))];
    if v_fold = 'error' and v_aggregates = '{}' then
        v_repeated := format(
            'select skytools._refuse_repeated(%L, r.key) from (select jsonb_build_object(%s) as key from "#s" s %s group by %s having count(*) > 1 limit 1) r',
            v_target, (select string_agg(format('%L, s.%I', k, k), ', ') from unnest(v_key) k),
            case when v_index.nulls_equal then '' else
                (select 'where ' || string_agg(format('s.%I is not null', k), ' and ') from unnest(v_key) k) end,
            (select string_agg(format('s.%I', k), ', ') from unnest(v_key) k));
        v_ctes := v_ctes || format('"#r" as materialized (%s)', v_repeated);
        v_match := v_match || ' and (select count(*) from "#r" r) = 0';
    end if;

    if i_kind in ('upsert', 'merge') then
        v_insert := array(select a.attname::text from pg_catalog.pg_attribute a
                           where a.attrelid = i_target and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
                             and (a.attname = any (v_key)
                                  or a.attname = any (i_source_columns)
                                     and (a.attname = any (v_columns) or i_options->'columns' is null or i_options->'columns' in ('null', '[]')))
                           order by a.attnum);
        if exists (select from pg_catalog.pg_attribute a
                    where a.attrelid = i_target and a.attidentity = 'a' and a.attname = any (v_insert)) then
            v_overriding := 'overriding system value ';
        end if;
    end if;

    if i_kind in ('upsert', 'merge') and v_concurrency = 'on conflict' then
        -- The row that was refused is called excluded; expressions know it as s.
        select string_agg(format('%I = %s', c, e.new), ', '),
               case when (i_options->>'rewrite')::boolean then ''
                    else format(' where pg_catalog.record_image_ne(row(%s), row(%s))', string_agg(format('t.%I', c), ', '),
                                string_agg(skytools._batch_value(i_target, c, e.new), ', ')) end
          into v_assign, v_changed
          from unnest(v_columns) c,
               lateral (select case when v_set ? c then format('(select (%s) from (select excluded.*) s)', v_set->>c)
                                    else format('excluded.%I', c) end as new) e;
        if i_kind = 'merge' then
            v_ctes := v_ctes || format('"#l" as materialized (select 1 from %s t where exists (select from "#s" s where %s) or ((%s) and not exists (select from "#s" s where %s)) order by %s for update)',
                v_target, v_match, v_within, v_match, v_key_order)
                || format('"#d" as (delete from %s t where (%s) and not exists (select from "#s" s where %s) and (select count(*) from "#l" l) >= 0 returning %s)',
                          v_target, v_within, v_match, case when v_returning then 'to_jsonb(t) as row' else '1' end);
        end if;
        v_ctes := v_ctes || format('"#i" as (insert into %s as t (%s) %sselect %s from "#s" s where %s order by %s on conflict (%s) do %s returning %s as inserted%s)',
            v_target, (select string_agg(quote_ident(c), ', ') from unnest(v_insert) c), v_overriding,
            (select string_agg(format('s.%I', c), ', ') from unnest(v_insert) c),
            concat_ws(' and ', case when v_match like '%from "#r" r) = 0' then '(select count(*) from "#r" r) = 0' end,
                      case when i_kind = 'merge' then '(select count(*) from "#l" l) >= 0' end, 'true'),
            v_source_order, (select string_agg(quote_ident(k), ', ') from unnest(v_key) k),
            case when v_columns = '{}' then 'nothing' else 'update set ' || v_assign || v_changed end,
            -- Rows that went into a partition show no xmax: there, what was visible before counts as updated.
            case v_kind when 'r' then 't.xmax = 0'
                        else format('not exists (select from %s s where %s)', v_target, replace(v_match, ' and (select count(*) from "#r" r) = 0', '')) end,
            case when v_returning then ', to_jsonb(t) as row' else '' end);
        v_counts := format('c.inserted, c.updated, (select count(*) from "#s" s) - c.inserted - c.updated as unchanged, %s as deleted, 0::bigint as missing',
                           case when i_kind = 'merge' then '(select count(*) from "#d" d)' else '0::bigint' end);
        v_rows := $sql$select case when i.inserted then 'insert' else 'update' end as action, i.row from "#i" i$sql$
                  || case when i_kind = 'merge' then $sql$ union all select 'delete', d.row from "#d" d$sql$ else '' end;
        return format('with %s select %s, %s from (select count(*) filter (where i.inserted) as inserted, count(*) filter (where not i.inserted) as updated from "#i" i) c',
                      array_to_string(v_ctes, ', '), v_counts,
                      case when v_returning then format($sql$(select coalesce(jsonb_agg(jsonb_build_object('action', a.action, 'row', a.row)), '[]') from (%s) a) as rows$sql$, v_rows)
                           else 'null::jsonb as rows' end);
    end if;

    if v_columns <> '{}' then
        select string_agg(format('%I = %s', c, e.new), ', '),
               format('pg_catalog.record_image_ne(row(%s), row(%s))', string_agg(format('t.%I', c), ', '),
                      string_agg(skytools._batch_value(i_target, c, e.new), ', '))
          into v_assign, v_changed
          from unnest(v_columns) c,
               lateral (select case when v_set ? c then format('(%s)', v_set->>c) else format('s.%I', c) end as new) e;
        -- A row that would stay as it is may have been changed by another transaction meanwhile: only its lock tells.
        v_changed := case when (i_options->>'rewrite')::boolean then ''
                          when v_concurrency = 'lock' then ' and ' || v_changed
                          else format(' and (%1$s or exists (select from (select %1$s as changed from %2$s t where %3$s offset 0 for no key update) x where x.changed))',
                                      v_changed, v_target, replace(v_match, ' and (select count(*) from "#r" r) = 0', '')) end;
    end if;

    -- A few rows for a table that is not small are looked up by its index in any case.
    if i_kind = 'update' and ((i_options->>'ordered')::boolean or (i_options->>'few')::boolean and pg_relation_size(i_target) >= 2 * 1024 * 1024)
       and v_columns <> '{}' and not v_index.nulls_equal
       and skytools._batch_is_plain(i_target) and (v_fold <> 'error' or v_aggregates = '{}') then
        v_match := replace(v_match, ' and (select count(*) from "#r" r) = 0', '');
        -- A repeated key, rows that are missing, rows that stay as they are: looked for only where fewer rows were updated than
        -- the source has. One that is repeated has been updated once by then; the error takes it back.
        -- A merge join reads the whole table by its index: worth it where a good part of it changes.
        if (i_options->>'ordered')::boolean and cardinality(v_key) = 1 then
            execute format('select 5 * count(*) > (select c.reltuples from pg_catalog.pg_class c where c.oid = $1) from %s s', i_source)
               into v_many using i_target;
        end if;
        v_missing := coalesce('(select count(*) * 0 from (' || v_repeated || ') x) + ', '')
            || format('(select count(*) from "#s" s where not exists (select from %s t where %s))', v_target, v_match);
        if (i_options->>'few')::boolean and v_fold = 'error' and not v_returning then
            -- A statement of its own, so that none of it is set up where it is not needed.
            return format('with "#s" as materialized (%s), "#u" as (update %s t set %s from (select * from "#s" s order by %s) s where %s%s returning 1)'
                          ' select c.updated, case when c.updated = cardinality($1) then 0 else skytools._batch_missing(%L, array[%s]) end as missing'
                          ' from (select count(*) as updated from "#u" u offset 0) c',
                          skytools._batch_fold(i_target, i_source, i_source_columns, v_key, v_fold, v_order, v_aggregates), v_target, v_assign, v_source_order,
                          v_match, v_changed, format('with "#s" as (%s) select %s', v_key_source, v_missing),
                          (select string_agg(format('$%s::text', array_position(i_source_columns, k)), ', ' order by n) from unnest(v_key) with ordinality u (k, n)));
        end if;
        return case when (i_options->>'ordered')::boolean is not true then '' when v_many then '/* ordered by one */' else '/* ordered */' end
            || format($sql$ with "#s" as %s materialized (%s),
            "#u" as (update %s t set %s from (select * from "#s" s order by %s) s where %s%s returning %s)
            select 0::bigint as inserted, m.updated, m.source - m.updated - m.missing as unchanged, 0::bigint as deleted, m.missing, %s as rows
              from (select c.updated, c.source, case when c.updated = c.source then 0 else %s end as missing
                      from (select (select count(*) from "#s" s) as source, (select count(*) from "#u" u) as updated offset 0) c offset 0) m$sql$,
            -- A table is read again sooner than a copy of it is made.
            case when (i_options->>'ordered')::boolean and v_fold = 'error' and v_aggregates = '{}' then 'not' end,
            skytools._batch_fold(i_target, i_source, i_source_columns, v_key, v_fold, v_order, v_aggregates),
            v_target, v_assign, v_source_order, v_match, v_changed, case when v_returning then 'to_jsonb(t) as row' else '1' end,
            case when v_returning then $rows$(select coalesce(jsonb_agg(jsonb_build_object('action', 'update', 'row', u.row)), '[]') from "#u" u)$rows$
                 else 'null::jsonb' end,
            v_missing);
    end if;

    -- Update, delete, and insert of what is not there: row locks in key order first, then the change.
    v_lock := case
        when v_concurrency = 'lock' then ''
        when i_kind in ('delete', 'merge') then
            case when has_any_column_privilege(i_target, 'update') and not row_security_active(i_target) then ' for update of t' else '' end
        when v_columns = '{}' then ''
        else ' for no key update of t' end;
    v_ctes := v_ctes || format('"#l" as materialized (select 1 from %s t%s order by %s%s)', v_target,
        case when i_kind = 'merge'
             then format(' where exists (select from "#s" s where %1$s) or ((%2$s) and not exists (select from "#s" s where %1$s))', v_match, v_within)
             else format(' join "#s" s on %s', v_match) end,
        v_key_order, v_lock);
    if v_columns <> '{}' then
        v_ctes := v_ctes || format('"#u" as (update %s t set %s from "#s" s where %s and (select count(*) from "#l" l) >= 0%s returning %s)',
            v_target, v_assign, v_match, v_changed, case when v_returning then 'to_jsonb(t) as row' else '1' end);
        v_rows := $sql$select 'update' as action, u.row from "#u" u$sql$;
    end if;
    if i_kind in ('upsert', 'merge') then
        v_ctes := v_ctes || format('"#i" as (insert into %s as t (%s) %sselect %s from "#s" s where (select count(*) from "#l" l) >= 0 and not exists (select from %s t where %s) order by %s returning %s)',
            v_target, (select string_agg(quote_ident(c), ', ') from unnest(v_insert) c), v_overriding,
            (select string_agg(format('s.%I', c), ', ') from unnest(v_insert) c), v_target, v_match, v_source_order,
            case when v_returning then 'to_jsonb(t) as row' else '1' end);
        v_rows := concat_ws(' union all ', nullif(v_rows, ''), $sql$select 'insert' as action, i.row from "#i" i$sql$);
    end if;
    if i_kind in ('delete', 'merge') then
        v_ctes := v_ctes || format('"#d" as (delete from %s t %s and (select count(*) from "#l" l) >= 0 returning %s)', v_target,
            case when i_kind = 'delete' then format('using "#s" s where %s', v_match)
                 else format('where (%s) and not exists (select from "#s" s where %s)', v_within, v_match) end,
            case when v_returning then 'to_jsonb(t) as row' else '1' end);
        v_rows := concat_ws(' union all ', nullif(v_rows, ''), $sql$select 'delete' as action, d.row from "#d" d$sql$);
    end if;

    v_counts := concat_ws(', ',
        case when i_kind in ('upsert', 'merge') then '(select count(*) from "#i" i)' else '0::bigint' end || ' as inserted',
        case when v_columns <> '{}' then '(select count(*) from "#u" u)' else '0::bigint' end || ' as updated',
        case when i_kind = 'delete' then '0::bigint' else
            format('(select count(*) from "#l" l) - %s%s', case when v_columns <> '{}' then '(select count(*) from "#u" u)' else '0' end,
                   case when i_kind = 'merge' then ' - (select count(*) from "#d" d)' else '' end) end || ' as unchanged',
        case when i_kind in ('delete', 'merge') then '(select count(*) from "#d" d)' else '0::bigint' end || ' as deleted',
        case when i_kind in ('upsert', 'merge') then '0::bigint'
             when v_index.name is not null then format('(select count(*) from "#s" s) - (select count(*) from %s)', case when i_kind = 'delete' then '"#d"' else '"#l"' end)
             else format('(select count(*) from "#s" s where not exists (select from %s t where %s))', v_target, v_match) end || ' as missing');
    return format('with %s select %s, %s', array_to_string(v_ctes, ', '), v_counts,
        case when v_returning and v_rows <> ''
             then format($sql$(select coalesce(jsonb_agg(jsonb_build_object('action', a.action, 'row', a.row)), '[]') from (%s) a) as rows$sql$, v_rows)
             when v_returning then $sql$'[]'::jsonb as rows$sql$
             else 'null::jsonb as rows' end);
end $$;

-- skytools._batch_is_plain(i_table) -> boolean
-- Whether rows of a table are found by its own index alone: it is neither partitioned nor has it children, nor is it a view.
-- runs as    caller
create or replace function skytools._batch_is_plain(i_table regclass) returns boolean
language sql stable as $$
    select c.relkind = 'r' and not exists (select from pg_catalog.pg_inherits i where i.inhparent = c.oid)
      from pg_catalog.pg_class c where c.oid = i_table
$$;

-- skytools._batch_moved(i_table) -> boolean
-- Refuse a statement that was written some time ago for another table than its name means now.
-- i_table    the table's name, as search_path finds it
-- raises     42P01
-- runs as    caller
create or replace function skytools._batch_moved(i_table text) returns boolean
language plpgsql as $$
begin
    raise exception 'table % is no longer what it was', i_table
        using errcode = 'undefined_table', hint = 'try again: it was dropped or renamed, or search_path has changed';
end $$;

-- skytools._batch_ordered(i_sql) -> record
-- Run a statement of skytools._batch_sql() so that an ordered one meets its rows in the order of their keys: by a nested loop
-- over the sorted source and the index on the key, or, by one column and for a good part of the table, a merge join: of several
-- columns, it might choose the order.
-- raises     as the statement
-- runs as    caller
create or replace function skytools._batch_ordered(
    i_sql text,
    out inserted bigint, out updated bigint, out unchanged bigint, out deleted bigint, out missing bigint, out rows jsonb)
language plpgsql set jit = off set work_mem = '64MB' set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off
    set enable_bitmapscan = off as $$
begin
    if i_sql like '/* ordered by one */%' then
        perform set_config('enable_mergejoin', 'on', true);
    end if;
    execute i_sql into inserted, updated, unchanged, deleted, missing, rows;
end $$;

-- skytools._batch_fold(i_target, i_source, i_source_columns, i_key, i_fold, i_order, i_aggregates) -> text
-- Write the query that gives each key of a source once.
-- runs as    caller
create or replace function skytools._batch_fold(
    i_target regclass, i_source text, i_source_columns text[], i_key text[], i_fold text, i_order text, i_aggregates jsonb) returns text
language plpgsql stable as $$
declare
    v_list text := (select string_agg(quote_ident(c), ', ' order by n) from unnest(i_source_columns) with ordinality u (c, n));
    v_key text := (select string_agg(format('s.%I', k), ', ') from unnest(i_key) k);
    v_last text := format('%ss."#" %s', case when i_order is not null then format('s.%I %s, ', i_order,
                       case i_fold when 'first' then 'asc nulls first' else 'desc nulls last' end) else '' end,
                       case i_fold when 'first' then 'asc' else 'desc' end);
    v_numbered text := format('(select s.*, row_number() over () as "#" from %s as s (%s)) s', i_source, v_list);
begin
    if i_aggregates <> '{}' then
        return format('select %s from %s group by %s',
            (select string_agg(case
                        when c = any (i_key) then format('s.%I', c)
                        when (i_aggregates->>c) ~ '^\w+$' then format('%s(s.%I) as %I', i_aggregates->>c, c, c)
                        when i_aggregates ? c then format('(%s) as %I', i_aggregates->>c, c)
                        else format('(array_agg(s.%I order by %s))[1] as %I', c, v_last, c) end, ', ' order by n)
               from unnest(i_source_columns) with ordinality u (c, n)),
            v_numbered, v_key);
    elsif i_fold <> 'error' then
        return format('select distinct on (%s) %s from %s order by %s, %s', v_key,
                      (select string_agg(format('s.%I', c), ', ' order by n) from unnest(i_source_columns) with ordinality u (c, n)),
                      v_numbered, v_key, v_last);
    end if;
    return format('select * from %s as s (%s)', i_source, v_list);
end $$;

-- skytools._batch_value(i_target, i_column, i_value) -> text
-- SQL for a value as a column would hold it, to be compared with what that holds.
-- i_value    an expression in SQL
-- returns    a string that is too long for the column is not cut: it is to differ, and then to be refused
-- runs as    caller
create or replace function skytools._batch_value(i_target regclass, i_column text, i_value text) returns text
language sql stable as $$
    select pg_catalog.format(
               case when a.atttypid = 'bpchar'::regtype and a.atttypmod > 4
                    then 'case when pg_catalog.length((%1$s)::bpchar) <= %3$s then (%1$s)::character(%3$s) else (%1$s)::bpchar end'
                    else '(%1$s)::%2$s' end,
               i_value,
               pg_catalog.format_type(a.atttypid, case when e.type in ('varchar'::regtype, 'varbit'::regtype, 'bit'::regtype) then -1 else a.atttypmod end),
               a.atttypmod - 4)
      from pg_catalog.pg_attribute a
      join pg_catalog.pg_type t on t.oid = a.atttypid
     cross join lateral (select case when t.typcategory = 'A' then t.typelem else t.oid end) e (type)
     where a.attrelid = i_target and a.attname = i_column
$$;

-- skytools._batch_missing(i_sql, i_arrays) -> bigint
-- Run the part of a statement that counts what the table lacks, as the calling statement sees it.
-- i_sql      written by skytools._batch_sql()
-- i_arrays   its parameter: for each key column its values, as the text of an array
-- raises     PQ025  a key comes twice
-- runs as    caller
create or replace function skytools._batch_missing(i_sql text, i_arrays text[]) returns bigint
language plpgsql stable as $$
declare
    v_missing bigint;
begin
    execute i_sql into v_missing using i_arrays;
    return v_missing;
end $$;

-- skytools._refuse_repeated(i_target, i_key) -> void
-- Stop a batch whose source has a key twice.
-- runs as    caller
create or replace function skytools._refuse_repeated(i_target text, i_key jsonb) returns integer
language plpgsql as $$
begin
    raise exception 'batch for %: the source has more than one row with the key %', i_target, i_key
        using errcode = 'PQ025', hint = 'fold => ''last'', or aggregates => ''{"column": "sum"}'', makes one row of them';
end $$;

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

create schema pgq;
comment on schema pgq is 'skytools: PgQ, a transactional, snapshot-batched queue';
grant usage on schema pgq to public;

-- pgq.version() -> text
-- The version of the queue schema; the ticker daemon pgqd works with any that begins with 3 or more.
-- returns    the bundle's version, e.g. '4.0.0'
-- runs as    caller
-- see        skytools.version()
create or replace function pgq.version() returns text
language sql immutable parallel safe as $$
    select skytools.version()
$$;

-- One row a queue. Operators may UPDATE the settings in it; a trigger (event_code.sql) then makes the queue's code anew.
create table pgq.queue (
    queue_id                  serial,
    queue_name                text not null,
    queue_ntables             integer not null default 3,
    queue_cur_table           integer not null default 0,
    queue_rotation_period     interval not null default '2 hours',
    queue_switch_step1        bigint not null default txid_current(),
    queue_switch_step2        bigint default txid_current(),
    queue_switch_time         timestamptz not null default now(),
    queue_external_ticker     boolean not null default false,
    queue_disable_insert      boolean not null default false,
    queue_ticker_paused       boolean not null default false,
    queue_ticker_max_count    integer not null default 500,
    queue_ticker_max_lag      interval not null default '3 seconds',
    queue_ticker_idle_period  interval not null default '1 minute',
    queue_per_tx_limit        integer,
    queue_data_pfx            text not null,
    queue_event_seq           text not null,
    queue_tick_seq            text not null,
    queue_extra_maint         text[],
    constraint queue_pkey primary key (queue_id),
    constraint queue_name_uq unique (queue_name)
);
comment on table pgq.queue is 'One row a queue: settings and rotation state';

create table pgq.consumer (
    co_id    serial,
    co_name  text not null,
    constraint consumer_pkey primary key (co_id),
    constraint consumer_name_uq unique (co_name)
);
comment on table pgq.consumer is 'Consumer names; one name may subscribe to many queues';

create table pgq.tick (
    tick_queue      integer not null,
    tick_id         bigint not null,
    tick_time       timestamptz not null default now(),
    tick_snapshot   txid_snapshot not null default txid_current_snapshot(),
    tick_event_seq  bigint not null,
    constraint tick_pkey primary key (tick_queue, tick_id),
    constraint tick_queue_fkey foreign key (tick_queue) references pgq.queue (queue_id)
);
comment on table pgq.tick is 'Snapshots: a batch is what became visible between two of them';

-- Who subscribes to what. A row never changes while the subscription lives: its position is in the position log.
create sequence pgq.subscription_sub_id_seq as integer;
create table pgq.subscriber (
    sub_key       integer generated always as identity,
    sub_id        integer not null default nextval('pgq.subscription_sub_id_seq'),
    sub_queue     integer not null,
    sub_consumer  integer not null,
    constraint subscriber_pkey primary key (sub_key),
    constraint subscription_pkey unique (sub_queue, sub_consumer),
    constraint sub_queue_fkey foreign key (sub_queue) references pgq.queue (queue_id),
    constraint sub_consumer_fkey foreign key (sub_consumer) references pgq.consumer (co_id)
);
alter sequence pgq.subscription_sub_id_seq owned by pgq.subscriber.sub_id;
create index subscriber_sub_id_idx on pgq.subscriber (sub_id);
create index subscriber_consumer_idx on pgq.subscriber (sub_consumer);
comment on table pgq.subscriber is 'Subscriptions; read them with their positions in pgq.subscription';

-- The parent of every event table.
create table pgq.event_template (
    ev_id      bigint not null,
    ev_time    timestamptz not null,
    ev_txid    bigint not null default txid_current(),
    ev_owner   integer,
    ev_retry   integer,
    ev_type    text,
    ev_data    text,
    ev_extra1  text,
    ev_extra2  text,
    ev_extra3  text,
    ev_extra4  text
);
comment on table pgq.event_template is 'The shape, and the privileges, of every event table';

create table pgq.retry_queue (
    ev_retry_after  timestamptz not null,
    ev_queue        integer not null,
    like pgq.event_template,
    constraint rq_pkey primary key (ev_owner, ev_id),
    constraint rq_queue_id_fkey foreign key (ev_queue) references pgq.queue (queue_id)
);
alter table pgq.retry_queue alter column ev_owner set not null, alter column ev_txid drop not null;
create index rq_retry_idx on pgq.retry_queue (ev_retry_after);
create index rq_queue_idx on pgq.retry_queue (ev_queue);
comment on table pgq.retry_queue is 'Events that wait to be delivered again to one subscription';

create sequence pgq.batch_id_seq;
comment on sequence pgq.batch_id_seq is 'Batch ids of all queues';
create sequence pgq.maint_round_seq;
comment on sequence pgq.maint_round_seq is 'Counts maintenance rounds that have extra hooks, see pgq.maint_operations()';

-- pgq.quote_fqname(i_name) -> text
-- Quote a possibly qualified name for use in SQL; it is split at its first dot.
-- i_name     'schema.table' or 'table'; without a schema, public is meant
-- returns    e.g. 'a.b.c' gives a."b.c"; null for null
-- runs as    caller
create or replace function pgq.quote_fqname(i_name text) returns text
language sql immutable strict parallel safe as $$
    select case when pg_catalog.strpos(i_name, '.') > 0
                then pg_catalog.format('%I.%I', pg_catalog.split_part(i_name, '.', 1),
                                       pg_catalog.substr(i_name, pg_catalog.strpos(i_name, '.') + 1))
                else pg_catalog.format('public.%I', i_name) end
$$;

-- pgq.seq_getval(i_seq_name) -> bigint
-- The last value of a sequence, which is not advanced; 1 for one that was never used.
-- i_seq_name sequence, as pgq.quote_fqname() takes it
-- returns    last_value; null for null
-- runs as    caller, who needs SELECT on the sequence
create or replace function pgq.seq_getval(i_seq_name text) returns bigint
language plpgsql strict as $$
declare
    v_value bigint;
begin
    execute pg_catalog.format('select last_value from %s', pgq.quote_fqname(i_seq_name)) into v_value;
    return v_value;
end $$;

-- pgq.seq_setval(i_seq_name, i_new_value) -> bigint
-- Move a sequence forward; it never goes back.
-- i_seq_name  sequence, as pgq.quote_fqname() takes it
-- i_new_value wanted last value
-- returns     the value that the sequence has now; null when an argument is null
-- runs as     caller, who needs UPDATE on the sequence
create or replace function pgq.seq_setval(i_seq_name text, i_new_value int8) returns bigint
language plpgsql strict as $$
declare
    v_value bigint := pgq.seq_getval(i_seq_name);
begin
    if v_value < i_new_value then
        return pg_catalog.setval(pgq.quote_fqname(i_seq_name), i_new_value);
    end if;
    return v_value;
end $$;

-- Where each subscription stands: an append-only log, so that moving a position leaves no dead row behind.
--
-- A move inserts a row with the next pos_seq of its subscription; the newest row counts. The primary key makes two moves
-- from one position collide, whatever snapshots they work with: the second waits for the first to end, then looks again
-- (READ COMMITTED) or fails with 40001 (REPEATABLE READ, SERIALIZABLE). No row is locked, none is updated.
--
-- The log has three slots. Those of this epoch and of the one before are in use; the third is empty, nobody looks at it,
-- so TRUNCATE never waits for a reader. A subscription leaves the old slot by a row marked pos_moved in it (so that the
-- chain of pos_seq is never forked over two slots) and goes on in the new one; maint_rotate_positions() takes along those
-- that did not move by themselves.
create table pgq.position_epoch (
    epoch  bigint not null
);
insert into pgq.position_epoch (epoch) values (0);
comment on table pgq.position_epoch is 'One row: the current slot of the position log is epoch modulo 3';

create table pgq.position_0 (
    pos_sub        integer not null,
    pos_seq        bigint not null,
    pos_moved      boolean not null default false,
    pos_last_tick  bigint,
    pos_active     timestamptz,
    pos_batch      bigint,
    pos_next_tick  bigint,
    pos_holder     text default pg_backend_pid(),
    constraint position_0_pkey primary key (pos_sub, pos_seq)
);
create index position_0_batch_idx on pgq.position_0 (pos_batch) where pos_batch is not null;
create table pgq.position_1 (like pgq.position_0 including defaults, constraint position_1_pkey primary key (pos_sub, pos_seq));
create index position_1_batch_idx on pgq.position_1 (pos_batch) where pos_batch is not null;
create table pgq.position_2 (like pgq.position_0 including defaults, constraint position_2_pkey primary key (pos_sub, pos_seq));
create index position_2_batch_idx on pgq.position_2 (pos_batch) where pos_batch is not null;
comment on column pgq.position_0.pos_holder is 'Who moved there: the worker that was named, or the backend';
comment on column pgq.position_1.pos_holder is 'Who moved there: the worker that was named, or the backend';
comment on column pgq.position_2.pos_holder is 'Who moved there: the worker that was named, or the backend';
comment on table pgq.position_0 is 'Position log, slot 0';
comment on table pgq.position_1 is 'Position log, slot 1';
comment on table pgq.position_2 is 'Position log, slot 2';

-- pgq._position(i_sub) -> record
-- The newest position of a subscription.
-- i_sub      pgq.subscriber.sub_key
-- returns    slot and seq of the row, and what it says; seq is null when the subscription has no position (any more)
-- raises     40001  the position is newer than this transaction's snapshot
-- runs as    owner: pgq.subscription calls it for whoever reads the view
create or replace function pgq._position(
    i_sub integer, out slot integer, out seq bigint,
    out last_tick bigint, out active timestamptz, out batch bigint, out next_tick bigint, out holder text)
returns record
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_pos pgq.position_0;
begin
    -- A rotation between two of these statements can hide a position for a moment: then look once more.
    for v_try in 1..5 loop
        select e.epoch % 3 into slot from pgq.position_epoch e;
        for v_age in 0..1 loop
            if slot = 0 then
                select * into v_pos from pgq.position_0 p where p.pos_sub = i_sub order by p.pos_seq desc limit 1;
            elsif slot = 1 then
                select * into v_pos from pgq.position_1 p where p.pos_sub = i_sub order by p.pos_seq desc limit 1;
            else
                select * into v_pos from pgq.position_2 p where p.pos_sub = i_sub order by p.pos_seq desc limit 1;
            end if;
            exit when found;
            slot := (slot + 2) % 3;
        end loop;
        if v_pos.pos_seq is not null and not v_pos.pos_moved then
            seq := v_pos.pos_seq;
            last_tick := v_pos.pos_last_tick;
            active := v_pos.pos_active;
            batch := v_pos.pos_batch;
            next_tick := v_pos.pos_next_tick;
            holder := v_pos.pos_holder;
            return;
        end if;
    end loop;
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        raise exception 'could not serialize access: the position of this subscription is newer than the snapshot'
            using errcode = '40001', hint = 'run the transaction again';
    end if;
    slot := null;
end $$;

-- pgq._move(i_sub, i_slot, i_seq, i_last_tick, i_batch, i_next_tick, i_active, i_holder) -> boolean
-- Move a subscription on from the position that pgq._position() gave as slot and seq.
-- i_seq      0 for the first position of a new subscription (i_slot is then ignored)
-- i_holder   the worker that has the batch; null: this backend
-- returns    false when another transaction moved it first: look again
-- raises     40001  the same, under REPEATABLE READ and SERIALIZABLE
-- locks      waits for a transaction that has made the same move and is still open
-- runs as    caller, within a security definer function
create or replace function pgq._move(
    i_sub integer, i_slot integer, i_seq bigint,
    i_last_tick bigint, i_batch bigint, i_next_tick bigint, i_active timestamptz, i_holder text default null)
returns boolean
language plpgsql as $$
declare
    v_slot integer;
    v_seq bigint := i_seq + 1;
    v_holder text := coalesce(i_holder, pg_backend_pid()::text);
begin
    select e.epoch % 3 into v_slot from pgq.position_epoch e;
    if i_seq > 0 and v_slot <> i_slot then
        if i_slot = 0 then
            insert into pgq.position_0 (pos_sub, pos_seq, pos_moved) values (i_sub, v_seq, true) on conflict do nothing;
        elsif i_slot = 1 then
            insert into pgq.position_1 (pos_sub, pos_seq, pos_moved) values (i_sub, v_seq, true) on conflict do nothing;
        else
            insert into pgq.position_2 (pos_sub, pos_seq, pos_moved) values (i_sub, v_seq, true) on conflict do nothing;
        end if;
        if not found then
            return false;
        end if;
        v_seq := v_seq + 1;
    end if;
    if v_slot = 0 then
        insert into pgq.position_0 values (i_sub, v_seq, false, i_last_tick, i_active, i_batch, i_next_tick, v_holder)
        on conflict do nothing;
    elsif v_slot = 1 then
        insert into pgq.position_1 values (i_sub, v_seq, false, i_last_tick, i_active, i_batch, i_next_tick, v_holder)
        on conflict do nothing;
    else
        insert into pgq.position_2 values (i_sub, v_seq, false, i_last_tick, i_active, i_batch, i_next_tick, v_holder)
        on conflict do nothing;
    end if;
    return found;
end $$;

-- pgq._set_position(i_sub, i_last_tick, i_batch, i_next_tick, i_active) -> void
-- Put a subscription at a position, whatever it was before.
-- locks      waits for a transaction that moves the same subscription
-- runs as    caller, within a security definer function
create or replace function pgq._set_position(
    i_sub integer, i_last_tick bigint, i_batch bigint, i_next_tick bigint, i_active timestamptz)
returns void
language plpgsql as $$
declare
    v_pos record;
begin
    loop
        v_pos := pgq._position(i_sub);
        exit when pgq._move(i_sub, v_pos.slot, v_pos.seq, i_last_tick, i_batch, i_next_tick, i_active,
                            case when v_pos.batch = i_batch then v_pos.holder end);
    end loop;
end $$;

-- pgq._hold_position(i_sub) -> record
-- Keep a subscription where it is until the transaction ends.
-- returns    its ticks
-- locks      waits for a transaction that moves the subscription
-- runs as    caller, within a security definer function
create or replace function pgq._hold_position(i_sub integer, out last_tick bigint, out next_tick bigint) returns record
language plpgsql as $$
declare
    v_pos record;
begin
    loop
        v_pos := pgq._position(i_sub);
        exit when v_pos.seq is null
               or pgq._move(i_sub, v_pos.slot, v_pos.seq, v_pos.last_tick, v_pos.batch, v_pos.next_tick, v_pos.active, v_pos.holder);
    end loop;
    last_tick := v_pos.last_tick;
    next_tick := v_pos.next_tick;
end $$;

-- pgq._find_batch(i_batch_id) -> record
-- The subscription that has this batch open.
-- returns    its keys, its position (slot, seq), who holds the batch and its ticks, and for a subconsumer the sub_key of its
--            main consumer; sub_key is null when no subscription has it open
-- raises     40001  see pgq._position()
-- runs as    owner: batch functions that run as their caller need it
create or replace function pgq._find_batch(
    i_batch_id bigint, out sub_key integer, out sub_id integer, out queue_id integer, out consumer_id integer,
    out slot integer, out seq bigint, out last_tick bigint, out next_tick bigint, out holder text, out main_key integer)
returns record
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_slot integer;
    v_subs integer[];
    v_sub integer;
    v_pos record;
begin
    -- Only the two slots in use: see the top of this file.
    select e.epoch % 3 into v_slot from pgq.position_epoch e;
    if v_slot = 0 then
        v_subs := array(select p.pos_sub from pgq.position_0 p where p.pos_batch = i_batch_id
                        union all select p.pos_sub from pgq.position_2 p where p.pos_batch = i_batch_id);
    elsif v_slot = 1 then
        v_subs := array(select p.pos_sub from pgq.position_1 p where p.pos_batch = i_batch_id
                        union all select p.pos_sub from pgq.position_0 p where p.pos_batch = i_batch_id);
    else
        v_subs := array(select p.pos_sub from pgq.position_2 p where p.pos_batch = i_batch_id
                        union all select p.pos_sub from pgq.position_1 p where p.pos_batch = i_batch_id);
    end if;
    -- A batch that was carried along, or handed over, stands in the log more than once: the newest row of one decides.
    foreach v_sub in array v_subs loop
        v_pos := pgq._position(v_sub);
        if v_pos.batch = i_batch_id then
            select s.sub_key, s.sub_id, s.sub_queue, s.sub_consumer into sub_key, sub_id, queue_id, consumer_id
              from pgq.subscriber s where s.sub_key = v_sub;
            if found then
                slot := v_pos.slot;
                seq := v_pos.seq;
                last_tick := v_pos.last_tick;
                next_tick := v_pos.next_tick;
                holder := v_pos.holder;
                -- The main consumer is there before its subconsumers, which share its sub_id.
                select min(s.sub_key) into main_key from pgq.subscriber s where s.sub_id = _find_batch.sub_id and s.sub_key < v_sub;
                return;
            end if;
        end if;
    end loop;
end $$;

-- pgq.maint_rotate_positions() -> integer
-- Go over to the empty slot of the position log and take along the subscriptions that stayed in the oldest one.
-- Called by maintenance when the current slot has grown, see pgq.maint_operations(); harmless at any time.
-- returns    0, also when something was in the way (a transaction that still writes the oldest slot): the next round tries again
-- locks      the empty slot ACCESS EXCLUSIVE and the oldest one SHARE ROW EXCLUSIVE, both NOWAIT: readers are never held up
-- runs as    owner
create or replace function pgq.maint_rotate_positions() returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_epoch bigint;
    v_current text;
    v_oldest text;
    v_empty text;
begin
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        return 0;
    end if;
    select e.epoch into v_epoch from pgq.position_epoch e for update skip locked;
    if not found then
        return 0;
    end if;
    v_current := format('pgq.position_%s', v_epoch % 3);
    v_empty := format('pgq.position_%s', (v_epoch + 1) % 3);
    v_oldest := format('pgq.position_%s', (v_epoch + 2) % 3);
    begin
        execute format('lock table %s in access exclusive mode nowait', v_empty);
        execute format('lock table %s in share row exclusive mode nowait', v_oldest);
    exception
        when lock_not_available then
            return 0;
    end;
    execute format('truncate table %s', v_empty);
    execute format($sql$
        with stayed as (
            select p.* from pgq.subscriber s
             cross join lateral (select * from %1$s p where p.pos_sub = s.sub_key order by p.pos_seq desc limit 1) p
             where not p.pos_moved
        ), closed as (
            insert into %1$s (pos_sub, pos_seq, pos_moved)
            select pos_sub, pos_seq + 1, true from stayed
        )
        insert into %2$s
        select pos_sub, pos_seq + 2, false, pos_last_tick, pos_active, pos_batch, pos_next_tick, pos_holder from stayed
        $sql$, v_oldest, v_current);
    update pgq.position_epoch set epoch = epoch + 1;
    return 0;
end $$;

-- pgq.subscription under its old name and columns: subscriptions with their newest positions. It can be written to, too.
create view pgq.subscription as
select s.sub_id, s.sub_queue, s.sub_consumer, p.last_tick as sub_last_tick, p.active as sub_active,
       p.batch as sub_batch, p.next_tick as sub_next_tick
  from pgq.subscriber s
 cross join lateral pgq._position(s.sub_key) p
 where p.seq is not null;
comment on view pgq.subscription is 'Subscriptions: who reads which queue, and where each stands';

-- pgq._write_subscription() -> trigger
-- INSERT, UPDATE and DELETE on the view pgq.subscription.
-- runs as    owner; the view's privileges decide who may
create or replace function pgq._write_subscription() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_sub integer;
begin
    if tg_op = 'INSERT' then
        new.sub_id := coalesce(new.sub_id, nextval('pgq.subscription_sub_id_seq'));
        new.sub_active := coalesce(new.sub_active, now());
        insert into pgq.subscriber (sub_id, sub_queue, sub_consumer)
        values (new.sub_id, new.sub_queue, new.sub_consumer)
        returning sub_key into v_sub;
        perform pgq._move(v_sub, null, 0, new.sub_last_tick, new.sub_batch, new.sub_next_tick, new.sub_active);
        return new;
    end if;
    select s.sub_key into v_sub from pgq.subscriber s
     where s.sub_queue = old.sub_queue and s.sub_consumer = old.sub_consumer;
    if not found then
        return null;
    end if;
    if tg_op = 'DELETE' then
        delete from pgq.subscriber s where s.sub_key = v_sub;
        return old;
    end if;
    if (new.sub_id, new.sub_queue, new.sub_consumer) is distinct from (old.sub_id, old.sub_queue, old.sub_consumer) then
        update pgq.subscriber s
           set sub_id = new.sub_id, sub_queue = new.sub_queue, sub_consumer = new.sub_consumer
         where s.sub_key = v_sub;
    end if;
    perform pgq._set_position(v_sub, new.sub_last_tick, new.sub_batch, new.sub_next_tick, new.sub_active);
    return new;
end $$;

create trigger write_subscription instead of insert or update or delete on pgq.subscription
    for each row execute function pgq._write_subscription();

-- Wake-up: a queue that has it on does not wait to be polled. Its producers notify the ticker when they commit (channel
-- pgq_insert), and its ticks notify the consumers (channel pgq_tick); the payload is the queue's id. One transaction notifies
-- once, however many events it inserts.
-- NOTIFY takes a lock that all databases of a cluster share while its transaction commits, so that commits with it are made one after the
-- other. A ticker that is woken too often therefore says that it looks by itself for a while (pgq.wakeup_state), and the
-- producers save theirs. As a prepared transaction cannot notify, queues that are written to by PREPARE TRANSACTION leave it off.
create table pgq.queue_option (
    queue_id  integer not null,
    wakeup    boolean not null default false,
    constraint queue_option_pkey primary key (queue_id),
    constraint queue_option_queue_fkey foreign key (queue_id) references pgq.queue (queue_id) on delete cascade
);
comment on table pgq.queue_option is 'Settings of queues beyond those of pgq.queue: see pgq.set_wakeup()';

-- 1: producers notify, 2: the ticker looks by itself. A sequence, because what it holds is seen at once by all, and costs no
-- dead rows.
create sequence pgq.wakeup_state maxvalue 2 cycle;
comment on sequence pgq.wakeup_state is '1: producers notify the ticker; 2: it looks by itself';

-- pgq.set_wakeup(i_queue_name, i_enabled) -> integer
-- Have the producers of a queue wake the ticker and its ticks wake the consumers, so that an event is on its way within
-- milliseconds; or no longer. Without a listening ticker it changes nothing but the cost of NOTIFY.
-- returns    1 changed, 0 it was so already
-- raises     PQ001  no such queue
-- raises     PQ008  i_enabled is null
-- locks      the queue's row; a transaction that inserts just now may still act by the old setting
-- runs as    owner
create or replace function pgq.set_wakeup(i_queue_name text, i_enabled boolean) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
begin
    if i_enabled is null then
        raise exception 'Invalid NULL value: wake-up of queue %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ008', hint = format('select pgq.set_wakeup(%L, true)', i_queue_name);
    end if;
    select * into v_queue from pgq.queue q where q.queue_name = i_queue_name for no key update;
    if not found then
        raise exception 'No such event queue: %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    insert into pgq.queue_option as o (queue_id, wakeup) values (v_queue.queue_id, i_enabled)
    on conflict (queue_id) do update set wakeup = excluded.wakeup where o.wakeup <> excluded.wakeup;
    if not found then
        return 0;
    end if;
    perform pgq._make_queue_code(v_queue);
    return 1;
end $$;

-- pgq._wakes(i_queue_id) -> boolean
-- Whether a queue has wake-up on.
-- runs as    caller, within a security definer function
create or replace function pgq._wakes(i_queue_id integer) returns boolean
language sql stable as $$
    select exists (select from pgq.queue_option o where o.queue_id = i_queue_id and o.wakeup)
$$;

-- pgq.wakeup_polling(i_polling) -> void
-- A ticker says whether it looks for events by itself, so that producers need not notify. What was inserted before the
-- change may still be without a notification when it commits: go on looking until those transactions have ended.
-- runs as    owner
create or replace function pgq.wakeup_polling(i_polling boolean) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select pg_catalog.setval('pgq.wakeup_state', case when i_polling then 2 else 1 end)
$$;

-- pgq.tick_now(i_queue_name) -> bigint
-- Make a tick for one queue whatever its settings, if there are committed events that no tick covers yet.
-- returns    the tick's id; null when there is nothing to tick, or the queue is ticked from elsewhere, or paused
-- raises     PQ001  no such queue
-- raises     PQ011, 40001  as pgq.ticker(text)
-- locks      as pgq.ticker(text)
-- runs as    owner
create or replace function pgq.tick_now(i_queue_name text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
begin
    select * into v_queue from pgq.queue q where q.queue_name = i_queue_name;
    if not found then
        raise exception 'no such queue: %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    if v_queue.queue_external_ticker or v_queue.queue_ticker_paused then
        return null;
    end if;
    perform pg_advisory_xact_lock('pgq.tick'::regclass::oid::bigint::integer, v_queue.queue_id);
    if not pgq._has_new_events(v_queue.queue_id) then
        return null;
    end if;
    return pgq._tick(v_queue.queue_id, true);
end $$;

-- pgq.tick_new() -> integer
-- Make ticks for all queues that have wake-up on and committed events that no tick covers yet.
-- returns    how many queues got one
-- raises     PQ011, 40001  as pgq.ticker(text)
-- locks      as pgq.ticker(); a queue that another ticker is just ticking is left to it
-- runs as    owner
create or replace function pgq.tick_new() returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue_id integer;
    v_count integer := 0;
begin
    for v_queue_id in
        select q.queue_id from pgq.queue_option o join pgq.queue q on q.queue_id = o.queue_id
         where o.wakeup and not q.queue_external_ticker and not q.queue_ticker_paused
         order by q.queue_id
    loop
        if pg_try_advisory_xact_lock('pgq.tick'::regclass::oid::bigint::integer, v_queue_id)
           and pgq._has_new_events(v_queue_id) and pgq._tick(v_queue_id, true) is not null then
            v_count := v_count + 1;
        end if;
    end loop;
    return v_count;
end $$;

-- pgq._has_new_events(i_queue_id) -> boolean
-- Whether there are committed events that the queue's newest tick does not cover.
-- runs as    caller, within a security definer function
create or replace function pgq._has_new_events(i_queue_id integer) returns boolean
language plpgsql as $$
declare
    v_snapshot txid_snapshot;
    v_newer boolean;
begin
    select t.tick_snapshot into v_snapshot from pgq.tick t where t.tick_queue = i_queue_id
     order by t.tick_queue desc, t.tick_id desc limit 1;
    if not found then
        return true;
    end if;
    execute format('select pgq.event_%s_newer($1)', i_queue_id) into v_newer using v_snapshot;
    return coalesce(v_newer, false);
end $$;

-- Code that is generated for each queue: it inserts statically into the queue's current table, so its plan is cached, and
-- holds no check that the queue's settings do not ask for. Made anew whenever the row in pgq.queue changes. As functions
-- are found by the newest catalog, not by the transaction's snapshot, an old REPEATABLE READ transaction, too, inserts
-- into the table that is current now.

-- pgq._event_table(i_queue_id, i_slot) -> text
-- The name of a queue's data table: made of the queue's id alone, so it needs no quoting, and nobody can change it.
-- runs as    caller
create or replace function pgq._event_table(i_queue_id integer, i_slot integer) returns text
language sql immutable as $$
    select pg_catalog.format('pgq.event_%s_%s', i_queue_id, i_slot)
$$;

-- pgq._event_seq(i_queue_id) -> regclass
-- The sequence of a queue's event ids.
-- runs as    caller
create or replace function pgq._event_seq(i_queue_id integer) returns regclass
language sql stable as $$
    select pg_catalog.format('pgq.event_%s_id_seq', i_queue_id)::pg_catalog.regclass
$$;

-- pgq._make_queue_code(i_queue) -> void
-- Write the functions of one queue: event_<id>_insert() inserts an event, event_<id>_insert_many() as many as its arrays
-- hold; event_<id>_slot() tells the current table's number, and so does event_<id>_admit(count), after the checks that so many
-- more events ask for: bulk writers call it, and insert into that table themselves. Captures do so under any search_path, so
-- its names are qualified, operators too. event_<id>_newer(snapshot) tells whether there are committed events that a tick with
-- that snapshot does not cover.
-- runs as    caller, within a security definer function
create or replace function pgq._make_queue_code(i_queue pgq.queue) returns void
language plpgsql as $make$
declare
    v_note text := format('skytools: generated for queue %L from pgq.queue; regenerate: select pgq.refresh_code()', i_queue.queue_name);
    v_table text := pgq._event_table(i_queue.queue_id, i_queue.queue_cur_table);
    v_checks text := '';
    v_function record;
begin
    if i_queue.queue_disable_insert then
        v_checks := v_checks || format($part$
    if pg_catalog.current_setting('session_replication_role') operator(pg_catalog.<>) 'replica' then
        raise exception 'Insert into queue disallowed: %%', %1$L
            using errcode = 'PQ006',
                  hint = pg_catalog.format('to allow it: update pgq.queue set queue_disable_insert = false where queue_name = %%L', %1$L);
    end if;$part$, i_queue.queue_name);
    end if;
    if i_queue.queue_per_tx_limit is not null then
        -- A transaction-local setting counts: a rolled back savepoint takes it back, the end of the transaction clears it.
        v_checks := v_checks || format($part$
    v_count := pg_catalog.concat('0', pg_catalog.current_setting('pgq.events_in_tx_%1$s', true))::bigint operator(pg_catalog.+) i_count;
    if v_count operator(pg_catalog.>) %2$s then
        raise exception 'Queue %% allows max %% events from one TX', pg_catalog.quote_literal(%3$L), %2$s
            using errcode = 'PQ007', hint = 'commit more often, or raise queue_per_tx_limit in pgq.queue';
    end if;
    perform pg_catalog.set_config('pgq.events_in_tx_%1$s', v_count::pg_catalog.text, true);$part$,
            i_queue.queue_id, i_queue.queue_per_tx_limit, i_queue.queue_name);
    end if;

    if pgq._wakes(i_queue.queue_id) then
        -- Null as long as nobody has set it.
        v_checks := v_checks || format($part$
    if coalesce(pg_catalog.pg_sequence_last_value('pgq.wakeup_state'), 0) operator(pg_catalog.<>) 2 then
        perform pg_catalog.pg_notify('pgq_insert', '%s');
    end if;$part$, i_queue.queue_id);
    end if;

    for v_function in
        select * from (values
            ('slot()', 'integer language sql', format('select %s', i_queue.queue_cur_table)),
            ('admit(i_count bigint)',
             case when v_checks = '' then 'integer language sql' else 'integer language plpgsql' end,
             case when v_checks = '' then format('select %s', i_queue.queue_cur_table)
                  else format(e'\ndeclare\n    v_count bigint;\nbegin%s\n    return %s;\nend ', v_checks, i_queue.queue_cur_table) end),
            -- By the indexes alone, whatever the statistics say: the newest event, then those of transactions open at the tick.
            ('newer(i_snapshot txid_snapshot)', 'boolean language plpgsql set enable_seqscan = off', format($body$
declare
    v_open bigint[];
begin
    if greatest((select e.ev_txid from pgq.event_%1$s_0 e order by e.ev_txid desc limit 1),
                (select e.ev_txid from pgq.event_%1$s_1 e order by e.ev_txid desc limit 1),
                (select e.ev_txid from pgq.event_%1$s_2 e order by e.ev_txid desc limit 1)) >= txid_snapshot_xmax(i_snapshot) then
        return true;
    elsif txid_snapshot_xmin(i_snapshot) = txid_snapshot_xmax(i_snapshot) then
        return false;
    end if;
    v_open := array(select txid_snapshot_xip(i_snapshot));
    return exists (select from pgq.event_%1$s_0 e where e.ev_txid = any (v_open))
        or exists (select from pgq.event_%1$s_1 e where e.ev_txid = any (v_open))
        or exists (select from pgq.event_%1$s_2 e where e.ev_txid = any (v_open));
end $body$, i_queue.queue_id)),
            ('insert(i_ev_id bigint, i_ev_time timestamptz, i_ev_owner integer, i_ev_retry integer, i_ev_type text, i_ev_data text, '
             'i_ev_extra1 text, i_ev_extra2 text, i_ev_extra3 text, i_ev_extra4 text)',
             'bigint language plpgsql',
             format($body$
declare
    v_ev_id bigint := nextval('pgq.event_%1$s_id_seq');
begin%2$s
    insert into %3$s (ev_id, ev_time, ev_owner, ev_retry, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4)
    values (coalesce(i_ev_id, v_ev_id), coalesce(i_ev_time, now()), i_ev_owner, i_ev_retry, i_ev_type, i_ev_data,
            i_ev_extra1, i_ev_extra2, i_ev_extra3, i_ev_extra4);
    return coalesce(i_ev_id, v_ev_id);
end $body$, i_queue.queue_id,
                case when v_checks <> '' then format($part$
    -- Events that come back for a retry are let in whatever the limit.
    perform pgq.event_%s_admit(case when i_ev_owner is null then 1 else 0 end);$part$, i_queue.queue_id) else '' end, v_table)),
            -- The ids: all from o_first to o_last, or, where others drew some of those, the list o_ids.
            ('insert_many(i_types text[], i_datas text[], i_extra1 text[], i_extra2 text[], i_extra3 text[], i_extra4 text[], '
             'out o_first bigint, out o_last bigint, out o_ids bigint[])',
             'record language plpgsql',
             format($body$
declare
    v_time timestamptz := now();
    v_txid bigint := txid_current();
begin
    perform pgq.event_%1$s_admit(cardinality(i_types));
    if cardinality(i_types) = 0 then
        o_first := 1;
        o_last := 0;
        return;
    end if;
    o_first := coalesce(pg_sequence_last_value('pgq.event_%1$s_id_seq'), 0) + 1;
    -- In the select list unnest gives row by row what it would store first in FROM. Ids are drawn by the column's default.
    if coalesce(i_extra1, i_extra2, i_extra3, i_extra4) is null then
        insert into %2$s (ev_time, ev_txid, ev_type, ev_data) select v_time, v_txid, unnest(i_types), unnest(i_datas);
    else
        insert into %2$s (ev_time, ev_txid, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4)
        select v_time, v_txid, unnest(i_types), unnest(i_datas), unnest(i_extra1), unnest(i_extra2), unnest(i_extra3), unnest(i_extra4);
    end if;
    o_last := currval('pgq.event_%1$s_id_seq');
    if o_last - o_first + 1 <> cardinality(i_types) then
        o_ids := array(select e.ev_id from pgq.event_%1$s e
                        where e.ev_txid = v_txid and e.ev_id between o_first and o_last order by e.ev_id);
    end if;
end $body$, i_queue.queue_id, v_table))
        ) as f (signature, result, body)
    loop
        execute format('create or replace function pgq.event_%s_%s returns %s as %L',
                       i_queue.queue_id, v_function.signature, v_function.result, v_function.body);
    end loop;
    for v_function in select * from pgq._queue_functions(i_queue.queue_id) f loop
        execute format('revoke all on function %s from public', v_function.f);
        execute format('comment on function %s is %L', v_function.f, v_note);
    end loop;
end $make$;

-- pgq._queue_functions(i_queue_id) -> setof regprocedure
-- The functions that were generated for a queue.
-- runs as    caller
create or replace function pgq._queue_functions(i_queue_id integer) returns setof regprocedure
language sql stable as $$
    select p.oid::pg_catalog.regprocedure from pg_catalog.pg_proc p
     where p.pronamespace = 'pgq'::pg_catalog.regnamespace
       and p.proname = any (array[pg_catalog.format('event_%s_slot', i_queue_id), pg_catalog.format('event_%s_admit', i_queue_id),
                                  pg_catalog.format('event_%s_insert', i_queue_id), pg_catalog.format('event_%s_insert_many', i_queue_id),
                                  pg_catalog.format('event_%s_newer', i_queue_id)])
$$;

-- pgq._name_tree(i_names, i_ids, i_variable, i_call, i_low, i_high) -> text
-- PL/pgSQL that finds a queue by name, by binary search, and makes a call for it.
-- i_names    queue names in the order of collation "C"
-- i_ids      their ids
-- i_variable what holds the name
-- i_call     statements, in which %s stands for the queue's id
-- runs as    caller
create or replace function pgq._name_tree(
    i_names text[], i_ids integer[], i_variable text, i_call text, i_low integer, i_high integer)
returns text
language plpgsql immutable as $$
declare
    v_middle integer := (i_low + i_high + 1) / 2;
begin
    if i_low = i_high then
        return format(e'if %s = %L then %s end if;\n', i_variable, i_names[i_low], format(i_call, i_ids[i_low]));
    end if;
    return format(e'if %s < %L collate "C" then\n%selse\n%send if;\n', i_variable, i_names[v_middle],
                  pgq._name_tree(i_names, i_ids, i_variable, i_call, i_low, v_middle - 1),
                  pgq._name_tree(i_names, i_ids, i_variable, i_call, v_middle, i_high));
end $$;

-- pgq._make_insert_event() -> void
-- Write pgq.insert_event() and pgq.insert_events() for the queues that there are now.
-- runs as    caller, within a security definer function
create or replace function pgq._make_insert_event() returns void
language plpgsql as $make$
declare
    v_names text[];
    v_ids integer[];
    v_arguments text := 'null, null, null, null, ev_type, ev_data, ';
    v_function record;
begin
    select array_agg(q.queue_name order by q.queue_name collate "C"),
           array_agg(q.queue_id order by q.queue_name collate "C")
      into v_names, v_ids from pgq.queue q;
    for v_function in
        select * from (values
            ('insert_event(queue_name text, ev_type text, ev_data text)', 'bigint', '', e'begin\n', '', 'queue_name',
             'return pgq.event_%s_insert(' || v_arguments || 'null, null, null, null);'),
            ('insert_event(queue_name text, ev_type text, ev_data text, ev_extra1 text, ev_extra2 text, ev_extra3 text, ev_extra4 text)',
             'bigint', '', e'begin\n', '', 'queue_name',
             'return pgq.event_%s_insert(' || v_arguments || 'ev_extra1, ev_extra2, ev_extra3, ev_extra4);'),
            -- The ids are gathered in memory before they are returned: work_mem of the usual 4 MB would hold some 80,000. And a
            -- plan of its own for each call would copy the arrays into the plan.
            ('insert_events(queue text, types text[], datas text[], extra1 text[] default null, extra2 text[] default null, '
             'extra3 text[] default null, extra4 text[] default null)', 'setof bigint', $$set work_mem = '64MB' set plan_cache_mode = 'force_generic_plan'$$,
             e'declare\n    v_first bigint;\n    v_last bigint;\n    v_ids bigint[];\nbegin\n'
             '    perform pgq._check_arrays(queue, types, datas, extra1, extra2, extra3, extra4);\n',
             e'    if v_ids is not null then\n        return query select unnest(v_ids);\n        return;\n'
             '    elsif v_first is not null then\n        return query select generate_series(v_first, v_last);\n        return;\n    end if;\n',
             'queue', 'select * into v_first, v_last, v_ids from pgq.event_%s_insert_many(types, datas, extra1, extra2, extra3, extra4);')
        ) as f (signature, result, settings, head, tail, variable, call)
    loop
        execute format($function$
create or replace function pgq.%s returns %s
language plpgsql security definer set search_path = pg_catalog, pg_temp %s as %L$function$,
            v_function.signature, v_function.result, v_function.settings, format($body$
%1$s%2$s%3$s    raise exception '%%', coalesce('No such queue: ' || %4$s, 'Queue name must not be NULL')
        using errcode = case when %4$s is null then 'PQ008' else 'PQ001' end,
              hint = 'queues there are: select queue_name from pgq.queue';
end $body$, v_function.head,
            case when v_names is null then ''
                 else pgq._name_tree(v_names, v_ids, v_function.variable, v_function.call, 1, cardinality(v_names)) end,
            v_function.tail, v_function.variable));
    end loop;
end $make$;

-- pgq.refresh_code() -> integer
-- Generate the code of every queue anew, and pgq.insert_event(), and drop the code of triggers that are gone; for after a
-- restore or a repair by hand.
-- returns    number of queues
-- locks      as pgq.create_queue()
-- runs as    owner
create or replace function pgq.refresh_code() returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
    v_count integer := 0;
begin
    perform pgq._lock_queue_set();
    for v_queue in select * from pgq.queue order by queue_id loop
        perform pgq._make_queue_code(v_queue);
        v_count := v_count + 1;
    end loop;
    perform pgq._make_insert_event();
    perform pgq._drop_trigger_code();
    return v_count;
end $$;

-- pgq._lock_queue_set() -> void
-- One transaction at a time changes the set of queues: pgq.insert_event() is one function for all of them.
-- locks      an advisory lock, to the end of the transaction; nobody but create_queue, drop_queue and the like takes it
-- runs as    caller
create or replace function pgq._lock_queue_set() returns void
language sql as $$
    select pg_advisory_xact_lock('pgq.queue'::regclass::oid::bigint::integer, 0)
$$;

-- pgq._queue_changed() -> trigger
-- Keep the generated code in step with pgq.queue.
-- runs as    owner: an operator with UPDATE on pgq.queue need not own functions
create or replace function pgq._queue_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if tg_op <> 'DELETE' then
        perform pgq._make_queue_code(new);
    end if;
    if tg_op = 'DELETE' or tg_op = 'UPDATE' and new.queue_name <> old.queue_name then
        perform pgq._drop_queue_code(old.queue_id);
    end if;
    if tg_op = 'DELETE' and current_setting('skytools.keep_code', true) = 'on' then
        return null; -- skytools.wipe() drops many, and makes the code anew afterwards
    end if;
    if tg_op <> 'UPDATE' or new.queue_name <> old.queue_name then
        perform pgq._lock_queue_set();
        perform pgq._make_insert_event();
    end if;
    return null;
end $$;

create trigger queue_changed after insert or delete on pgq.queue
    for each row execute function pgq._queue_changed();
create trigger queue_settings_changed after update on pgq.queue
    for each row when ((old.queue_name, old.queue_cur_table, old.queue_disable_insert, old.queue_per_tx_limit)
        is distinct from (new.queue_name, new.queue_cur_table, new.queue_disable_insert, new.queue_per_tx_limit))
    execute function pgq._queue_changed();

-- pgq._sealed() -> trigger
-- Guards a data table that takes no more events (see pgq.maint_rotate_tables_step2()): a statement that chose it before
-- the rotation, and reaches it only after, has its event put into the current table instead.
-- raises     40001  there is no saying which table is current
-- runs as    owner
create or replace function pgq._sealed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_current text;
begin
    execute format('select %L || pgq.event_%s_slot()', format('event_%s_', tg_argv[0]), tg_argv[0]) into v_current;
    if v_current = tg_table_name then
        raise exception 'could not serialize access: %.% takes no more events', tg_table_schema, tg_table_name
            using errcode = '40001', hint = 'run the transaction again';
    end if;
    execute format('insert into pgq.%I select ($1).*', v_current) using new;
    return null;
end $$;

-- pgq.create_queue(i_queue_name) -> integer
-- Create a queue with its tables, sequences, code and first tick.
-- i_queue_name any text; tables are named by the queue's id, so every name is safe
-- returns    1 created, 0 there is one already
-- raises     PQ008  the name is null
-- locks      one change to the set of queues at a time, to the end of the transaction
-- runs as    owner
create or replace function pgq.create_queue(i_queue_name text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_id integer;
    v_table text;
begin
    if i_queue_name is null then
        raise exception 'Invalid NULL value: queue name'
            using errcode = 'PQ008', hint = 'select pgq.create_queue(''name'')';
    end if;
    perform pgq._lock_queue_set();
    perform 1 from pgq.queue q where q.queue_name = i_queue_name;
    if found then
        return 0;
    end if;

    v_id := nextval('pgq.queue_queue_id_seq');
    v_table := format('event_%s', v_id);
    execute format('create sequence pgq.%I', v_table || '_id_seq');
    execute format('create sequence pgq.%I', v_table || '_tick_seq');
    execute format('create table pgq.%I () inherits (pgq.event_template)', v_table);
    for v_slot in 0..2 loop
        execute format('create table pgq.%I () inherits (pgq.%I)', format('%s_%s', v_table, v_slot), v_table);
        execute format('alter table pgq.%I alter column ev_id set default nextval(%L)',
                       format('%s_%s', v_table, v_slot), format('pgq.%s_id_seq', v_table));
        execute format('create index %I on pgq.%I (ev_txid)',
                       format('%s_%s_txid_idx', v_table, v_slot), format('%s_%s', v_table, v_slot));
    end loop;
    execute format('comment on table pgq.%I is %L', v_table, 'skytools: events of queue ' || quote_literal(i_queue_name));

    insert into pgq.queue (queue_id, queue_name, queue_data_pfx, queue_event_seq, queue_tick_seq)
    values (v_id, i_queue_name, 'pgq.' || v_table, format('pgq.%s_id_seq', v_table), format('pgq.%s_tick_seq', v_table));
    perform pgq.grant_perms(i_queue_name);
    perform pgq.tune_storage(i_queue_name);
    perform pgq.ticker(i_queue_name);
    return 1;
end $$;

-- pgq.drop_queue(x_queue_name, x_force) -> integer
-- Drop a queue with everything in it.
-- x_queue_name the queue
-- x_force    true: its subscriptions go too, open batches included, and captures into it end
-- returns    1
-- raises     PQ001  no such queue
-- raises     PQ009  consumers are still attached, and x_force is not true
-- raises     PQ015  tables are captured into it, and x_force is not true
-- locks      the queue's row, then its tables ACCESS EXCLUSIVE: waits for transactions that use them
-- runs as    owner
create or replace function pgq.drop_queue(x_queue_name text, x_force bool) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
    v_consumers text;
    v_tables text;
    v_function regprocedure;
begin
    perform pgq._lock_queue_set();
    select * into v_queue from pgq.queue q where q.queue_name = x_queue_name for update;
    if not found then
        raise exception 'No such event queue: %', coalesce(x_queue_name, 'NULL')
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    if x_force then
        perform pgq.unregister_consumer(i.queue_name, i.consumer_name)
           from pgq.get_consumer_info(x_queue_name) i;
        perform pgq._drop_capture(c.cap_id, true) from pgq.captured c where c.cap_queue = v_queue.queue_id;
    else
        select string_agg(quote_ident(c.co_name), ', ' order by c.co_name) into v_consumers
          from pgq.subscriber s join pgq.consumer c on c.co_id = s.sub_consumer
         where s.sub_queue = v_queue.queue_id;
        if v_consumers is not null then
            raise exception 'cannot drop queue, consumers still attached: queue %, consumers %', quote_ident(x_queue_name), v_consumers
                using errcode = 'PQ009', hint = format('to drop them too: select pgq.drop_queue(%L, true)', x_queue_name);
        end if;
        perform pgq._drop_capture(c.cap_id, true) from pgq.captured c
          where c.cap_queue = v_queue.queue_id and not exists (select from pg_class r where r.oid = c.cap_table);
        select string_agg(c.cap_table::text, ', ' order by c.cap_table) into v_tables from pgq.captured c where c.cap_queue = v_queue.queue_id;
        if v_tables is not null then
            raise exception 'cannot drop queue %, tables are captured into it: %', quote_ident(x_queue_name), v_tables
                using errcode = 'PQ015', hint = format('to end that too: select pgq.drop_queue(%L, true)', x_queue_name);
        end if;
    end if;

    for v_slot in 0 .. v_queue.queue_ntables - 1 loop
        execute format('drop table %s', pgq._event_table(v_queue.queue_id, v_slot));
    end loop;
    execute format('drop table pgq.event_%s', v_queue.queue_id);
    delete from pgq.tick t where t.tick_queue = v_queue.queue_id;
    delete from pgq.retry_queue r where r.ev_queue = v_queue.queue_id;
    delete from pgq.dead_letter d where d.queue_name = x_queue_name;
    delete from pgq.queue q where q.queue_id = v_queue.queue_id;
    execute format('drop sequence pgq.event_%1$s_id_seq, pgq.event_%1$s_tick_seq', v_queue.queue_id);
    for v_function in select * from pgq._queue_functions(v_queue.queue_id) loop
        execute format('drop function %s', v_function);
    end loop;
    return 1;
end $$;

-- pgq.drop_queue(x_queue_name) -> integer
-- Drop a queue that has no consumers.
-- returns    1; null for null
-- raises     PQ001  no such queue
-- raises     PQ009  consumers are still attached
-- raises     PQ015  tables are captured into it
-- runs as    caller; see pgq.drop_queue(text, bool)
create or replace function pgq.drop_queue(x_queue_name text) returns integer
language sql strict as $$
    select pgq.drop_queue(x_queue_name, false)
$$;

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

-- pgq.insert_event(queue_name, ev_type, ev_data) -> bigint
-- Put an event into a queue, as part of the caller's transaction: it exists when that commits.
-- queue_name the queue
-- ev_type    what kind of event; any text
-- ev_data    payload; any text
-- returns    the event's id
-- raises     PQ001  no such queue
-- raises     PQ006  the queue does not take events (queue_disable_insert)
-- raises     PQ007  more events in one transaction than queue_per_tx_limit
-- raises     PQ008  the queue name is null
-- locks      the queue's current table ROW EXCLUSIVE, like any INSERT
-- runs as    owner: a producer needs EXECUTE, no table right
-- see        generated for the queues there are, by pgq._make_insert_event()

-- pgq.insert_event(queue_name, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4) -> bigint
-- Put an event with extra fields into a queue, as part of the caller's transaction.
-- queue_name the queue
-- ev_type    what kind of event; any text
-- ev_data    payload; any text
-- ev_extra1  further fields, for the application; so are ev_extra2, ev_extra3 and ev_extra4
-- returns    the event's id
-- raises     PQ001, PQ006, PQ007, PQ008  as the short form
-- runs as    owner

-- pgq.insert_event_raw(queue_name, ev_id, ev_time, ev_owner, ev_retry, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4) -> bigint
-- Put an event with given id, time, owner and retry count into a queue: for replication and for events that come back.
-- The queue's event sequence advances in any case, so that the ticker takes notice.
-- queue_name the queue
-- ev_id      null: the next of the sequence
-- ev_time    null: now()
-- ev_owner   sub_id of the only subscription that shall see it; null: all. Not counted against queue_per_tx_limit if set
-- ev_retry   how often it was retried; null: never
-- returns    the event's id
-- raises     PQ001, PQ006, PQ007, PQ008  as pgq.insert_event()
-- runs as    owner
create or replace function pgq.insert_event_raw(
    queue_name text, ev_id bigint, ev_time timestamptz, ev_owner integer, ev_retry integer, ev_type text, ev_data text,
    ev_extra1 text, ev_extra2 text, ev_extra3 text, ev_extra4 text)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue_id integer;
    v_id bigint;
begin
    if queue_name is null then
        raise exception 'Queue name must not be NULL'
            using errcode = 'PQ008', hint = 'name a queue: select queue_name from pgq.queue';
    end if;
    select q.queue_id into v_queue_id from pgq.queue q where q.queue_name = insert_event_raw.queue_name;
    if not found then
        raise exception 'No such queue: %', queue_name
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    execute format('select pgq.event_%s_insert($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)', v_queue_id) into v_id
      using ev_id, ev_time, ev_owner, ev_retry, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4;
    return v_id;
end $$;

-- pgq.current_event_table(x_queue_name) -> text
-- The table that takes a queue's events now, for INSERT and COPY straight into it. ev_id and ev_txid have defaults,
-- ev_time must be given. The name holds to the end of the transaction: the table cannot be rotated away before.
-- returns    e.g. 'pgq.event_1_0', needs no quoting
-- raises     PQ001  no such queue
-- raises     PQ006  the queue does not take events (unless session_replication_role is replica)
-- locks      the table ROW EXCLUSIVE
-- runs as    owner; to write the table the caller needs INSERT on it (pgq_admin)
create or replace function pgq.current_event_table(x_queue_name text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
    v_slot integer;
    v_again integer;
begin
    select * into v_queue from pgq.queue q where q.queue_name = x_queue_name;
    if not found then
        raise exception 'Event queue not found: %', coalesce(x_queue_name, 'NULL')
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    if v_queue.queue_disable_insert and current_setting('session_replication_role') <> 'replica' then
        raise exception 'Writing to queue disabled: %', x_queue_name
            using errcode = 'PQ006', hint = format('to allow it: update pgq.queue set queue_disable_insert = false where queue_name = %L', x_queue_name);
    end if;
    -- Asked of the catalog, which is newer than the snapshot of an old REPEATABLE READ transaction.
    execute format('select pgq.event_%s_slot()', v_queue.queue_id) into v_slot;
    loop
        execute format('lock table %s in row exclusive mode', pgq._event_table(v_queue.queue_id, v_slot));
        execute format('select pgq.event_%s_slot()', v_queue.queue_id) into v_again;
        exit when v_again = v_slot;
        v_slot := v_again;
    end loop;
    return pgq._event_table(v_queue.queue_id, v_slot);
end $$;

-- pgq._check_arrays(i_queue, i_types, i_datas, i_extra1, i_extra2, i_extra3, i_extra4) -> void
-- See that the arrays of pgq.insert_events() fit together.
-- raises     PQ008  i_types is null, or an array is not as long as i_types or has more than one dimension
-- runs as    caller
create or replace function pgq._check_arrays(
    i_queue text, i_types text[], i_datas text[], i_extra1 text[], i_extra2 text[], i_extra3 text[], i_extra4 text[])
returns void
language plpgsql as $$
declare
    v_bad text;
begin
    if i_types is null then
        v_bad := 'types is null';
    else
        select string_agg(format('%s has %s elements', a.name, cardinality(a.list)), ', ') into v_bad
          from (values ('types', i_types), ('datas', i_datas), ('extra1', i_extra1), ('extra2', i_extra2),
                       ('extra3', i_extra3), ('extra4', i_extra4)) as a (name, list)
         where cardinality(a.list) <> cardinality(i_types) or array_ndims(a.list) > 1;
    end if;
    if v_bad is not null then
        raise exception 'insert_events into queue %: each array must have one dimension and the length of types (%): %',
            coalesce(i_queue, 'NULL'), coalesce(cardinality(i_types)::text, 'null'), v_bad
            using errcode = 'PQ008', hint = 'an array for a field that no event has may be null';
    end if;
end $$;

-- pgq.insert_events(queue, types, datas, extra1, extra2, extra3, extra4) -> setof bigint
-- Put many events into a queue in one call: the n-th event has the n-th element of each array.
-- queue      the queue
-- types      event types
-- datas      payloads, as many as types; null: all payloads are null
-- extra1     further fields, as many as types; null: none; so are extra2, extra3 and extra4
-- returns    the event ids, ascending, in the order of the arrays; no rows for empty arrays
-- raises     PQ001, PQ006, PQ007  as pgq.insert_event(); then no event is inserted
-- raises     PQ008  types is null, or an array is not as long as types or has more than one dimension
-- locks      the queue's current table ROW EXCLUSIVE
-- runs as    owner
-- see        generated for the queues there are, by pgq._make_insert_event()
do $$
declare
    v_function regprocedure;
begin
    perform pgq._make_insert_event();
    foreach v_function in array array['pgq.insert_event(text, text, text)', 'pgq.insert_event(text, text, text, text, text, text, text)']::regprocedure[] loop
        execute format('comment on function %s is %L', v_function,
                       'skytools: generated from pgq.queue; puts an event into a queue and returns its id; regenerate: select pgq.refresh_code()');
    end loop;
end $$;
comment on function pgq.insert_events(text, text[], text[], text[], text[], text[], text[]) is
    'skytools: generated from pgq.queue; puts many events into a queue in one call and returns their ids; regenerate: select pgq.refresh_code()';

-- pgq.insert_events(queue, events) -> setof bigint
-- Put many events into a queue in one call, each given as a JSON object.
-- queue      the queue
-- events     objects with the keys type, data, extra1, extra2, extra3, extra4, none of them required. A string is stored as
--            its text, null as null, everything else as JSON text
-- returns    the event ids, ascending, in the order of the array; no rows for an empty array
-- raises     PQ001, PQ006, PQ007  as pgq.insert_event(); then no event is inserted
-- raises     PQ008  events is null, an element is not an object or has another key
-- locks      the queue's current table ROW EXCLUSIVE
-- runs as    owner
create or replace function pgq.insert_events(queue text, events jsonb[]) returns setof bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set work_mem = '64MB' as $$
declare
    v_bad text;
begin
    if events is null then
        v_bad := 'events is null';
    else
        select format('element %s is %s', e.n, coalesce(left(e.event::text, 100), 'null')) into v_bad
          from unnest(events) with ordinality e (event, n)
         where jsonb_typeof(e.event) is distinct from 'object'
            or (e.event - array['type', 'data', 'extra1', 'extra2', 'extra3', 'extra4']) <> '{}'
         order by e.n limit 1;
    end if;
    if v_bad is not null then
        raise exception 'insert_events into queue %: events must be objects with the keys type, data, extra1 .. extra4: %',
            coalesce(queue, 'NULL'), v_bad
            using errcode = 'PQ008', hint = 'e.g. array[''{"type": "t", "data": {"a": 1}}''::jsonb]';
    end if;
    return query
        select i.id
          from (select array_agg(e.event->>'type' order by e.n) as types, array_agg(e.event->>'data' order by e.n) as datas,
                       array_agg(e.event->>'extra1' order by e.n) as extra1, array_agg(e.event->>'extra2' order by e.n) as extra2,
                       array_agg(e.event->>'extra3' order by e.n) as extra3, array_agg(e.event->>'extra4' order by e.n) as extra4
                  from unnest(events) with ordinality e (event, n)) a
         cross join lateral pgq.insert_events(queue, coalesce(a.types, '{}'), a.datas, a.extra1, a.extra2, a.extra3, a.extra4) i (id);
end $$;

-- pgq.insert_json(queue, ev_type, payload, ev_extra1, ev_extra2, ev_extra3, ev_extra4) -> bigint
-- Put an event with a JSON payload into a queue; pgq.get_batch_json() reads it back as jsonb.
-- queue      the queue
-- payload    any JSON; stored as its text in ev_data; null as null
-- returns    the event's id
-- raises     PQ001, PQ006, PQ007, PQ008  as pgq.insert_event()
-- runs as    caller; see pgq.insert_event()
create or replace function pgq.insert_json(
    queue text, ev_type text, payload jsonb,
    ev_extra1 text default null, ev_extra2 text default null, ev_extra3 text default null, ev_extra4 text default null)
returns bigint
language sql as $$
    select pgq.insert_event(queue, ev_type, payload::text, ev_extra1, ev_extra2, ev_extra3, ev_extra4)
$$;

-- pgq.get_batch_json(x_batch_id) -> setof record
-- The events of an open batch, with ev_data as jsonb.
-- returns    as pgq.get_batch_events(), but payload jsonb in place of ev_data
-- raises     PQ003  no such open batch
-- raises     22P02  ev_data of an event is not JSON
-- runs as    caller; see pgq.get_batch_events()
create or replace function pgq.get_batch_json(
    x_batch_id bigint, out ev_id bigint, out ev_time timestamptz, out ev_txid bigint, out ev_retry int4, out ev_type text,
    out payload jsonb, out ev_extra1 text, out ev_extra2 text, out ev_extra3 text, out ev_extra4 text)
returns setof record
language plpgsql as $$
begin
    return query
    select e.ev_id, e.ev_time, e.ev_txid, e.ev_retry, e.ev_type, e.ev_data::jsonb,
           e.ev_extra1, e.ev_extra2, e.ev_extra3, e.ev_extra4
      from pgq.get_batch_events(x_batch_id) e;
end $$;

-- Events for later wait in a plain table, and are put into their queues by maintenance when their time has come. Rows leave
-- it by DELETE: unlike in a queue, vacuum has work here.
create table pgq.delayed_event (
    delayed_id  bigint generated always as identity,
    queue_id    integer not null,
    due_time    timestamptz not null,
    ev_type     text,
    ev_data     text,
    ev_extra1   text,
    ev_extra2   text,
    ev_extra3   text,
    ev_extra4   text,
    constraint delayed_event_pkey primary key (delayed_id),
    constraint delayed_event_queue_fkey foreign key (queue_id) references pgq.queue (queue_id) on delete cascade
);
create index delayed_event_due_idx on pgq.delayed_event (due_time, delayed_id);
create index delayed_event_queue_idx on pgq.delayed_event (queue_id);
comment on table pgq.delayed_event is 'Events that wait for their time: see pgq.insert_event_at()';

-- pgq.insert_event_at(i_queue_name, i_time, i_type, i_data, i_extra1, i_extra2, i_extra3, i_extra4) -> bigint
-- Put an event into a queue at a later time, if the caller's transaction commits. It comes with the first maintenance round
-- (pgq.maint_retry_events()) after that time; events that are due come in the order of their times. Its ev_time is then i_time.
-- i_time     not before this time; one that is past: with the next round
-- i_type     what kind of event; any text
-- i_data     payload; any text
-- i_extra1   further fields, for the application; so are i_extra2, i_extra3 and i_extra4
-- returns    a number for pgq.cancel_event_at(); the event gets its id when it is put into the queue
-- raises     PQ001  no such queue
-- raises     PQ008  the time is null
-- runs as    owner: a producer needs EXECUTE, no table right
create or replace function pgq.insert_event_at(
    i_queue_name text, i_time timestamptz, i_type text, i_data text,
    i_extra1 text default null, i_extra2 text default null, i_extra3 text default null, i_extra4 text default null)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_id bigint;
begin
    if i_time is null then
        raise exception 'Invalid NULL value: time of an event for queue %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ008', hint = 'select pgq.insert_event_at(''queue'', now() + interval ''1 hour'', ''type'', ''data'')';
    end if;
    insert into pgq.delayed_event (queue_id, due_time, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4)
    select q.queue_id, i_time, i_type, i_data, i_extra1, i_extra2, i_extra3, i_extra4
      from pgq.queue q where q.queue_name = i_queue_name
    returning delayed_id into v_id;
    if v_id is null then
        raise exception 'No such queue: %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    return v_id;
end $$;

-- pgq.cancel_event_at(i_queue_name, i_delayed_id) -> integer
-- Withdraw an event that waits for its time.
-- i_delayed_id what pgq.insert_event_at() returned
-- returns    1; 0 when it does not wait (any more)
-- locks      waits for a maintenance round that is just putting it into the queue
-- runs as    owner
create or replace function pgq.cancel_event_at(i_queue_name text, i_delayed_id bigint) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_count integer;
begin
    delete from pgq.delayed_event d
     using pgq.queue q
     where q.queue_id = d.queue_id and q.queue_name = i_queue_name and d.delayed_id = i_delayed_id;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- pgq.maint_delayed_events() -> integer
-- Put delayed events whose time has come into their queues, the longest due first. pgq.maint_retry_events() calls it.
-- Queues that do not take events now (queue_disable_insert) keep theirs waiting. Not counted against queue_per_tx_limit.
-- returns    how many, at most 1000
-- locks      pgq.delayed_event SHARE UPDATE EXCLUSIVE: one caller at a time; producers go on
-- runs as    owner
create or replace function pgq.maint_delayed_events() returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue record;
    v_count integer := 0;
begin
    perform 1 from pgq.delayed_event d where d.due_time <= current_timestamp limit 1;
    if not found then
        return 0;
    end if;
    lock table pgq.delayed_event in share update exclusive mode;
    for v_queue in
        select q.queue_name, array_agg(d.delayed_id) as ids
          from (select d.queue_id, d.delayed_id
                  from pgq.delayed_event d join pgq.queue q on q.queue_id = d.queue_id
                 where d.due_time <= current_timestamp and not q.queue_disable_insert
                 order by d.due_time, d.delayed_id limit 1000) d
          join pgq.queue q on q.queue_id = d.queue_id
         group by q.queue_name
         order by q.queue_name
    loop
        -- An event that was cancelled meanwhile is not there to be deleted, so it is not put in.
        execute format($sql$
            with due as (delete from pgq.delayed_event d where d.delayed_id = any ($1) returning *)
            insert into %s (ev_time, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4)
            select due_time, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4 from due order by due_time, delayed_id
            $sql$, pgq.current_event_table(v_queue.queue_name))
          using v_queue.ids;
        v_count := v_count + cardinality(v_queue.ids);
    end loop;
    return v_count;
end $$;

-- Keys of events that must not come twice, each until its window is over. Maintenance deletes those that are.
create table pgq.event_key (
    queue_id  integer not null,
    ev_key    text not null,
    until     timestamptz not null,
    constraint event_key_pkey primary key (queue_id, ev_key),
    constraint event_key_queue_fkey foreign key (queue_id) references pgq.queue (queue_id) on delete cascade
);
create index event_key_until_idx on pgq.event_key (until);
comment on table pgq.event_key is 'Keys that pgq.insert_event_once() refuses until their window is over';

-- pgq.insert_event_once(i_queue_name, i_key, i_window, i_type, i_data, i_extra1, i_extra2, i_extra3, i_extra4) -> bigint
-- Put an event into a queue unless one with the same key was put in within the window. A rollback frees the key again.
-- i_key      at most 1024 bytes; keys of different queues are different
-- i_window   how long the key is taken, from now on
-- i_type     what kind of event; any text
-- i_data     payload; any text
-- i_extra1   further fields, for the application; so are i_extra2, i_extra3 and i_extra4
-- returns    the event's id; null for a duplicate
-- raises     PQ001  no such queue
-- raises     PQ006, PQ007  as pgq.insert_event()
-- raises     PQ008  the key is null or too long, or the window is not above zero
-- raises     40001  under REPEATABLE READ and SERIALIZABLE, when the key was taken since the snapshot
-- locks      the key: another transaction with the same key waits until this one ends
-- runs as    owner: a producer needs EXECUTE, no table right
create or replace function pgq.insert_event_once(
    i_queue_name text, i_key text, i_window interval, i_type text, i_data text,
    i_extra1 text default null, i_extra2 text default null, i_extra3 text default null, i_extra4 text default null)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue_id integer;
begin
    if i_key is null or octet_length(i_key) > 1024 then
        raise exception 'queue %: a key of at most 1024 bytes is needed, not %', coalesce(i_queue_name, 'NULL'),
            coalesce(octet_length(i_key) || ' bytes', 'NULL')
            using errcode = 'PQ008', hint = 'a longer one can be hashed: md5(key)';
    end if;
    if i_window is null or i_window <= interval '0' then
        raise exception 'queue %: the window of a key must be above zero, not %', coalesce(i_queue_name, 'NULL'), coalesce(i_window::text, 'NULL')
            using errcode = 'PQ008', hint = 'select pgq.insert_event_once(''queue'', ''key'', ''1 hour'', ''type'', ''data'')';
    end if;
    select q.queue_id into v_queue_id from pgq.queue q where q.queue_name = i_queue_name;
    if not found then
        raise exception 'No such queue: %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    insert into pgq.event_key as k (queue_id, ev_key, until)
    values (v_queue_id, i_key, clock_timestamp() + i_window)
    on conflict (queue_id, ev_key) do update set until = excluded.until where k.until <= clock_timestamp();
    if not found then
        return null;
    end if;
    return pgq.insert_event(i_queue_name, i_type, i_data, i_extra1, i_extra2, i_extra3, i_extra4);
end $$;

-- pgq.maint_expire_keys() -> integer
-- Delete keys of pgq.insert_event_once() whose window is over. Called by maintenance; call again until it gives 0.
-- returns    how many, at most 10000
-- runs as    owner
create or replace function pgq.maint_expire_keys() returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_count integer;
begin
    delete from pgq.event_key k
     where k.ctid = any (array(select e.ctid from pgq.event_key e where e.until <= now() order by e.until limit 10000
                                  for update skip locked));
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- What generated code has to know about a table, and writers of SQL: they give the text of an expression that encodes one
-- value, as its type asks, so that nothing has to be looked up when the expression runs.

-- pgq._base_type(i_type) -> oid
-- What a domain is made of in the end; other types as they are.
-- runs as    caller
create or replace function pgq._base_type(i_type oid) returns oid
language sql stable as $$
    with recursive t as (
        select i_type as type
        union all
        select d.typbasetype from t join pg_catalog.pg_type d on d.oid = t.type where d.typtype = 'd'
    )
    select t.type from t join pg_catalog.pg_type p on p.oid = t.type where p.typtype <> 'd'
$$;

-- pgq._table_columns(i_table) -> setof record
-- The columns of a table that an event can hold, in the table's order; virtual generated ones have no value in a trigger.
-- runs as    caller
create or replace function pgq._table_columns(i_table regclass, out attnum smallint, out name name, out type oid)
returns setof record
language sql stable as $$
    select a.attnum, a.attname, a.atttypid from pg_catalog.pg_attribute a
     where a.attrelid = i_table and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v'
     order by a.attnum
$$;

-- pgq._key_columns(i_table) -> name[]
-- The columns of the primary key, in the order of its index, and then those that it includes.
-- returns    null: there is no primary key
-- runs as    caller
create or replace function pgq._key_columns(i_table regclass) returns name[]
language sql stable as $$
    select pg_catalog.array_agg(a.attname order by k.n)
      from pg_catalog.pg_index i
     cross join lateral pg_catalog.unnest(i.indkey::smallint[]) with ordinality k (attnum, n)
      join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
     where i.indrelid = i_table and i.indisprimary
$$;

-- pgq._shape(i_table) -> text
-- A hash of what generated code supposes about a table: its oid, name, columns, keys and place in a tree. Declared immutable,
-- although it is not: so a comparison with a constant in PL/pgSQL is done when the expression is planned, and costs nothing
-- per row. The plan depends on the table, if the argument is a literal like '123'::regclass: Postgres plans it anew after
-- each ALTER.
-- returns    null: no such table
-- runs as    caller
create or replace function pgq._shape(i_table regclass) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
    v_schema oid;
    v_shape text;
    v_names text[];
    v_types text[];
    v_now text[];
begin
    select c.relnamespace, row(c.oid, n.nspname, c.relname, c.relkind, c.relispartition,
               (select array_agg(row(a.attnum, a.attname, a.atttypid, a.attgenerated) order by a.attnum)
                  from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
               (select array_agg(row(x.indisprimary, x.indimmediate, x.indkey) order by x.indisprimary)
                  from pg_index x where x.indrelid = c.oid and (x.indisprimary or x.indisreplident)),
               (select array_agg(i.inhrelid order by i.inhrelid) from pg_inherits i where i.inhparent = c.oid and c.relkind <> 'p'),
               exists (select from pg_inherits i where i.inhrelid = c.oid))::text,
           array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum),
           array(select a.atttypid::regtype::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum)
      into v_schema, v_shape, v_names, v_types from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = i_table;
    if v_shape is null then
        return null;
    end if;
    -- The snapshot of an old transaction does not show the catalog as it is now; how a row of the table reads does.
    if has_schema_privilege(v_schema, 'usage') and v_names <> '{}' then
        execute format('select array(select json_object_keys(to_json(r))) from (select (null::%s).*) r', i_table) into v_now;
        if v_now = v_names then
            execute format('select array[%s]::text[]',
                           (select string_agg(format('pg_typeof((null::%s).%I)', i_table, c), ',') from unnest(v_names) c)) into v_now;
        end if;
        if v_now not in (v_names, v_types) then
            v_shape := v_now::text;
        end if;
    end if;
    return md5(v_shape);
end $$;

-- pgq._text_of(i_value, i_type) -> text
-- SQL for a value's text as the type's output function writes it; null for null.
-- i_value    an expression in SQL
-- i_type     its type
-- runs as    caller
create or replace function pgq._text_of(i_value text, i_type oid) returns text
language sql stable as $$
    -- A cast to text that is a function of its own may write something else, as those of boolean, char and inet do; one from
    -- a type that somebody made may become a function at any time.
    select pg_catalog.format(
               case when not exists (select from pg_catalog.pg_type t
                                      where t.oid = pgq._base_type(i_type) and t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace)
                      or exists (select from pg_catalog.pg_cast c
                                  where c.castsource = pgq._base_type(i_type) and c.castmethod = 'f'
                                    and c.casttarget = 'pg_catalog.text'::pg_catalog.regtype)
                    then 'case when %1$s is distinct from null then pg_catalog.concat(%1$s) end'
                    else '%s::pg_catalog.text' end, i_value)
$$;

-- pgq._encode_value(i_value, i_type, i_format) -> text
-- SQL for a value in one of the formats; null for null.
-- i_value    an expression in SQL
-- i_type     its type
-- i_format   json or sql
-- runs as    caller
create or replace function pgq._encode_value(i_value text, i_type oid, i_format text) returns text
language sql stable as $$
    select pg_catalog.format(case i_format
        when 'json' then
            case when t.name = any ('{bool,int2,int4,int8}') then '%1$s::pg_catalog.text'
                 when t.name = any ('{date,timestamp,timestamptz}') then 'pg_catalog.to_json(%1$s)::pg_catalog.text'
                 when t.base = any ('{int2,int4,int8,oid,numeric,float4,float8,uuid}') then '''"'' operator(pg_catalog.||) %1$s::pg_catalog.text operator(pg_catalog.||) ''"'''
                 else 'pg_catalog.to_json(%2$s)::pg_catalog.text' end
        when 'sql' then
            case when t.base = 'bool' then ''''''''' || pg_catalog.left(%1$s::pg_catalog.text, 1) || '''''''''
                 when t.base = any ('{int2,int4,int8,oid,numeric,float4,float8,uuid,date,timestamp,timestamptz}')
                     then ''''''''' || %1$s::pg_catalog.text || '''''''''
                 else 'pg_catalog.quote_literal(%2$s)' end
        end, i_value, case when t.base = 'text' then i_value else '(' || pgq._text_of(i_value, i_type) || ')' end)
      from (select case when p.typnamespace = 'pg_catalog'::pg_catalog.regnamespace then p.typname end as name,
                   case when b.typnamespace = 'pg_catalog'::pg_catalog.regnamespace then b.typname end as base
              from pg_catalog.pg_type p, pg_catalog.pg_type b
             where p.oid = i_type and b.oid = pgq._base_type(i_type)) t
$$;

-- pgq._differs(i_type, i_left, i_right) -> text
-- SQL that tells whether two values differ: by the type's = where it has one, else by their text.
-- runs as    caller
create or replace function pgq._differs(i_type oid, i_left text, i_right text) returns text
language sql stable as $$
    select case
        when e.operator is null then format('(%s) is distinct from (%s)', pgq._text_of(i_left, i_type), pgq._text_of(i_right, i_type))
        when e.operator = '=' then format('%s is distinct from %s', i_left, i_right)
        else format('case when %1$s is distinct from null and %2$s is distinct from null then not (%1$s %3$s %2$s)'
                    ' else (%1$s is distinct from null) <> (%2$s is distinct from null) end', i_left, i_right, e.operator) end
      from (select case
                -- Composite types have = only if each of their columns does.
                when t.typcategory = 'A' or t.typtype in ('c', 'p') then null
                when t.typtype in ('e', 'r', 'm') or t.oid = 'pg_catalog.varchar'::regtype then '='
                else (select case when o.oprnamespace = 'pg_catalog'::regnamespace then '='
                                  else format('operator(%I.=)', n.nspname) end
                        from pg_operator o join pg_namespace n on n.oid = o.oprnamespace
                       where o.oprname = '=' and o.oprleft = t.oid and o.oprright = t.oid
                         and o.oprresult = 'pg_catalog.bool'::regtype
                       order by o.oprnamespace <> 'pg_catalog'::regnamespace, n.nspname limit 1) end as operator
              from pg_type t where t.oid = pgq._base_type(i_type)) e
$$;

-- pgq._encode_join(i_parts, i_separator) -> text
-- SQL that joins what is not null of any number of texts: a function of Postgres takes 100 arguments at most, so calls nest.
-- runs as    caller
create or replace function pgq._encode_join(i_parts text[], i_separator text) returns text
language plpgsql immutable as $$
declare
    v_parts text[] := i_parts;
begin
    while cardinality(v_parts) > 90 loop
        v_parts := array(select format('nullif(pg_catalog.concat_ws(%L, %s) collate "C", '''')', i_separator, string_agg(p, ', ' order by n))
                           from unnest(v_parts) with ordinality u (p, n) group by (n - 1) / 90 order by (n - 1) / 90);
    end loop;
    return format('pg_catalog.concat_ws(%L, %s)', i_separator, array_to_string(v_parts, ', '));
end $$;

-- A row as in the query of a URL: a=1&b=x+y&c, where c is null. As in encode_value.sql, SQL is written for one table. Here and
-- in that SQL, as in that for json, operators are qualified too: see pgq._capture_qualified().

-- pgq._urlencode(i_text) -> text
-- Text as in the query of a URL: letters, digits and _ . - as they are, a space as +, every other byte as %xx.
-- returns    null for null
-- runs as    caller
create or replace function pgq._urlencode(i_text text) returns text
language plpgsql immutable strict parallel safe as $$
declare
    v_text pg_catalog.text collate pg_catalog."C" := i_text;
begin
    -- What is common, without taking the text apart.
    v_text := pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(
              v_text, '%', '%25'), '+', '%2b'), ' ', '+'), ':', '%3a'), ',', '%2c'), '/', '%2f');
    v_text := pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(
              v_text, '@', '%40'), '"', '%22'), '{', '%7b'), '}', '%7d'), '''', '%27'), e'\n', '%0a');
    if v_text operator(pg_catalog.!~) '[^0-9A-Za-z_.%+-]' then
        return v_text;
    end if;
    v_text := i_text;
    return (select pg_catalog.string_agg(
                       case when p.part operator(pg_catalog.~) '^[0-9A-Za-z_.-]' then p.part
                            else pg_catalog.replace(pg_catalog.regexp_replace(
                                     pg_catalog.encode(pg_catalog.convert_to(p.part, pg_catalog.getdatabaseencoding()), 'hex'), '..', e'%\\&', 'g'),
                                     '%20', '+') end,
                       '' order by p.n)
              from (select m.part[1] as part, m.n
                      from pg_catalog.regexp_matches(v_text, '[0-9A-Za-z_.-]+|[^0-9A-Za-z_.-]+', 'g') with ordinality m (part, n)) p);
end $$;

-- pgq._urlencode_common(i_value) -> text
-- SQL that does what pgq._urlencode() does, for an expression of letters, digits and _ . - space : , / % + alone; any & and =
-- in it stay.
-- runs as    caller
create or replace function pgq._urlencode_common(i_value text) returns text
language sql immutable as $$
    select 'pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(('
           || i_value || ') collate pg_catalog."C", ''%'', ''%25''), ''+'', ''%2b''), '' '', ''+''), '':'', ''%3a''), '','', ''%2c''), ''/'', ''%2f'')'
$$;

-- pgq._urlencode_columns(i_table, i_columns, i_record) -> setof record
-- How each column goes into a row.
-- returns    kind: plain (nothing in its values has to be encoded), time (what is common has to be), text (anything may have
--            to be) or other (most values have something uncommon); name: 'a' or 'a=', in SQL; value; text: its text;
--            encoded: the same, encoded; alone: whether it cannot be encoded together with its neighbours
-- runs as    caller
create or replace function pgq._urlencode_columns(
    i_table regclass, i_columns name[], i_record text,
    out n bigint, out kind text, out name text, out value text, out text text, out encoded text, out alone boolean)
returns setof record
language sql stable as $$
    select c.n, k.kind, format('case when %s is not distinct from null then %L else %L end', v.value, c.name, c.name || '='), v.value, v.text,
           case k.kind when 'plain' then v.value
                       when 'time' then format('pgq._urlencode(%s)', v.text)
                       else format('case when %1$s operator(pg_catalog.~) ''[^0-9A-Za-z_.-]'' collate pg_catalog."C" then pgq._urlencode(%1$s) else %1$s end', v.text) end,
           k.kind = 'other' or c.name ~ '[%+]'
      from (select t.type, row_number() over (order by t.attnum) as n, format('%s.%I', i_record, t.name) as value,
                   case when row_number() over (order by t.attnum) = 1 then '' else '&' end || pgq._urlencode(t.name) as name
              from pgq._table_columns(i_table) t
             where i_columns is null or t.name = any (i_columns)) c
      join pg_catalog.pg_type b on b.oid = pgq._base_type(c.type)
     cross join lateral (
         select case when b.typtype = 'e' then 'text'
                     when b.typnamespace <> 'pg_catalog'::regnamespace then 'other'
                     when b.typname = any ('{bool,int2,int4,int8,oid,numeric,uuid}') then 'plain'
                     when b.typname = any ('{float4,float8,date,time,timetz,timestamp,timestamptz}') then 'time'
                     when b.typname = any ('{text,varchar,bpchar,name}') then 'text'
                     else 'other' end) k (kind)
     cross join lateral (
         select c.value, case when c.type = 'pg_catalog.text'::regtype then c.value else format('(%s)', pgq._text_of(c.value, c.type)) end) v (value, text)
$$;

-- pgq._urlencode_row(i_table, i_columns, i_record) -> text
-- SQL for a row as in the query of a URL. Neighbouring columns are encoded together, by a few calls for all of them; only where
-- a text among them has something uncommon, each is encoded by itself. What concat() writes is what a type's output function
-- does.
-- i_columns  the columns to take, always in the table's order; null: all
-- i_record   what holds the row in SQL, e.g. new
-- runs as    caller
create or replace function pgq._urlencode_row(i_table regclass, i_columns name[], i_record text) returns text
language sql stable as $$
    select coalesce(string_agg(
               case when r.alone or r.kinds = '{plain}' then r.encoded
                    when r.texts is null then pgq._urlencode_common(r.value)
                    else format('case when %s operator(pg_catalog.~) ''[^0-9A-Za-z_. :,/%%+-]'' collate pg_catalog."C" then %s else %s end', r.texts, r.encoded,
                                pgq._urlencode_common(r.value)) end, ' operator(pg_catalog.||) ' order by r.n), '''''')
      from (select min(c.n) as n, c.alone, array_agg(distinct c.kind) as kinds,
                   format('pg_catalog.concat(%s)', string_agg(c.name || ', ' || c.value, ', ' order by c.n)) as value,
                   format('pg_catalog.concat(%s)', string_agg(c.name || ', ' || c.encoded, ', ' order by c.n)) as encoded,
                   case count(*) filter (where c.kind = 'text') when 0 then null when 1 then min(c.text) filter (where c.kind = 'text')
                        else format('pg_catalog.concat(%s)', string_agg(c.text, ', ' order by c.n) filter (where c.kind = 'text')) end as texts
              -- A function takes 100 arguments at most.
              from (select c.*, count(*) filter (where c.alone) over (order by c.n) as run, (c.n - 1) / 50 as part
                      from pgq._urlencode_columns(i_table, i_columns, i_record) c) c
             group by c.run, c.alone, c.part) r
$$;

-- Writers of SQL as in encode_value.sql, for a row of one table. The record may be anything with the table's columns: new and
-- old of a trigger, a parameter, the alias of a transition table. Used by the trigger functions and pgq.capture().

-- pgq._encode_row(i_table, i_format, i_columns, i_record) -> text
-- SQL for the event data of a row, never null.
-- i_format   json: {"a":1,"b":null}; urlencode: a=1&b; sql: (a,b) values ('1',null)
-- i_columns  the columns to take, always in the table's order; null: all
-- i_record   what holds the row in SQL, e.g. new
-- runs as    caller
create or replace function pgq._encode_row(i_table regclass, i_format text, i_columns name[], i_record text) returns text
language sql stable as $$
    select case i_format
        when 'json' then
            coalesce(string_agg(format('%L operator(pg_catalog.||) coalesce(%s, ''null'') operator(pg_catalog.||) ',
                                       case when c.n = 1 then '{' else ',' end || to_json(c.name::text) || ':', c.value), '' order by c.n)
                     || '''}''', '''{}''')
        when 'urlencode' then pgq._urlencode_row(i_table, i_columns, i_record)
        when 'sql' then
            format('%L || ', '(' || coalesce(string_agg(quote_ident(c.name), ',' order by c.n), '') || ') values (')
            || coalesce(string_agg(format('coalesce(%s, ''null'')', c.value), ' || '','' || ' order by c.n) || ' || ', '') || ''')'''
        end
      from (select row_number() over (order by t.attnum) as n, t.name,
                   pgq._encode_value(format('%s.%I', i_record, t.name), t.type, i_format) as value
              from pgq._table_columns(i_table) t
             where i_columns is null or t.name = any (i_columns)) c
$$;

-- pgq._encode_json_from(i_table, i_columns, i_record) -> text
-- SQL for a FROM item of which row_to_json() makes what pgq._encode_row() does, in fewer steps: it writes numbers that are not
-- to be numbers, JSON, arrays and rows as their text, and all else as it is.
-- i_columns  as in pgq._encode_row()
-- runs as    caller
create or replace function pgq._encode_json_from(i_table regclass, i_columns name[], i_record text) returns text
language sql stable as $$
    select pg_catalog.format('(select %s)', pg_catalog.string_agg(pg_catalog.format(
               case when p.typnamespace = 'pg_catalog'::pg_catalog.regnamespace and p.typtype = 'b' and p.typcategory <> 'A'
                         and p.typname <> all ('{numeric,float4,float8,json,jsonb}')
                    then '%1$s' else '%2$s as %3$I' end,
               v.value, pgq._text_of(v.value, t.type), t.name), ', ' order by t.attnum))
      from pgq._table_columns(i_table) t
      join pg_catalog.pg_type p on p.oid = t.type
     cross join lateral (select pg_catalog.format('%s.%I', i_record, t.name) as value) v
     where i_columns is null or t.name = any (i_columns)
$$;

-- pgq._null_key(i_table, i_column) -> text
-- Refuses a null where a row is looked for by its key.
-- raises     PQ018
-- runs as    caller
create or replace function pgq._null_key(i_table text, i_column text) returns text
language plpgsql as $$
begin
    raise exception 'logtriga: Unexpected NULL key value: column % of table %', quote_ident(i_column), i_table
        using errcode = 'PQ018', hint = 'name columns that are never null as the key: pkey=...';
end $$;

-- pgq._encode_sql_key(i_table, i_key, i_record) -> text
-- SQL for a condition that finds a row by its key: a='1' and b='2'. A null in the key is an error when it runs.
-- i_key      names of the key columns; others than the table has are passed over
-- runs as    caller
create or replace function pgq._encode_sql_key(i_table regclass, i_key name[], i_record text) returns text
language sql stable as $$
    select coalesce(string_agg(
               format('%L || coalesce(%s, pgq._null_key(%L, %L))', case when c.n > 1 then ' and ' else '' end || quote_ident(c.name) || '=',
                      pgq._encode_value(format('%s.%I', i_record, c.name), c.type, 'sql'), i_table::text, c.name),
               ' || ' order by c.n), '''''')
      from (select row_number() over (order by t.attnum) as n, t.name, t.type
              from pgq._table_columns(i_table) t where t.name = any (i_key)) c
$$;

-- pgq._encode_changed(i_table, i_columns, i_new, i_old) -> text
-- SQL that tells whether any of the columns differs between two rows; false where there are none.
-- i_columns  the columns to compare; null: all
-- runs as    caller
create or replace function pgq._encode_changed(i_table regclass, i_columns name[], i_new text, i_old text) returns text
language sql stable as $$
    select coalesce(string_agg('(' || pgq._differs(t.type, format('%s.%I', i_new, t.name), format('%s.%I', i_old, t.name)) || ')',
                               ' or ' order by t.attnum), 'false')
      from pgq._table_columns(i_table) t
     where i_columns is null or t.name = any (i_columns)
$$;

-- pgq._encode_sql_update(i_table, i_columns, i_key, i_new, i_old) -> text
-- SQL for what an UPDATE changed: b='2',c=NULL where a='1'. If nothing did, the first key column is set to what it is.
-- i_columns  the columns that count; null: all
-- i_key      names of the key columns, by which old is found
-- runs as    caller
create or replace function pgq._encode_sql_update(i_table regclass, i_columns name[], i_key name[], i_new text, i_old text) returns text
language sql stable as $$
    select format('coalesce(nullif(%s collate "C", ''''), %s) || '' where '' || %s',
               pgq._encode_join(coalesce(array_agg(format('case when %s then %L || coalesce(%s, ''NULL'') end',
                                          pgq._differs(t.type, format('%s.%I', i_new, t.name), format('%s.%I', i_old, t.name)),
                                          quote_ident(t.name) || '=',
                                          pgq._encode_value(format('%s.%I', i_new, t.name), t.type, 'sql')) order by t.attnum), array['null']), ','),
               coalesce((select pgq._encode_sql_key(i_table, array[k.name], i_old) from pgq._table_columns(i_table) k
                          where k.name = any (i_key) order by k.attnum limit 1),
                        format('pgq._null_key(%L, %L)', i_table::text, array_to_string(i_key, ','))),
               pgq._encode_sql_key(i_table, i_key, i_old))
      from pgq._table_columns(i_table) t
     where i_columns is null or t.name = any (i_columns)
$$;

-- pgq._trigger_arguments(i_args, i_type) -> record
-- Read the arguments of a trigger that logs events.
-- i_args     as given in CREATE TRIGGER
-- i_type     pg_trigger.tgtype: what the trigger is fired for
-- returns    fields: the expressions for ev_type, ev_data, ev_extra1 .. ev_extra4, null where there is none
-- raises     PQ016  an argument is unknown, or does not go with this kind of trigger
-- runs as    caller
create or replace function pgq._trigger_arguments(
    i_args text[], i_type integer,
    out queue_name text, out ignored name[], out key text, out backup boolean, out skip boolean, out deny boolean,
    out condition text, out fields text[])
returns record
language plpgsql immutable as $$
declare
    v_arg text;
    v_field integer;
    v_names constant text[] := array['ev_type', 'ev_data', 'ev_extra1', 'ev_extra2', 'ev_extra3', 'ev_extra4'];
    v_problem text;
begin
    backup := false;
    skip := false;
    deny := false;
    fields := array_fill(null::text, array[6]);
    queue_name := i_args[1];
    if queue_name is null then
        raise exception 'pgq trigger must have destination queue as argument'
            using errcode = 'PQ016', hint = 'create trigger ... execute function pgq.jsontriga(''queue'')';
    end if;
    -- Where an expression is given twice the first one counts, of lists the last one.
    foreach v_arg in array i_args[2:] loop
        v_field := array_position(v_names, split_part(v_arg, '=', 1));
        if v_arg like 'ignore=%' then
            ignored := regexp_split_to_array(substr(v_arg, 8), '[\s,]+');
        elsif v_arg like 'pkey=%' then
            key := substr(v_arg, 6);
        elsif v_arg like 'when=%' then
            condition := coalesce(condition, substr(v_arg, 6));
            if condition ~ '^\s*$' then
                raise exception 'when= query result must be boolean, got=0'
                    using errcode = 'PQ016', hint = 'compare: when=column = ''value''';
            end if;
        elsif v_field is not null and position('=' in v_arg) > 0 then
            fields[v_field] := coalesce(fields[v_field], substr(v_arg, position('=' in v_arg) + 1));
        elsif v_arg = 'backup' then
            backup := true;
        elsif v_arg = 'SKIP' then
            skip := true;
        elsif v_arg = 'deny' then
            deny := true;
        else
            raise exception 'bad param to pgq trigger: %', v_arg
                using errcode = 'PQ016', hint = 'allowed: ignore=, pkey=, backup, SKIP, deny, when=, ev_type=, ev_data=, ev_extra1= to ev_extra4=';
        end if;
    end loop;
    if i_type & 32 <> 0 then
        v_problem := case when ignored is not null then 'Column ignore does not make sense for truncate trigger'
                          when key is not null then 'Custom pkey_list does not make sense for truncate trigger'
                          when backup then 'Backup does not make sense for truncate trigger'
                          when condition is not null or array_remove(fields, null) <> '{}'
                          then 'Custom expressions do not make sense for truncater trigger' end;
        if v_problem is not null then
            raise exception '%', v_problem
                using errcode = 'PQ016', hint = 'make a trigger of its own for TRUNCATE, with the queue name alone';
        end if;
    end if;
    if skip and i_type & 66 = 0 then
        raise exception 'SKIP does not work in AFTER trigger.'
            using errcode = 'PQ016', hint = 'make it a BEFORE trigger';
    end if;
end $$;

-- pgq._put_values(i_expression, i_columns, i_record) -> text
-- Put fields of a record in the place of column names in an expression: words that are exactly a column's name, quoted or
-- not. Words inside literals, words with a dot, names of functions and of types after :: stay.
-- runs as    caller
create or replace function pgq._put_values(i_expression text, i_columns name[], i_record text) returns text
language sql immutable as $put$
    select coalesce(string_agg(
               case when t.token = any (i_columns::text[]) then format('(%s.%I)', i_record, t.token)
                    when t.token ~ '^".*"$' and replace(substr(t.token, 2, length(t.token) - 2), '""', '"') = any (i_columns::text[])
                    then format('(%s.%s)', i_record, t.token)
                    else t.token end, '' order by t.n), '')
      from (select m.token[1] as token, m.n
              from regexp_matches(i_expression,
                  $re$([eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\$\w*\$[^$]*\$\w*\$|"(?:[^"]|"")*"(?:\.(?:[\w$]+|"(?:[^"]|"")*"))*|::\s*\w+|\.\s*\w+|[0-9][\w.]*|[[:alpha:]_][\w$]*(?:\.(?:[\w$]+|"(?:[^"]|"")*"|\*))*(?:\s*\()?|.)$re$,
                  'g') with ordinality m (token, n)) t
$put$;

-- pgq._one_value(i_values) -> text
-- The only element of what an expression gave.
-- raises     PQ016
-- runs as    caller
create or replace function pgq._one_value(i_values text[]) returns text
language plpgsql immutable as $$
begin
    if cardinality(i_values) <> 1 then
        raise exception 'Expect 1 row from override query, got %', cardinality(i_values)
            using errcode = 'PQ016', hint = 'the expressions of a trigger must each give one row: add limit 1, or an aggregate';
    end if;
    return i_values[1];
end $$;

-- pgq._condition_holds(i_values) -> boolean
-- What a when= expression gave.
-- raises     PQ016
-- runs as    caller
create or replace function pgq._condition_holds(i_values anyarray) returns boolean
language plpgsql immutable as $$
begin
    if pg_typeof(i_values) <> 'boolean[]'::regtype then
        raise exception 'when= query result must be boolean, got=%',
            (select t.typelem from pg_catalog.pg_type t where t.oid = pg_typeof(i_values))
            using errcode = 'PQ016', hint = 'compare: when=column = ''value''';
    end if;
    return pgq._one_value(i_values::text[])::boolean;
end $$;

-- Code that is generated for a trigger, when it is fired for the first time: a function that writes the events of one
-- table's rows. It is found by the names of table and trigger alone, holds no dependency on them, and tells when it no
-- longer fits; then it is written anew.

-- pgq._trigger_shape(i_table, i_trigger) -> text
-- A hash of what generated code supposes about a trigger and its table; immutable as pgq._shape() is.
-- returns    null: no such trigger
-- runs as    owner: whoever writes the table
create or replace function pgq._trigger_shape(i_table regclass, i_trigger name) returns text
language plpgsql immutable security definer set search_path = pg_catalog, pg_temp as $$
begin
    return (select md5(row(pgq._shape(i_table), p.proname, t.tgname, t.tgtype, t.tgargs)::text)
              from pg_trigger t join pg_proc p on p.oid = t.tgfoid
             where t.tgrelid = i_table and t.tgname = i_trigger);
end $$;

-- pgq._trigger_definition(i_table, i_trigger) -> record
-- The kind and arguments of a trigger that logs events.
-- runs as    caller
create or replace function pgq._trigger_definition(i_table oid, i_trigger name, out kind text, out type integer, out args text[], out columns name[])
returns record
language sql stable as $$
    select p.proname, t.tgtype,
           -- pg_trigger holds the arguments one after the other, each ended by a zero byte.
           (select array_agg(convert_from(decode(replace(a.hex, ' ', ''), 'hex'), getdatabaseencoding()) order by a.n)
              from unnest(string_to_array(regexp_replace(encode(t.tgargs, 'hex'), '..', '\& ', 'g'), '00 ')) with ordinality a (hex, n)
             where a.n <= t.tgnargs),
           (select array_agg(c.name order by c.attnum) from pgq._table_columns(i_table) c)
      from pg_trigger t
      join pg_proc p on p.oid = t.tgfoid and p.pronamespace = 'pgq'::regnamespace
       and p.proname = any ('{jsontriga,logutriga,sqltriga}')
     where t.tgrelid = i_table and t.tgname = i_trigger
$$;

-- pgq._trigger_event(i_table, i_kind, i_op, i_key, i_columns, i_backup) -> text[]
-- SQL for the six fields of an event about a row in i_new, or a change of i_old to i_new.
-- i_kind     jsontriga, logutriga or sqltriga
-- i_key      the key columns; as text, in which a list of names given by hand is taken as it is
-- i_columns  the columns that go into the event
-- runs as    caller
create or replace function pgq._trigger_event(
    i_table oid, i_kind text, i_op text, i_key name[], i_key_text text, i_columns name[], i_backup boolean)
returns text[]
language sql stable as $$
    select array[
        quote_literal(case i_kind
            when 'jsontriga' then format('{"op":"%s","table":[%s,%s],"pkey":[%s]}', i_op, to_json(n.nspname::text), to_json(c.relname::text),
                (select string_agg(to_json(k.name)::text, ',' order by k.n)
                   from unnest(coalesce(case i_key_text when '' then '{""}' else string_to_array(i_key_text, ',') end, i_key::text[]))
                        with ordinality k (name, n)))
            when 'logutriga' then left(i_op, 1) || ':' || coalesce(i_key_text, array_to_string(i_key, ','), '')
            else left(i_op, 1) end),
        case when i_kind = 'jsontriga' then pgq._encode_row(i_table, 'json', i_columns, 'i_new')
             when i_kind = 'logutriga' then pgq._encode_row(i_table, 'urlencode', i_columns, 'i_new')
             when i_op = 'INSERT' then pgq._encode_row(i_table, 'sql', i_columns, 'i_new')
             when i_op = 'UPDATE' then pgq._encode_sql_update(i_table, i_columns, i_key, 'i_new', 'i_old')
             else pgq._encode_sql_key(i_table, i_key, 'i_new') end,
        quote_literal(n.nspname || '.' || c.relname),
        case when i_backup and i_op = 'UPDATE'
             then pgq._encode_row(i_table, case i_kind when 'jsontriga' then 'json' else 'urlencode' end, i_columns, 'i_old')
             else 'null' end,
        'null', 'null']
      from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = i_table
$$;

-- pgq._trigger_plain(i_table) -> boolean
-- Whether the values of a table read the same whoever reads them, with any search_path, and run no code but Postgres' own:
-- then code generated for a trigger may run as the owner of pgq.
-- runs as    caller
create or replace function pgq._trigger_plain(i_table oid) returns boolean
language sql stable as $$
    select coalesce(bool_and(t.typtype = 'b' and t.typnamespace = 'pg_catalog'::regnamespace and t.typcategory in ('B', 'D', 'I', 'N', 'S', 'T', 'U')
                             and t.typname !~ '^reg' and t.typname <> 'refcursor'), true)
      from pgq._table_columns(i_table) c join pg_type t on t.oid = c.type
$$;

-- pgq._trigger_body(i_table, i_trigger, i_queue_id) -> text
-- PL/pgSQL that logs the event of one row, for the function that pgq._trigger_code() makes.
-- i_queue_id the queue, for code that puts the event into its table; null for code that calls pgq.insert_event()
-- raises     PQ016
-- runs as    caller, within a security definer function
create or replace function pgq._trigger_body(i_table oid, i_trigger name, i_queue_id integer) returns text
language plpgsql stable as $body$
declare
    v_trigger record;
    v_args record;
    v_op text;
    v_key name[];
    v_columns name[];
    v_magic name[];
    v_unknown name;
    v_ignored name[];
    v_fields text[];
    v_names constant text[] := array['ev_type', 'ev_data', 'ev_extra1', 'ev_extra2', 'ev_extra3', 'ev_extra4'];
    v_code text;
    v_body text := '';
    v_values text;
    v_store text := '';
    v_table text := (select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = i_table);
begin
    select * into v_trigger from pgq._trigger_definition(i_table, i_trigger);
    select * into v_args from pgq._trigger_arguments(v_trigger.args, v_trigger.type);
    v_magic := array(select c from unnest(v_trigger.columns) c where c like '\_pgq\_ev\_%');
    select c into v_unknown from unnest(v_magic) c where substr(c, 6) <> all (v_names);
    if found then
        raise exception 'Unknown magic column: %', v_unknown
            using errcode = 'PQ016', hint = 'there are _pgq_ev_type, _pgq_ev_data, _pgq_ev_extra1 to _pgq_ev_extra4';
    end if;
    v_key := coalesce(regexp_split_to_array(v_args.key, '[\s,]+')::name[], pgq._key_columns(i_table));
    v_columns := array(select c from unnest(v_trigger.columns) c where c <> all (v_magic) and c <> all (coalesce(v_args.ignored, '{}')));
    v_ignored := array(select c from unnest(v_trigger.columns) c
                        where c <> all (v_columns) and (v_trigger.kind = 'sqltriga' or v_args.ignored is not null));

    -- Updates come first: they are the most common.
    foreach v_op in array array['UPDATE', 'INSERT', 'DELETE'] loop
        v_code := '';
        if v_args.deny then
            v_code := format($part$
        raise exception 'Table ''%%'' to queue ''%%'': change not allowed (%%)', %L, %L, i_op
            using errcode = 'PQ017', hint = 'change it where the queue is filled from, or drop the trigger that denies it';$part$,
                v_table, v_args.queue_name);
        elsif v_op <> 'INSERT' and (v_key is null or v_args.key ~ '^[\s,]*$') then
            v_code := format($part$
        raise exception 'Update/Delete on table without pkey: %%', %L
            using errcode = 'PQ018', hint = 'give the table a primary key, or name columns in the trigger: pkey=a,b';$part$, v_table);
        else
            if v_op = 'UPDATE' then
                v_code := format($part$
        if %s then
            raise exception 'primary key update not allowed: table %%', %L
                using errcode = 'PQ018', hint = 'delete the row and insert it with its new key';
        end if;$part$, pgq._encode_changed(i_table, v_key, 'i_new', 'i_old'), v_table);
                if v_ignored <> '{}' then
                    v_code := v_code || format($part$
        if not (%s) and (%s) then
            return %s;
        end if;$part$, pgq._encode_changed(i_table, v_columns, 'i_new', 'i_old'),
                        pgq._encode_changed(i_table, v_ignored, 'i_new', 'i_old'), (not v_args.skip)::text);
                end if;
            end if;
            if v_args.condition is not null then
                v_code := v_code || format($part$
        v_holds := pgq._condition_holds(array(select t.v from (select %s
            ) t (v)));
        if v_holds is null then
            raise exception 'when= should not be NULL: trigger %% on %%', %L, %L
                using errcode = 'PQ016', hint = 'when=coalesce(..., false)';
        elsif not v_holds then
            return %s;
        end if;$part$, pgq._put_values(v_args.condition, v_trigger.columns, 'i_new'), i_trigger, v_table, (not v_args.skip)::text);
            end if;
            v_fields := pgq._trigger_event(i_table, v_trigger.kind, v_op,
                case v_trigger.kind when 'sqltriga' then array(select k from unnest(v_key) with ordinality u (k, n) where k <> all (v_magic) order by n)
                                    else v_key end, v_args.key, v_columns, v_args.backup);
            for v_n in 1..6 loop
                if v_args.fields[v_n] ~ '^\s*$' then
                    v_fields[v_n] := 'null';
                elsif v_args.fields[v_n] is not null then
                    v_fields[v_n] := format(
                        e'pgq._one_value(array(select case when t.v is distinct from null then pg_catalog.concat(t.v) end from (select %s\n'
                        '            ) t (v)))', pgq._put_values(v_args.fields[v_n], v_trigger.columns, 'i_new'));
                elsif '_pgq_' || v_names[v_n] = any (v_magic) then
                    v_fields[v_n] := (select pgq._text_of(format('i_new.%I', c.name), c.type)
                                        from pgq._table_columns(i_table) c where c.name = '_pgq_' || v_names[v_n]);
                end if;
            end loop;
            if i_queue_id is null then
                v_code := v_code || format($part$
        v_id := pgq.insert_event(%L, %s);$part$, v_args.queue_name, array_to_string(v_fields, e',\n            '));
            else
                -- The other fields are the same for each operation.
                v_code := v_code || (select string_agg(format(e'\n        v_%s := %s;', v_names[n], v_fields[n]), '' order by n)
                                       from unnest(array[1, 2, 4]) n where v_fields[n] <> 'null');
                v_values := format('v_ev_type, v_ev_data, %s, v_ev_extra2, %s, %s', v_fields[3], v_fields[5], v_fields[6]);
            end if;
        end if;
        v_body := v_body || format(e'\n    %s i_op = %L then%s', case v_op when 'UPDATE' then 'if' else 'elsif' end, v_op, v_code);
    end loop;
    if v_values is not null then
        v_store := format(e'\n    v_slot := pgq.event_%s_admit(1);', i_queue_id) || (
            select string_agg(format(e'\n    %s then\n        insert into %s (ev_time, %s)\n        values (now(), %s);',
                       case s.n when 0 then 'if v_slot = 0' when 1 then 'elsif v_slot = 1' else 'elsif v_slot = 2' end, pgq._event_table(i_queue_id, s.n),
                       array_to_string(v_names, ', '), v_values), '' order by s.n)
              from generate_series(0, 2) s (n)) || e'\n    end if;';
    end if;
    -- Null tells the caller to have this function made anew.
    return format($whole$
#variable_conflict use_column
declare
    v_id bigint;
    v_holds boolean;
    v_slot integer;
    v_ev_type text;
    v_ev_data text;
    v_ev_extra2 text;
begin
    if pgq._trigger_shape(%L, %L) is distinct from %L then
        return null;
    end if;%s
    end if;%s
    return %s;
end $whole$, i_table, i_trigger, pgq._trigger_shape(i_table, i_trigger), v_body, v_store, (not v_args.skip)::text);
end $body$;

-- pgq._trigger_code(i_table, i_trigger) -> text
-- Make the function of a trigger. One transaction at a time makes the one for all; others that come before it has
-- committed make one for their own session, so nobody waits. It may be executed by whoever may execute pgq.insert_event().
-- returns    the function's name
-- raises     PQ016
-- raises     42501  the caller may not execute pgq.insert_event()
-- locks      an advisory lock for the trigger, and the queue's row in pgq.queue for key share, to the end of the transaction
-- runs as    owner: a producer need not be allowed to create functions
create or replace function pgq._trigger_code(i_table oid, i_trigger name) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $make$
declare
    v_name text := format('trigger_%s_%s', i_table, left(md5(i_trigger), 12));
    v_shape text := pgq._trigger_shape(i_table, i_trigger);
    v_args record;
    v_queue integer;
begin
    if not pg_try_advisory_xact_lock('pgq.event_template'::regclass::oid::bigint::integer, hashtext(v_name)) then
        v_name := format('%s_%s', v_name, pg_backend_pid());
    end if;
    if not exists (select from pg_proc p where p.pronamespace = 'pgq'::regnamespace and p.proname = v_name
                                           and position(v_shape in p.prosrc) > 0) then
        select a.* into v_args from pgq._trigger_definition(i_table, i_trigger) t cross join lateral pgq._trigger_arguments(t.args, t.type) a;
        -- Expressions have the rights and the search_path of whoever writes the table; what neither matters to is faster without.
        if v_args.condition is null and array_remove(v_args.fields, null) = '{}' and pgq._trigger_plain(i_table) then
            select q.queue_id into v_queue from pgq.queue q where q.queue_name = v_args.queue_name for key share;
        end if;
        execute format('create or replace function pgq.%I(i_op text, i_new anyelement, i_old anyelement) returns boolean language plpgsql %s as %L',
                       v_name, case when v_queue is null then 'stable' else 'security definer set search_path = pg_catalog, pg_temp' end,
                       pgq._trigger_body(i_table, i_trigger, v_queue));
        execute format('comment on function pgq.%I is %L', v_name,
                       format('skytools: generated for trigger %I on %s; made anew by itself', i_trigger, i_table::regclass));
    end if;
    perform pgq._grant_trigger_code(format('pgq.%s', v_name)::regproc);
    return 'pgq.' || v_name;
end $make$;

-- pgq._grant_trigger_code(i_function) -> void
-- Let those who may execute pgq.insert_event() execute the code of a trigger.
-- runs as    caller, who must own it
create or replace function pgq._grant_trigger_code(i_function regproc) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_grantee oid;
begin
    execute format('revoke all on function %s from public', i_function);
    for v_grantee in
        select a.grantee from pg_proc p cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
         where p.oid = 'pgq.insert_event(text,text,text,text,text,text,text)'::regprocedure and a.privilege_type = 'EXECUTE'
    loop
        execute format('grant execute on function %s to %s', i_function,
                       case v_grantee when 0 then 'public' else quote_ident(pg_get_userbyid(v_grantee)) end);
    end loop;
end $$;

-- pgq._drop_queue_code(i_queue_id) -> void
-- Drop what was generated for triggers and puts events into the tables of a queue that is gone, or has another name now.
-- runs as    caller, who must own it
create or replace function pgq._drop_queue_code(i_queue_id integer) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_function regprocedure;
begin
    for v_function in
        select p.oid from pg_proc p
         where p.pronamespace = 'pgq'::regnamespace and p.proname like 'trigger\_%'
           and position(format('pgq.event_%s_admit(', i_queue_id) in p.prosrc) > 0
    loop
        execute format('drop function %s', v_function);
    end loop;
end $$;

-- pgq._drop_trigger_code() -> integer
-- Drop what was generated for triggers that are gone, or for sessions that have ended.
-- returns    number of functions
-- runs as    caller, who must own them
create or replace function pgq._drop_trigger_code() returns integer
language plpgsql as $$
declare
    v_function regprocedure;
    v_count integer := 0;
begin
    for v_function in
        select p.oid from pg_catalog.pg_proc p
         where p.pronamespace = 'pgq'::pg_catalog.regnamespace and p.proname ~ '^trigger_[0-9]+_[0-9a-f]{12}(_[0-9]+)?$'
           and (not exists (select from pg_catalog.pg_trigger t
                             where t.tgrelid = split_part(p.proname, '_', 2)::oid
                               and left(md5(t.tgname), 12) = split_part(p.proname, '_', 3))
                or split_part(p.proname, '_', 4) <> ''
                   and not exists (select from pg_catalog.pg_stat_activity a where a.pid::text = split_part(p.proname, '_', 4)))
    loop
        execute pg_catalog.format('drop function if exists %s', v_function);
        v_count := v_count + 1;
    end loop;
    return v_count;
end $$;

-- pgq._truncate_event(i_table, i_trigger, i_op) -> record
-- The event of a TRUNCATE.
-- raises     PQ016  it is not a TRUNCATE that the trigger was fired for
-- raises     PQ017
-- runs as    owner: whoever truncates the table
create or replace function pgq._truncate_event(
    i_table oid, i_trigger name, i_op text, out queue_name text, out ev_type text, out ev_data text, out ev_extra1 text)
returns record
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
declare
    v_trigger record;
    v_args record;
    v_schema name;
    v_name name;
begin
    if i_op <> 'TRUNCATE' then
        raise exception 'pgq Ins/Upd/Del trigger must be fired FOR EACH ROW: trigger % on %', quote_ident(i_trigger), i_table::regclass
            using errcode = 'PQ016', hint = 'create trigger ... for each row execute function ...';
    end if;
    select * into v_trigger from pgq._trigger_definition(i_table, i_trigger);
    select * into v_args from pgq._trigger_arguments(v_trigger.args, v_trigger.type);
    select n.nspname, c.relname into v_schema, v_name from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = i_table;
    queue_name := v_args.queue_name;
    ev_extra1 := v_schema || '.' || v_name;
    if v_args.deny then
        raise exception 'Table ''%'' to queue ''%'': change not allowed (%)', ev_extra1, queue_name, i_op
            using errcode = 'PQ017', hint = 'change it where the queue is filled from, or drop the trigger that denies it';
    end if;
    ev_type := 'R';
    ev_data := '';
    if v_trigger.kind = 'jsontriga' then
        ev_type := format('{"op":"TRUNCATE","table":[%s,%s],"pkey":[%s]}', to_json(v_schema::text), to_json(v_name::text),
                          (select string_agg(to_json(k::text)::text, ',') from unnest(pgq._key_columns(i_table)) k));
        ev_data := '{}';
    end if;
end $$;

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

-- pgq.captured: which tables are captured into which queues. A regclass, so that a dump names the table.
create table pgq.captured (
    cap_id       integer generated always as identity,
    cap_table    regclass not null,
    cap_queue    integer not null,
    cap_options  jsonb not null,
    cap_level    text not null,
    cap_shape    text,
    constraint captured_pkey primary key (cap_id),
    constraint captured_table_key unique (cap_table, cap_queue),
    constraint captured_queue_fkey foreign key (cap_queue) references pgq.queue (queue_id)
);
comment on table pgq.captured is 'Tables whose changes become events: see the view pgq.captured_table';

-- Writers of SQL as in encode_value.sql, for captures alone: they run as the owner of pgq, so values are compared by what their
-- types' output functions write, never by operators that somebody may have made.

-- pgq._capture_has_equality(i_type) -> boolean
-- Whether = finds the values of a type again; json, xml, geometric types and composites are compared as text.
-- runs as    caller
create or replace function pgq._capture_has_equality(i_type oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
    with recursive t as (
        select i_type as oid
        union select coalesce(nullif(y.typbasetype, 0), nullif(y.typelem, 0)) from t join pg_type y on y.oid = t.oid
               where y.typbasetype <> 0 or y.typcategory = 'A'
    )
    select bool_and(y.typcategory not in ('G', 'C') and y.oid not in ('json'::regtype, 'xml'::regtype)) from t join pg_type y on y.oid = t.oid
$$;

-- pgq._capture_key_sql(i_table, i_key, i_record) -> text
-- SQL for the condition that finds a row by its key, as in: a='1' and b is null.
-- i_record   what holds the row
-- runs as    caller
create or replace function pgq._capture_key_sql(i_table regclass, i_key name[], i_record text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select pgq._encode_join(array_agg(
               format('coalesce(%L || %s, %L)',
                      quote_ident(t.name) || case when pgq._capture_has_equality(t.type) then '' else '::text' end || '=',
                      pgq._encode_value(format('%s.%I', i_record, t.name), t.type, 'sql'),
                      quote_ident(t.name) || ' is null') order by t.attnum), ' and ')
      from pgq._table_columns(i_table) t where t.name = any (i_key)
$$;

-- pgq._capture_comparable(i_type, i_value) -> text
-- SQL for what differs between two values where their texts do: 1.0 is not 1.00.
-- runs as    caller
create or replace function pgq._capture_comparable(i_type oid, i_value text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when i_type in ('bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'uuid'::regtype, 'date'::regtype,
                                'timestamp'::regtype, 'timestamptz'::regtype, 'bytea'::regtype) then i_value
                else format('(%s) collate pg_catalog."C"', pgq._text_of(i_value, i_type)) end
$$;

-- pgq._capture_differs(i_table, i_columns) -> text
-- SQL that tells whether any of these columns differs between old and new; its names are qualified.
-- runs as    caller
create or replace function pgq._capture_differs(i_table regclass, i_columns name[]) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(string_agg(format('coalesce(%s operator(pg_catalog.<>) %s,'
                                      ' (old.%3$I is not distinct from null) operator(pg_catalog.<>) (new.%3$I is not distinct from null))',
                                      pgq._capture_comparable(t.type, format('old.%I', t.name)),
                                      pgq._capture_comparable(t.type, format('new.%I', t.name)), t.name), ' or ' order by t.attnum), 'false')
      from pgq._table_columns(i_table) t where t.name = any (i_columns)
$$;

-- pgq._capture_sql_update(i_table, i_columns, i_key) -> text
-- SQL for what follows UPDATE t SET: the columns that differ between old and new, and the old key; where nothing differs,
-- the first key column is set to itself.
-- runs as    caller
create or replace function pgq._capture_sql_update(i_table regclass, i_columns name[], i_key name[]) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('coalesce(nullif(%s collate "C", ''''), %s) || '' where '' || %s',
                  pgq._encode_join(array_agg(format('case when %s is distinct from %s then %L || coalesce(%s, ''NULL'') end',
                                                     pgq._capture_comparable(t.type, format('old.%I', t.name)),
                                                     pgq._capture_comparable(t.type, format('new.%I', t.name)), quote_ident(t.name) || '=', v.value)
                                              order by t.attnum), ','),
                  min(format('%L || coalesce(%s, ''NULL'')', quote_ident(t.name) || '=', v.value)) filter (where t.name = i_key[1]),
                  pgq._capture_key_sql(i_table, i_key, 'old'))
      from pgq._table_columns(i_table) t
     cross join lateral (select pgq._encode_value(format('new.%I', t.name), t.type, 'sql') as value) v
     where t.name = any (i_columns)
$$;

-- The trigger function of one captured table, pgq.capture_<id>(). It inserts statically into the queue's current table, so
-- its plans are cached. It knows by a constant whether it still fits its table: see pgq._shape(). When it does not, it
-- runs SQL generated on the spot, which is slower but as right, until pgq.refresh_capture() writes it anew.

-- pgq._capture_key(i_table, i_options) -> name[]
-- The key columns by which a captured row is known: those of the options, else of the primary key, else of the replica
-- identity; none at all when every column is needed.
-- runs as    caller
create or replace function pgq._capture_key(i_table regclass, i_options jsonb) returns name[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when i_options ? 'key' then array(select k::name from jsonb_array_elements_text(i_options -> 'key') with ordinality u (k, n) order by n)
           else array(select a.attname
                        from (select x.indrelid, x.indkey, x.indnkeyatts from pg_index x
                               where x.indrelid = i_table and (x.indisprimary or x.indisreplident)
                               order by x.indisprimary desc limit 1) x
                       cross join lateral unnest(x.indkey::int2[]) with ordinality u (attnum, n)
                        join pg_attribute a on a.attrelid = x.indrelid and a.attnum = u.attnum
                       where u.n <= x.indnkeyatts order by u.n) end
$$;

-- pgq._capture_unique(i_table, i_options) -> boolean
-- Whether the key columns are those of a unique index that is never violated, not even within a statement.
-- runs as    caller
create or replace function pgq._capture_unique(i_table regclass, i_options jsonb) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
    select not i_options ? 'key' and bool_and(x.indimmediate) from pg_index x where x.indrelid = i_table and (x.indisprimary or x.indisreplident)
$$;

-- pgq._capture_columns(i_capture) -> name[]
-- The columns that a capture takes, as the table has them now; virtual generated ones are never stored, so never taken.
-- raises     PQ014  the options name a column that the table does not have
-- runs as    caller
create or replace function pgq._capture_columns(i_capture pgq.captured) returns name[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_all name[] := array(select a.attname from pg_attribute a
                           where a.attrelid = i_capture.cap_table and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v'
                             and not (a.attgenerated <> '' and i_capture.cap_options ->> 'format' = 'sql') order by a.attnum);
    v_missing text;
begin
    select string_agg(quote_ident(c), ', ') into v_missing
      from (select jsonb_array_elements_text(v.list) as c
              from (values (i_capture.cap_options -> 'columns'), (i_capture.cap_options -> 'ignore'), (i_capture.cap_options -> 'key')) v (list)) l
     where not exists (select from pg_attribute a where a.attrelid = i_capture.cap_table and a.attname = l.c and a.attnum > 0 and not a.attisdropped);
    if v_missing is not null then
        raise exception 'table % has no column % that its capture names', i_capture.cap_table, v_missing
            using errcode = 'PQ014', hint = format('give the options anew: select pgq.capture(%L, %L, %L)', i_capture.cap_table,
                      (select q.queue_name from pgq.queue q where q.queue_id = i_capture.cap_queue), i_capture.cap_options);
    end if;
    return array(select c from unnest(v_all) with ordinality u (c, n)
                  where (not i_capture.cap_options ? 'columns' or i_capture.cap_options -> 'columns' ? c::text)
                    and not coalesce(i_capture.cap_options -> 'ignore' ? c::text, false) order by n);
end $$;

-- pgq._capture_key_value(i_table, i_key, i_record) -> text
-- SQL for the key of a row as one value, which differs where what its columns show as text does.
-- i_record   what holds the row
-- runs as    caller
create or replace function pgq._capture_key_value(i_table regclass, i_key name[], i_record text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when count(*) = 1 then min(k.value) else format('row(%s)', string_agg(k.value, ', ' order by t.attnum)) end
      from pgq._table_columns(i_table) t
     cross join lateral pgq._capture_comparable(t.type, format('%s.%I', i_record, t.name)) k (value)
     where t.name = any (i_key)
$$;

-- pgq._capture_same_keys(i_table, i_key, i_unique, i_one) -> text
-- SQL that tells whether the keys of old_rows and new_rows are the same, row by row. Above a million rows it says no, so that
-- memory is bounded.
-- i_unique   whether no two rows have the same key, within a statement either
-- i_one      true: whether there is one row, new, that has the key it had; which takes less to find out
-- runs as    caller
create or replace function pgq._capture_same_keys(i_table regclass, i_key name[], i_unique boolean, i_one boolean) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format(case when not i_one then 'array(select %1$s from new_rows as k limit 1000000) = array(select %1$s from old_rows as k limit 1000001)'
                       -- Of two unique keys one differs.
                       when i_unique then '%2$s operator(pg_catalog.=) all (array(select %1$s from old_rows as k limit 2))'
                       else 'array(select %1$s from old_rows as k limit 2) operator(pg_catalog.=) array[%2$s]' end,
                  pgq._capture_key_value(i_table, i_key, 'k'), pgq._capture_key_value(i_table, i_key, 'new'))
$$;

-- pgq._capture_event(i_capture, i_op, i_paired) -> record
-- What an event is made of, in SQL over the rows new and old.
-- i_op       INSERT, UPDATE, DELETE or TRUNCATE
-- i_paired   false: for an update that changes no key, where only the new rows are looked at
-- returns    data_from: the FROM item that data needs, or null; old_row: the old row for ev_extra2, or null; old_when: the
--            condition for that, or null; extras: ev_extra1, 3 and 4; condition: whether there is an event at all, or null
-- raises     PQ014  the options name a column that the table does not have
-- runs as    caller
create or replace function pgq._capture_event(
    i_capture pgq.captured, i_op text, i_paired boolean,
    out type text, out data text, out data_from text, out old_row text, out old_when text, out extras text[], out condition text)
returns record
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_table regclass := i_capture.cap_table;
    v_options jsonb := i_capture.cap_options;
    v_format text := v_options ->> 'format';
    v_columns name[] := pgq._capture_columns(i_capture);
    v_key name[] := pgq._capture_key(v_table, v_options);
    v_rest name[];
    v_name text;
    v_schema text;
    v_relation text;
    v_record text := case when i_op = 'DELETE' then 'old' else 'new' end;
    v_expression text;
begin
    select n.nspname::text, c.relname::text into v_schema, v_relation from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = v_table;
    v_name := v_schema || '.' || v_relation;
    v_rest := array(select a.attname from pg_attribute a
                     where a.attrelid = v_table and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v' and a.attname <> all (v_columns));
    type := quote_literal(case
        when v_options ? 'event_type' then replace(replace(v_options ->> 'event_type', '{op}', lower(i_op)), '{table}', v_name)
        when v_format = 'json' then format('{"op":"%s","table":[%s,%s],"pkey":%s}', i_op, to_json(v_schema), to_json(v_relation),
                                           replace(to_json(v_key::text[])::text, ', ', ','))
        when i_op = 'TRUNCATE' then 'R'
        when v_format = 'urlencode' then left(i_op, 1) || ':' || array_to_string(v_key, ',')
        else left(i_op, 1) end);
    extras := array[quote_literal(v_name), 'null', 'null'];
    if i_op = 'TRUNCATE' then
        data := quote_literal(case when v_format = 'json' then '{}' else '' end);
        return;
    end if;
    v_key := case when v_key = '{}' then v_columns
                  else array(select a.attname from pg_attribute a where a.attrelid = v_table and a.attname = any (v_key) and a.attnum > 0 order by a.attnum) end;
    if v_format = 'json' then
        data := 'pg_catalog.row_to_json(data.*)::pg_catalog.text';
        data_from := pgq._encode_json_from(v_table, v_columns, v_record) || ' as data';
    elsif v_format = 'urlencode' then
        data := pgq._encode_row(v_table, 'urlencode', v_columns, v_record);
    else
        data := case i_op when 'INSERT' then pgq._encode_row(v_table, 'sql', v_columns, 'new')
                          when 'UPDATE' then pgq._capture_sql_update(v_table, v_columns, v_key)
                          else pgq._capture_key_sql(v_table, v_key, 'old') end;
    end if;
    if i_op = 'UPDATE' and i_paired then
        -- Who replays an update has to know the old key: it is in the old row, unless it is the same as the new.
        if v_format <> 'sql' or (v_options ->> 'old_row')::boolean then
            old_row := pgq._encode_row(v_table, case v_format when 'json' then 'json' else 'urlencode' end, v_columns, 'old');
            if v_key <> v_columns and (v_options ->> 'old_row')::boolean is distinct from true then
                old_when := pgq._capture_differs(v_table, v_key);
            end if;
        end if;
        if v_rest <> '{}' then
            condition := format('(%s or not (%s))', pgq._capture_differs(v_table, v_columns), pgq._capture_differs(v_table, v_rest));
        end if;
    end if;
    for v_n in 1..4 loop
        v_expression := format(e'(select (%s\n)::pg_catalog.text from (select %s.*) as t)', v_options ->> ('extra' || v_n), v_record);
        if not v_options ? ('extra' || v_n) then
            continue;
        elsif v_n = 2 then
            old_row := v_expression;
            old_when := null;
        else
            extras[case v_n when 1 then 1 else v_n - 1 end] := v_expression;
        end if;
    end loop;
    if v_options ? 'when' then
        condition := concat_ws(' and ', condition, format(e'(select (%s\n)::pg_catalog.bool from (select %s.*) as t)', v_options ->> 'when', v_record));
    end if;
end $$;

-- pgq._capture_select(i_capture, i_op, i_row, i_paired, i_one) -> text
-- The SELECT that turns the rows new and old into events: type, data, extra1 to extra4.
-- i_row      SQL for a FROM item with new and old, for a capture by row
-- i_paired   as in pgq._capture_event()
-- i_one      for an update of one row, which takes less; it finds nothing when there are more
-- raises     PQ014  the options name a column that the table does not have
-- runs as    caller
create or replace function pgq._capture_select(i_capture pgq.captured, i_op text, i_row text, i_paired boolean, i_one boolean) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_event record;
    v_pairs boolean := i_op = 'UPDATE' and i_paired and i_row = '' and not i_one;
    v_from text;
begin
    select * into v_event from pgq._capture_event(i_capture, i_op, i_paired);
    if i_op <> 'TRUNCATE' then
        v_from := case
            when i_row <> '' then i_row
            when i_op = 'INSERT' then 'new_rows as new'
            when i_op = 'DELETE' then 'old_rows as old'
            when not i_paired then 'new_rows as new'
            when i_one then 'new_rows as new cross join old_rows as old'
            -- Both have the order in which the executor made them. A full join cannot become a nested loop,
            -- whatever number of rows the plan was made for.
            else e'(select pg_catalog.row_number() over () as "skytools row", r.* from new_rows as r) as new\n'
                  '          full join (select pg_catalog.row_number() over () as "skytools row", r.* from old_rows as r) as old\n'
                  '            on new."skytools row" = old."skytools row"' end;
    end if;
    v_event.condition := concat_ws(' and ', v_event.condition,
        case when not i_paired then
                  pgq._capture_same_keys(i_capture.cap_table, pgq._capture_key(i_capture.cap_table, i_capture.cap_options),
                                         pgq._capture_unique(i_capture.cap_table, i_capture.cap_options), i_one)
             when i_one then 'array(select 1 from old_rows limit 2) = array[1]' end);
    return format('select %s, %s, %s, %s, %s, %s', v_event.type, v_event.data, v_event.extras[1],
                  case when v_event.old_when is null then coalesce(v_event.old_row, 'null')
                       else format('case when %s then %s end', v_event.old_when, v_event.old_row) end,
                  v_event.extras[2], v_event.extras[3])
        || coalesce(e'\n          from ' || v_from, '') || coalesce(e'\n         cross join lateral ' || v_event.data_from, '')
        || coalesce(e'\n         where ' || nullif(v_event.condition, ''), '')
        || case when v_pairs then e'\n         order by new."skytools row"' else '' end;
end $$;

-- pgq._capture_pairs(i_capture) -> boolean
-- Whether every update needs the old rows beside the new ones; else only one that changes keys does.
-- runs as    caller
create or replace function pgq._capture_pairs(i_capture pgq.captured) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
    select i_capture.cap_level <> 'statement' or i_capture.cap_options ->> 'format' = 'sql'
        or i_capture.cap_options ?| '{columns,ignore,old_row,when,extra1,extra2,extra3,extra4}'::text[]
        or pgq._capture_key(i_capture.cap_table, i_capture.cap_options) = '{}'
$$;

-- pgq._capture_writes(i_capture) -> boolean
-- Whether a capture inserts into the queue's table itself. One that has SQL expressions runs as whoever changes the
-- captured table, and so calls pgq.insert_events(): expressions get no rights but those of the caller.
-- runs as    caller
create or replace function pgq._capture_writes(i_capture pgq.captured) returns boolean
language sql immutable as $$
    select not i_capture.cap_options operator(pg_catalog.?|) '{when,extra1,extra2,extra3,extra4}'::text[]
$$;

-- pgq._capture_insert(i_capture, i_op, i_slot, i_row, i_paired, i_one) -> text
-- The statement that stores the events of a change.
-- i_slot     the number of the queue's current table
-- i_row      as in pgq._capture_select(), and so is i_one
-- i_paired   as in pgq._capture_event()
-- runs as    caller
create or replace function pgq._capture_insert(
    i_capture pgq.captured, i_op text, i_slot integer, i_row text default '', i_paired boolean default true, i_one boolean default false)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_select text := pgq._capture_select(i_capture, i_op, i_row, i_paired, i_one);
begin
    if pgq._capture_writes(i_capture) then
        return format(e'insert into %s (ev_time, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4)\n        select pg_catalog.now(), s.* from (%s) as s',
                      pgq._event_table(i_capture.cap_queue, i_slot), v_select);
    end if;
    return format(e'select pgq.insert_events(%L, a.types, a.datas, a.extra1, a.extra2, a.extra3, a.extra4)\n'
                  '          from (select pg_catalog.array_agg(s.type) as types, pg_catalog.array_agg(s.data) as datas, pg_catalog.array_agg(s.e1) as extra1,\n'
                  '                       pg_catalog.array_agg(s.e2) as extra2, pg_catalog.array_agg(s.e3) as extra3, pg_catalog.array_agg(s.e4) as extra4\n'
                  '                  from (%s) as s (type, data, e1, e2, e3, e4)) as a where a.types is not null',
                  (select q.queue_name from pgq.queue q where q.queue_id = i_capture.cap_queue), v_select);
end $$;

-- pgq._capture_rows(i_op, i_new, i_old) -> text
-- SQL for a FROM item with the rows new and old of a trigger by row.
-- runs as    caller
create or replace function pgq._capture_rows(i_op text, i_new text, i_old text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case i_op when 'INSERT' then format('(select (%s).*) as new', i_new)
                     when 'DELETE' then format('(select (%s).*) as old', i_old)
                     when 'UPDATE' then format('(select (%s).*) as new cross join (select (%s).*) as old', i_new, i_old)
                     else '' end
$$;

-- pgq._capture_statement(i_id, i_op) -> text
-- What a trigger function runs by EXECUTE, with $1 = new and $2 = old, when its table has changed since it was generated.
-- raises     PQ014  the options name a column that the table does not have, or the table is not captured any more
-- runs as    owner: a writer of the table may not read pgq.captured
create or replace function pgq._capture_statement(i_id integer, i_op text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_capture pgq.captured;
    v_slot integer;
begin
    select * into v_capture from pgq.captured c where c.cap_id = i_id;
    if not found then
        raise exception 'no capture has the number %: the trigger is left over', i_id
            using errcode = 'PQ014', hint = format('drop function %s cascade', (select string_agg(f::text, ', ') from pgq._capture_functions(i_id) f));
    end if;
    execute format('select pgq.event_%s_slot()', v_capture.cap_queue) into v_slot;
    return pgq._capture_insert(v_capture, i_op, v_slot,
                               case when v_capture.cap_level = 'statement' then '' else pgq._capture_rows(i_op, '$1', '$2') end);
end $$;

-- pgq._capture_qualified(i_capture) -> boolean
-- Whether a trigger by row, or what an update of one row runs by statement, finds all its names in pg_catalog and pgq, whatever
-- the search_path: there is no operator in it that is not qualified, and no type whose output or casts somebody may have made.
-- runs as    caller
create or replace function pgq._capture_qualified(i_capture pgq.captured) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
    with recursive t as (
        select c.type as oid from pgq._table_columns(i_capture.cap_table) c
        union select coalesce(nullif(y.typbasetype, 0), y.typelem) from t join pg_type y on y.oid = t.oid
               where y.typtype = 'd' or y.typcategory = 'A'
    )
    select case i_capture.cap_level when 'statement' then not pgq._capture_pairs(i_capture) else i_capture.cap_options ->> 'format' <> 'sql' end
       and bool_and(y.typnamespace = 'pg_catalog'::regnamespace or y.typtype in ('d', 'e') or y.typcategory = 'A')
      from t join pg_type y on y.oid = t.oid
$$;

-- pgq._capture_code(i_capture, i_op, i_slot) -> text
-- PL/pgSQL for one operation: the condition of a branch, and what it does.
-- i_slot     the number of the queue's current table
-- raises     PQ014  the options name a column that the table does not have
-- runs as    caller
create or replace function pgq._capture_code(i_capture pgq.captured, i_op text, i_slot integer) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $code$
declare
    v_event record;
    v_row text := case when i_capture.cap_level = 'statement' then '' else pgq._capture_rows(i_op, 'new', 'old') end;
    v_code text;
    v_count text := e';\n            get diagnostics v_count = row_count;\n            ';
begin
    if not pgq._capture_writes(i_capture) then
        return format(e'tg_op operator(pg_catalog.=) %L then\n            %s;\n', i_op,
                      regexp_replace(pgq._capture_insert(i_capture, i_op, i_slot, v_row), '^select', 'perform'));
    elsif v_row = '' and i_op <> 'TRUNCATE' then
        v_code := pgq._capture_insert(i_capture, i_op, i_slot) || v_count;
        if i_op = 'UPDATE' and not pgq._capture_pairs(i_capture) then
            -- Most updates change no key. This stores nothing if one does.
            v_code := pgq._capture_insert(i_capture, i_op, i_slot, '', false) || v_count
                || format(e'if v_count = 0 then\n            %send if;\n            ', v_code);
        end if;
        v_code := v_code || format(e'v_slot := pgq.event_%s_admit(v_count);\n', i_capture.cap_queue);
        if i_op = 'UPDATE' and pgq._capture_pairs(i_capture) then
            -- pgq._capture_one_update() has seen both rows of an update of one, whether there was an event in it or not.
            v_code := format(e'if exists (select from new_rows offset 1) then\n            %s            end if;\n', v_code);
        end if;
        return format(e'tg_op operator(pg_catalog.=) %L then\n            %s', i_op, v_code);
    end if;
    select * into v_event from pgq._capture_event(i_capture, i_op, true);
    -- What no FROM goes with is put into a variable: many rows in one transaction share what it takes to work out.
    return format(e'tg_op operator(pg_catalog.=) %L and %spgq.event_%s_admit(1) is not null then\n', i_op, '(' || v_event.condition || ') and ', i_capture.cap_queue)
        || case when v_event.data_from is null then format(e'            v_data := %s;\n', v_event.data) else '' end
        || case when v_event.old_row is null then ''
                when v_event.old_when is null then format(e'            v_old := %s;\n', v_event.old_row)
                else format(e'            if %s then\n            v_old := %s;\n            end if;\n', v_event.old_when, v_event.old_row) end
        || format(e'            insert into %s (ev_time, ev_type, ev_data, ev_extra1, ev_extra2)\n            select pg_catalog.now(), %s, %s, %s, v_old%s;\n',
                  pgq._event_table(i_capture.cap_queue, i_slot), v_event.type, case when v_event.data_from is null then 'v_data' else v_event.data end,
                  v_event.extras[1], ' from ' || v_event.data_from);
end $code$;

-- pgq._capture_slots(i_capture, i_code, i_else) -> text
-- PL/pgSQL that does what is said for the queue's current table, if the captured table still has the shape that cap_shape says.
-- i_code     for each slot, statements
-- i_else     what is done otherwise
-- runs as    caller
create or replace function pgq._capture_slots(i_capture pgq.captured, i_code text[], i_else text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select string_agg(format(e'    %s %spgq._shape(%L::pg_catalog.regclass) operator(pg_catalog.=) %L then\n%s', case u.n when 1 then 'if' else 'elsif' end,
                             case when pgq._capture_writes(i_capture) then format('pgq.event_%s_slot() operator(pg_catalog.=) %s and ', i_capture.cap_queue, u.n - 1) end,
                             i_capture.cap_table::oid, i_capture.cap_shape, u.code), '' order by u.n)
           || i_else || e'    end if;\n'
      from unnest(i_code) with ordinality u (code, n)
$$;

-- pgq._capture_functions(i_id) -> setof regprocedure
-- The functions that were generated for a capture.
-- runs as    caller
create or replace function pgq._capture_functions(i_id integer) returns setof regprocedure
language sql stable as $$
    select p.oid::pg_catalog.regprocedure from pg_catalog.pg_proc p
     where p.pronamespace = 'pgq'::pg_catalog.regnamespace
       and p.proname = any (array[pg_catalog.format('capture_%s', i_id), pg_catalog.format('capture_%s_update', i_id)])
$$;

-- pgq._capture_one_update(i_capture) -> text
-- PL/pgSQL for an update of one row and no key, as most are, after which it returns; what follows is for all others.
-- runs as    caller
create or replace function pgq._capture_one_update(i_capture pgq.captured) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select pgq._capture_slots(i_capture, array(
               select format(e'        %s;\n', pgq._capture_insert(i_capture, 'UPDATE', slot, '', pgq._capture_pairs(i_capture), true))
                 from generate_series(0, 2) slot order by slot), '')
           || format(e'    if found and pgq.event_%s_admit(1) is not null then\n        return v_none;\n'
                     '    elsif not exists (select from new_rows) then\n        return v_none;\n    end if;\n', i_capture.cap_queue)
$$;

-- pgq._capture_fixed(i_code) -> text
-- PL/pgSQL that runs statements with the settings of other captures, in a function that has none of its own.
-- runs as    caller
create or replace function pgq._capture_fixed(i_code text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select format($code$    v_path := pg_catalog.current_setting('search_path');
    v_jit := pg_catalog.current_setting('jit');
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true), pg_catalog.set_config('jit', 'off', true);
%s    perform pg_catalog.set_config('search_path', v_path, true), pg_catalog.set_config('jit', v_jit, true);
$code$, i_code)
$$;

-- pgq._capture_operations(i_capture, i_operations) -> text
-- PL/pgSQL for these operations, whatever the current table, and whether the captured table has changed or not.
-- runs as    caller
create or replace function pgq._capture_operations(i_capture pgq.captured, i_operations text[]) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select pgq._capture_slots(i_capture, array(
               select (select string_agg(case o.n when 1 then '        if ' else '        elsif ' end || pgq._capture_code(i_capture, o.op, slot), '' order by o.n)
                         from unnest(i_operations) with ordinality o (op, n)) || e'        end if;\n'
                 from generate_series(0, case when pgq._capture_writes(i_capture) then 2 else 0 end) slot order by slot),
               e'    else\n' || case when i_capture.cap_level = 'row' and pgq._capture_writes(i_capture) and pgq._capture_qualified(i_capture)
                                    then pgq._capture_fixed(s.stale) else s.stale end)
      from (select format(e'        execute pgq._capture_statement(%s, tg_op)%s;\n', i_capture.cap_id,
                          case when i_capture.cap_level = 'statement' then '' else ' using new, old' end)
                   || case when pgq._capture_writes(i_capture)
                           then format(e'        get diagnostics v_count = row_count;\n        v_slot := pgq.event_%s_admit(v_count);\n', i_capture.cap_queue)
                           else '' end) s (stale)
$$;

-- pgq._make_capture_code(i_capture) -> void
-- Write the trigger functions of a captured table, and note the table's shape. By statement, updates have one of their own.
-- raises     PQ014  the options name a column that the table does not have
-- runs as    caller, within a security definer function
create or replace function pgq._make_capture_code(i_capture pgq.captured) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $make$
declare
    v_writes boolean := pgq._capture_writes(i_capture);
    -- Updates come first: they are the most common.
    v_operations text[] := array(select upper(o) from jsonb_array_elements_text(i_capture.cap_options -> 'operations') o order by o <> 'update');
    v_update text[] := array[]::text[];
    v_qualified boolean := pgq._capture_qualified(i_capture);
    v_settings text := case when v_writes and not (v_qualified and i_capture.cap_level = 'row') then 'set search_path = pg_catalog, pg_temp' else '' end
        -- A plan that was made for many rows would be compiled again for each single one.
        || case when i_capture.cap_level = 'statement' then ' set jit = off' else '' end;
    v_body text := $body$
#variable_conflict use_column
declare
    v_none pg_catalog.text;
    v_count pg_catalog.int8;
    v_slot pg_catalog.int4;
    v_data pg_catalog.text;
    v_old pg_catalog.text;
    v_path pg_catalog.text;
    v_jit pg_catalog.text;
begin
%s    return v_none;
end $body$;
    v_function record;
begin
    i_capture.cap_shape := pgq._shape(i_capture.cap_table);
    if i_capture.cap_level = 'statement' and v_writes and 'UPDATE' = any (v_operations) then
        v_update := array['UPDATE'];
        v_operations := array_remove(v_operations, 'UPDATE');
    end if;
    for v_function in
        select f.* from (values
            ('', v_operations, v_settings, pgq._capture_operations(i_capture, v_operations)),
            ('_update', v_update, case when v_qualified then '' else v_settings end,
             pgq._capture_one_update(i_capture) || case when not v_qualified then pgq._capture_operations(i_capture, v_update)
                 else $body$    -- Many rows, or a new key. Up to here each name is qualified, so that the function needs no settings of its own, which
    -- would take a tenth of the time of an update of one row; from here on it has those of other captures.
$body$ || pgq._capture_fixed(pgq._capture_operations(i_capture, v_update)
                 || $body$    -- So that no plan is left that was made for this many rows and would be compiled again for each single one.
    if v_jit = 'on' and current_setting('jit_above_cost')::float8 between 0 and v_count * 0.1 then
        discard plans;
    end if;
$body$) end)) f (suffix, operations, settings, body)
         where f.operations <> '{}'
    loop
        execute format('create or replace function pgq.capture_%s%s() returns trigger language plpgsql %s %s as %L', i_capture.cap_id,
                       v_function.suffix, case when v_writes then 'security definer' else '' end, v_function.settings, format(v_body, v_function.body));
    end loop;
    for v_function in select * from pgq._capture_functions(i_capture.cap_id) f loop
        execute format('revoke all on function %s from public', v_function.f);
        if to_regrole('pgq_admin') is not null then
            execute format('grant execute on function %s to pgq_admin', v_function.f);
        end if;
        execute format('comment on function %s is %L', v_function.f,
            format('skytools: generated, captures changes of %s; regenerate: select pgq.refresh_capture()', i_capture.cap_table));
    end loop;
    update pgq.captured set cap_shape = i_capture.cap_shape where cap_id = i_capture.cap_id;
end $make$;

create or replace view pgq.captured_table as
select c.cap_table as captured_table, n.nspname || '.' || r.relname as table_name, q.queue_name, c.cap_options ->> 'format' as format,
       array(select jsonb_array_elements_text(c.cap_options -> 'operations')) as operations,
       c.cap_level as level, c.cap_options as options,
       c.cap_shape is distinct from pgq._shape(c.cap_table) as stale,
       c.cap_id as capture_id
  from pgq.captured c
  join pgq.queue q on q.queue_id = c.cap_queue
  join pg_catalog.pg_class r on r.oid = c.cap_table
  join pg_catalog.pg_namespace n on n.oid = r.relnamespace;
comment on view pgq.captured_table is 'Tables whose changes become events, and whether the code for that still fits the table';

-- pgq._capture_options(i_table, i_queue_name, i_options) -> jsonb
-- Options as they are stored: checked, defaults filled in.
-- raises     PQ043  an option is unknown or its value is none
-- raises     PQ044  the table cannot be captured
-- runs as    caller
create or replace function pgq._capture_options(i_table regclass, i_queue_name text, i_options jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_options jsonb := jsonb_build_object('format', 'json', 'operations', '["insert", "update", "delete", "truncate"]'::jsonb, 'level', 'auto')
                       || coalesce(i_options, '{}');
    v_problem text;
    v_kind "char";
begin
    select c.relkind into v_kind from pg_class c where c.oid = i_table and c.relnamespace <> 'pgq'::regnamespace;
    if v_kind is null or v_kind not in ('r', 'p', 'f') then
        raise exception '% cannot be captured', i_table
            using errcode = 'PQ044', hint = 'capture a table that is none of pgq''s own';
    end if;
    select string_agg(case
            when o.key not in ('format', 'columns', 'ignore', 'key', 'when', 'old_row', 'extra1', 'extra2', 'extra3', 'extra4',
                               'operations', 'event_type', 'level') then format('there is no option %s', o.key)
            when o.key = 'format' and o.value not in ('"json"', '"urlencode"', '"sql"') then format('format is json, urlencode or sql, not %s', o.value)
            when o.key = 'level' and o.value not in ('"auto"', '"row"', '"statement"') then format('level is auto, row or statement, not %s', o.value)
            when o.key = 'old_row' and jsonb_typeof(o.value) <> 'boolean' then format('old_row is true or false, not %s', o.value)
            when o.key in ('when', 'extra1', 'extra2', 'extra3', 'extra4', 'event_type') and jsonb_typeof(o.value) <> 'string'
                then format('%s is a string, not %s', o.key, o.value)
            when o.key in ('columns', 'ignore', 'key', 'operations') and (jsonb_typeof(o.value) <> 'array' or o.value = '[]'
                 or jsonb_path_exists(o.value, '$[*] ? (@.type() != "string")')) then format('%s is an array of names, not %s', o.key, o.value)
            when o.key = 'operations' and not o.value <@ '["insert", "update", "delete", "truncate"]'
                then format('operations are insert, update, delete and truncate, not %s', o.value)
        end, '; ' order by o.key)
      into v_problem from jsonb_each(v_options) o;
    if v_problem is null and v_options ? 'columns' and v_options ? 'ignore' then
        v_problem := 'columns and ignore exclude each other';
    end if;
    if v_problem is null then
        if v_options ->> 'level' = 'statement' and pgq._capture_level(i_table) = 'row' then
            v_problem := format('%s has partitions, parents or children, so it is captured by row', i_table);
        end if;
        v_options := v_options - 'level' || jsonb_build_object('operations',
            (select jsonb_agg(o order by n) from (values (1, 'insert'), (2, 'update'), (3, 'delete'), (4, 'truncate')) u (n, o)
              where v_options -> 'operations' ? o and not (v_kind = 'f' and o = 'truncate')));
    end if;
    if v_problem is not null then
        raise exception 'capture of % into queue %: %', i_table, quote_ident(i_queue_name), v_problem
            using errcode = 'PQ043', hint = format('options are format, columns, ignore, key, when, old_row, extra1 to extra4, operations, event_type, level, as in: '
                                                   'select pgq.capture(%L, %L, %L)', i_table, i_queue_name, '{"format": "json", "ignore": ["password"]}');
    end if;
    return v_options;
end $$;

-- pgq._capture_level(i_table) -> text
-- How a table is captured unless told otherwise: by statement, except where a statement on another table changes its rows.
-- returns    statement or row
-- runs as    caller
create or replace function pgq._capture_level(i_table regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when c.relkind = 'r' and not exists (select from pg_inherits i where c.oid in (i.inhparent, i.inhrelid))
                then 'statement' else 'row' end
      from pg_class c where c.oid = i_table
$$;

-- pgq._store_capture(i_table, i_queue_name, i_options) -> integer
-- Store what pgq.capture() was told, and write the trigger function.
-- returns    the number of the capture
-- raises     PQ001  no such queue
-- runs as    owner
create or replace function pgq._store_capture(i_table regclass, i_queue_name text, i_options jsonb) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_options jsonb;
    v_queue integer;
    v_capture pgq.captured;
    v_columns name[];
    v_key name[];
begin
    perform pgq._lock_captures();
    select q.queue_id into v_queue from pgq.queue q where q.queue_name = i_queue_name for share;
    if not found then
        raise exception 'No such event queue: %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    v_options := pgq._capture_options(i_table, i_queue_name, i_options);
    insert into pgq.captured as c (cap_table, cap_queue, cap_options, cap_level)
    values (i_table, v_queue, v_options, case i_options ->> 'level' when 'row' then 'row' else pgq._capture_level(i_table) end)
    on conflict (cap_table, cap_queue) do update set cap_options = excluded.cap_options, cap_level = excluded.cap_level
    returning * into v_capture;
    v_columns := pgq._capture_columns(v_capture);
    v_key := pgq._capture_key(i_table, v_options);
    if v_columns = '{}' or not v_key <@ v_columns then
        raise exception 'capture of % into queue %: key % is not among the columns', i_table, quote_ident(i_queue_name), v_key
            using errcode = 'PQ043', hint = 'name the key''s columns in columns, not in ignore; or another key by the option key';
    end if;
    perform pgq._make_capture_code(v_capture);
    return v_capture.cap_id;
end $$;

-- pgq._lock_captures() -> void
-- One transaction at a time changes captures; nobody who changes a captured table waits for it.
-- locks      an advisory lock, to the end of the transaction
-- runs as    caller
create or replace function pgq._lock_captures() returns void
language sql as $$
    select pg_catalog.pg_advisory_xact_lock('pgq.captured'::pg_catalog.regclass::oid::bigint::integer, 0)
$$;

-- pgq._capture_triggers(i_id, i_table, i_level, i_operations) -> integer
-- Put the triggers of a capture where they are missing: on the table, and, by row, on each table that inherits from it.
-- returns    how many were created
-- locks      those tables, SHARE ROW EXCLUSIVE
-- runs as    caller, who must own the tables
create or replace function pgq._capture_triggers(i_id integer, i_table regclass, i_level text, i_operations text[]) returns integer
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_part record;
    v_name text;
    v_count integer := 0;
begin
    for v_part in
        with recursive tables as (
            select i_table::oid as oid
            union select i.inhrelid from tables t join pg_inherits i on i.inhparent = t.oid join pg_class c on c.oid = i.inhrelid
                   where not c.relispartition
        )
        select t.oid::regclass as name, upper(o) as op
          from tables t cross join unnest(i_operations) with ordinality u (o, n)
         where o <> 'truncate' or t.oid = i_table
         order by t.oid, u.n
    loop
        v_name := format('skytools_capture_%s_%s', i_id, lower(v_part.op));
        if exists (select from pg_trigger t where t.tgrelid = v_part.name and t.tgname = v_name) then
            continue;
        end if;
        execute format('create trigger %I after %s on %s %s for each %s execute function %s', v_name, v_part.op, v_part.name,
            case when i_level <> 'statement' or v_part.op = 'TRUNCATE' then ''
                 when v_part.op = 'INSERT' then 'referencing new table as new_rows'
                 when v_part.op = 'DELETE' then 'referencing old table as old_rows'
                 else 'referencing new table as new_rows old table as old_rows' end,
            case when i_level = 'row' and v_part.op <> 'TRUNCATE' then 'row' else 'statement' end,
            coalesce(case v_part.op when 'UPDATE' then to_regprocedure(format('pgq.capture_%s_update()', i_id)) end,
                     to_regprocedure(format('pgq.capture_%s()', i_id))));
        v_count := v_count + 1;
    end loop;
    return v_count;
end $$;

-- pgq.capture(i_table, i_queue_name, i_options) -> integer
-- Turn every change of a table into an event in a queue, by triggers generated for that table.
-- i_table    a table, a partitioned table or a foreign table; one with partitions or children stands for all of them
-- i_queue_name the queue
-- i_options  an object: format ("json", "urlencode", "sql"); columns or ignore (arrays of names); key (array of names);
--            operations (array of "insert", "update", "delete", "truncate"); old_row (true: ev_extra2 of an update is the old
--            row); event_type (text, in which {op} and {table} are replaced); when (SQL condition) and extra1 to extra4 (SQL
--            expressions) over the columns, or over new and old; level ("auto", "row", "statement")
-- returns    the number of the capture; for a table that is captured into that queue already, the options are replaced
-- raises     PQ001  no such queue
-- raises     PQ008  the table is null
-- raises     PQ014  the table has no column of that name
-- raises     PQ043  an option is wrong
-- raises     PQ044  not a table, or one of pgq's own
-- locks      the table, SHARE ROW EXCLUSIVE: waits for transactions that have changed it
-- runs as    caller, who must own the table. A capture without when and extras writes events as the owner of pgq, so
--            whoever changes the table needs no right on the queue; with them, he must be a pgq_writer
create or replace function pgq.capture(i_table regclass, i_queue_name text, i_options jsonb default '{}') returns integer
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_id integer;
    v_capture pgq.captured_table;
begin
    if i_table is null then
        raise exception 'Invalid NULL value: table' using errcode = 'PQ008', hint = 'select pgq.capture(''table'', ''queue'')';
    end if;
    if exists (select from pg_class c where c.oid = i_table and not pg_has_role(c.relowner, 'usage')) then
        raise exception 'must be owner of table %', i_table
            using errcode = '42501', hint = 'capture it as its owner, who must be a pgq_admin';
    end if;
    -- Triggers differ by level and operations: an earlier capture's go first.
    perform pgq._drop_capture(c.capture_id, false) from pgq.captured_table c where c.captured_table = i_table and c.queue_name = i_queue_name;
    v_id := pgq._store_capture(i_table, i_queue_name, i_options);
    select * into v_capture from pgq.captured_table c where c.capture_id = v_id;
    perform pgq._capture_triggers(v_id, i_table, v_capture.level, v_capture.operations);
    return v_id;
end $$;

-- pgq._drop_capture(i_id, i_forget) -> void
-- Drop the triggers and the function of a capture.
-- i_forget   whether its options go too
-- locks      the captured table, ACCESS EXCLUSIVE
-- runs as    owner
create or replace function pgq._drop_capture(i_id integer, i_forget boolean) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set client_min_messages = warning as $$
declare
    v_function regprocedure;
begin
    perform pgq._lock_captures();
    for v_function in select * from pgq._capture_functions(i_id) loop
        execute format('drop function %s cascade', v_function);
    end loop;
    if i_forget then
        delete from pgq.captured where cap_id = i_id;
    end if;
end $$;

-- pgq.uncapture(i_table, i_queue_name) -> integer
-- End the capture of a table into a queue; the events that there are stay.
-- returns    1, or 0 when there was none
-- locks      the table, ACCESS EXCLUSIVE
-- runs as    caller, a pgq_admin
create or replace function pgq.uncapture(i_table regclass, i_queue_name text) returns integer
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform pgq._drop_capture(c.capture_id, true) from pgq.captured_table c where c.captured_table = i_table and c.queue_name = i_queue_name;
    return found::integer;
end $$;

-- pgq._refresh_captures() -> setof integer
-- Write the functions of stale captures anew, and forget captures whose tables are gone.
-- returns    the numbers of those that were stale
-- runs as    owner
create or replace function pgq._refresh_captures() returns setof integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_capture pgq.captured;
    v_level text;
begin
    perform pgq._lock_captures();
    perform pgq._drop_capture(c.cap_id, true) from pgq.captured c
      where not exists (select from pg_class r where r.oid = c.cap_table);
    for v_capture in
        select c.* from pgq.captured c
         where c.cap_shape is distinct from pgq._shape(c.cap_table)
            or not exists (select from pgq._capture_functions(c.cap_id))
         order by c.cap_id
    loop
        v_level := pgq._capture_level(v_capture.cap_table);
        -- The table has become part of a tree: its triggers have to be by row from now on.
        if v_level = 'row' and v_capture.cap_level = 'statement' then
            perform pgq._drop_capture(v_capture.cap_id, false);
            update pgq.captured set cap_level = 'row' where cap_id = v_capture.cap_id returning * into v_capture;
        end if;
        perform pgq._make_capture_code(v_capture);
        return next v_capture.cap_id;
    end loop;
end $$;

-- pgq.refresh_capture() -> setof regclass
-- Generate the code of captures anew whose tables have changed, and put triggers on new child tables.
-- returns    the tables for which something was done
-- raises     PQ014  the options of a capture name a column that its table does not have
-- locks      one change to captures at a time; tables that get triggers, SHARE ROW EXCLUSIVE
-- runs as    caller, a pgq_admin; who must own a table to put triggers on it
create or replace function pgq.refresh_capture() returns setof regclass
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_stale integer[] := array(select * from pgq._refresh_captures());
    v_capture record;
begin
    for v_capture in select * from pgq.captured_table c order by c.capture_id loop
        if pgq._capture_triggers(v_capture.capture_id, v_capture.captured_table, v_capture.level, v_capture.operations) > 0
           or v_capture.capture_id = any (v_stale) then
            return next v_capture.captured_table;
        end if;
    end loop;
end $$;

-- pgq.register_consumer(x_queue_name, x_consumer_id) -> integer
-- Subscribe a consumer to a queue: it will get every event that is committed after the queue's newest tick.
-- returns    1 subscribed, 0 it was already
-- raises     PQ001  no such queue
-- raises     PQ008  the consumer's name is null
-- raises     PQ012  the queue has no tick yet
-- runs as    owner
create or replace function pgq.register_consumer(x_queue_name text, x_consumer_id text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    return pgq.register_consumer_at(x_queue_name, x_consumer_id, null);
end $$;

-- pgq.register_consumer_at(x_queue_name, x_consumer_name, x_tick_pos) -> integer
-- Subscribe a consumer to a queue at a tick, or move a subscribed one there; a batch that it has open is then dropped.
-- x_tick_pos tick after which its events begin; null: the newest, and no change to a consumer that is subscribed
-- returns    1 subscribed, 0 it was already
-- raises     PQ001  no such queue
-- raises     PQ005  no such tick (any more)
-- raises     PQ008  the consumer's name is null
-- raises     PQ012  the queue has no tick yet
-- locks      the queue's row FOR SHARE, so that no rotation drops the tick; the consumer's row
-- runs as    owner
create or replace function pgq.register_consumer_at(x_queue_name text, x_consumer_name text, x_tick_pos bigint)
returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue_id integer;
    v_consumer_id integer;
    v_sub integer;
    v_tick bigint;
begin
    if x_consumer_name is null then
        raise exception 'Invalid NULL value: consumer name for queue %', coalesce(x_queue_name, 'NULL')
            using errcode = 'PQ008', hint = 'select pgq.register_consumer(''queue'', ''consumer'')';
    end if;
    select q.queue_id into v_queue_id from pgq.queue q where q.queue_name = x_queue_name for share;
    if not found then
        raise exception 'Event queue not created yet: %', coalesce(x_queue_name, 'NULL')
            using errcode = 'PQ001', hint = format('select pgq.create_queue(%L)', x_queue_name);
    end if;

    -- Whoever ends the consumer's last subscription just now deletes its row: then there is nothing to lock, and it is made anew.
    loop
        select c.co_id into v_consumer_id from pgq.consumer c where c.co_name = x_consumer_name for update;
        exit when found;
        insert into pgq.consumer (co_name) values (x_consumer_name) on conflict do nothing;
    end loop;

    select s.sub_key into v_sub from pgq.subscriber s
     where s.sub_queue = v_queue_id and s.sub_consumer = v_consumer_id;
    if v_sub is not null and x_tick_pos is null then
        return 0;
    end if;

    if x_tick_pos is not null then
        select t.tick_id into v_tick from pgq.tick t where t.tick_queue = v_queue_id and t.tick_id = x_tick_pos;
        if not found then
            raise exception 'cannot reposition, tick not found: % of queue %', x_tick_pos, x_queue_name
                using errcode = 'PQ005', hint = 'ticks there are: select min(tick_id), max(tick_id) from pgq.tick where tick_queue = '
                    || v_queue_id;
        end if;
    else
        select max(t.tick_id) into v_tick from pgq.tick t where t.tick_queue = v_queue_id;
        if v_tick is null then
            raise exception 'No ticks for this queue.  Please run ticker on database.  Queue: %', x_queue_name
                using errcode = 'PQ012', hint = format('select pgq.ticker(%L)', x_queue_name);
        end if;
    end if;

    if v_sub is not null then
        perform pgq._set_position(v_sub, v_tick, null, null, now());
        return 0;
    end if;
    insert into pgq.subscriber (sub_queue, sub_consumer) values (v_queue_id, v_consumer_id)
    on conflict do nothing returning sub_key into v_sub;
    perform pgq._move(v_sub, null, 0, v_tick, null, null, now());
    return 1;
end $$;

-- pgq._forget_names(i_consumers integer[]) -> void
-- Delete those of the consumer names that nobody uses any more: workers may come with a new name each time.
-- locks      their rows; one that somebody is just registering is left alone
-- runs as    caller, within a security definer function
create or replace function pgq._forget_names(i_consumers integer[]) returns void
language plpgsql as $$
declare
    v_free integer[];
begin
    -- Who registers a name holds its row: after this nobody can, and the next statement sees all who have.
    v_free := array(select c.co_id from pgq.consumer c where c.co_id = any (i_consumers) for update skip locked);
    delete from pgq.consumer c
     where c.co_id = any (v_free) and not exists (select from pgq.subscriber s where s.sub_consumer = c.co_id);
end $$;

-- pgq.unregister_consumer(x_queue_name, x_consumer_name) -> integer
-- End a subscription, its subconsumers' too. Its open batches and its events that wait for a retry are given up.
-- The name of a subconsumer ends that subconsumer alone.
-- returns    how many subscriptions ended; 0 there was none
-- locks      the subscription's and the consumer's row
-- runs as    owner
create or replace function pgq.unregister_consumer(x_queue_name text, x_consumer_name text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_sub pgq.subscriber;
    v_pos record;
    v_members integer;
    v_count integer;
begin
    select s.* into v_sub
      from pgq.subscriber s
      join pgq.queue q on q.queue_id = s.sub_queue
      join pgq.consumer c on c.co_id = s.sub_consumer
     where q.queue_name = x_queue_name and c.co_name = x_consumer_name
       for update of s, c;
    if not found then
        return 0;
    end if;

    v_pos := pgq._position(v_sub.sub_key);
    select count(*) into v_members from pgq.subscriber s where s.sub_queue = v_sub.sub_queue and s.sub_id = v_sub.sub_id;
    -- A subconsumer's row has both ticks (a batch is open) or none.
    if v_members > 1 and (v_pos.last_tick is null) = (v_pos.next_tick is null) then
        delete from pgq.subscriber s where s.sub_key = v_sub.sub_key;
        perform pgq._forget_names(array[v_sub.sub_consumer]);
        return 1;
    end if;

    delete from pgq.retry_queue r where r.ev_owner = v_sub.sub_id;
    delete from pgq.subscriber s where s.sub_id = v_sub.sub_id;
    get diagnostics v_count = row_count;
    perform pgq._forget_names(array(select c.co_id from pgq.consumer c
                                     where c.co_id = v_sub.sub_consumer or starts_with(c.co_name, x_consumer_name || '.')));
    return v_count;
end $$;

-- pgq.find_tick_helper(i_queue_id, i_prev_tick_id, i_prev_tick_time, i_prev_tick_seq, i_min_count, i_min_interval) -> record
-- The tick that ends a batch of at least so many events, or so long a time.
-- i_prev_tick_id the tick where the batch begins, with its time and event sequence
-- i_min_count    events wanted; null: any
-- i_min_interval time wanted; null: any. Given both, either suffices
-- returns    the tick; all null when there is none yet. A tick further on than twice what is wanted gives way to the first
--            that suffices
-- runs as    caller
create or replace function pgq.find_tick_helper(
    i_queue_id int4, i_prev_tick_id int8, i_prev_tick_time timestamptz, i_prev_tick_seq int8, i_min_count int8,
    i_min_interval interval, out next_tick_id int8, out next_tick_time timestamptz, out next_tick_seq int8)
returns record
language plpgsql stable as $$
declare
    v_tick pgq.tick;
    v_first pgq.tick;
begin
    select * into v_tick from pgq.tick t
     where t.tick_queue = i_queue_id and t.tick_id > i_prev_tick_id
     order by t.tick_queue desc, t.tick_id desc limit 1;
    if not found then
        return;
    end if;
    if v_tick.tick_event_seq - i_prev_tick_seq > 2 * i_min_count or v_tick.tick_time - i_prev_tick_time > 2 * i_min_interval then
        select * into v_first from pgq.tick t
         where t.tick_queue = i_queue_id and t.tick_id > i_prev_tick_id
           and (t.tick_event_seq - i_prev_tick_seq >= i_min_count or t.tick_time - i_prev_tick_time >= i_min_interval)
         order by t.tick_queue, t.tick_id limit 1;
        v_tick := v_first;
    elsif not coalesce(v_tick.tick_event_seq - i_prev_tick_seq >= i_min_count, false)
      and not coalesce(v_tick.tick_time - i_prev_tick_time >= i_min_interval, false) then
        return;
    end if;
    next_tick_id := v_tick.tick_id;
    next_tick_time := v_tick.tick_time;
    next_tick_seq := v_tick.tick_event_seq;
end $$;

-- pgq._batch_end(i_queue_id, i_prev_tick_id, i_prev_tick_time, i_prev_tick_seq, i_min_lag, i_min_count, i_min_interval) -> record
-- The tick that ends the next batch.
-- i_prev_tick_id the tick where it begins, with its time and event sequence; the others as in pgq.next_batch_custom()
-- returns    all null when there is nothing to do yet
-- runs as    caller
create or replace function pgq._batch_end(
    i_queue_id integer, i_prev_tick_id bigint, i_prev_tick_time timestamptz, i_prev_tick_seq bigint,
    i_min_lag interval, i_min_count integer, i_min_interval interval,
    out tick_id bigint, out tick_time timestamptz, out tick_event_seq bigint)
returns record
language plpgsql stable as $$
begin
    if i_min_count is null and i_min_interval is null then
        select t.tick_id, t.tick_time, t.tick_event_seq into tick_id, tick_time, tick_event_seq
          from pgq.tick t where t.tick_queue = i_queue_id and t.tick_id > i_prev_tick_id
         order by t.tick_queue, t.tick_id limit 1;
    else
        select h.next_tick_id, h.next_tick_time, h.next_tick_seq into tick_id, tick_time, tick_event_seq
          from pgq.find_tick_helper(i_queue_id, i_prev_tick_id, i_prev_tick_time, i_prev_tick_seq, i_min_count, i_min_interval) h;
    end if;
    if now() - tick_time < i_min_lag then
        tick_id := null;
        tick_time := null;
        tick_event_seq := null;
    end if;
end $$;

-- pgq.next_batch_custom(i_queue_name, i_consumer_name, i_min_lag, i_min_count, i_min_interval) -> record
-- Open the consumer's next batch, or give the one that it has open.
-- i_min_lag      only events that are at least this old; null: any
-- i_min_count    only a batch of about this many events; null: any
-- i_min_interval only a batch that covers this much time; null: any. With i_min_count too, either suffices
-- returns    the batch and its ticks; all null when there is nothing to do yet, or the consumer is paused
-- raises     PQ002  not subscribed
-- raises     PQ011  the subscription's tick is gone
-- locks      none; when another transaction opens or closes a batch of this consumer, waits for it to end
-- runs as    owner
create or replace function pgq.next_batch_custom(
    i_queue_name text, i_consumer_name text, i_min_lag interval, i_min_count int4, i_min_interval interval,
    out batch_id int8, out cur_tick_id int8, out prev_tick_id int8, out cur_tick_time timestamptz,
    out prev_tick_time timestamptz, out cur_tick_event_seq int8, out prev_tick_event_seq int8)
returns record
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue_id integer;
    v_sub integer;
    v_paused boolean;
    v_pos record;
begin
    loop
        select s.sub_queue, s.sub_key, exists (select from pgq.paused_consumer p where p.sub_key = s.sub_key)
          into v_queue_id, v_sub, v_paused
          from pgq.queue q
          join pgq.subscriber s on s.sub_queue = q.queue_id
          join pgq.consumer c on c.co_id = s.sub_consumer
         where q.queue_name = i_queue_name and c.co_name = i_consumer_name;
        if not found then
            raise exception 'Not subscriber to queue: %/%', coalesce(i_queue_name, 'NULL'), coalesce(i_consumer_name, 'NULL')
                using errcode = 'PQ002', hint = format('select pgq.register_consumer(%L, %L)', i_queue_name, i_consumer_name);
        end if;

        if v_paused then
            return;
        end if;

        v_pos := pgq._position(v_sub);
        select t.tick_id, t.tick_time, t.tick_event_seq into prev_tick_id, prev_tick_time, prev_tick_event_seq
          from pgq.tick t where t.tick_queue = v_queue_id and t.tick_id = v_pos.last_tick;
        if not found then
            raise exception 'PgQ corruption: Consumer % on queue % does not see tick %',
                i_consumer_name, i_queue_name, coalesce(v_pos.last_tick::text, '<NULL>')
                using errcode = 'PQ011',
                      hint = format('start again at a tick that exists: select pgq.register_consumer_at(%L, %L, (select max(tick_id) from pgq.tick where tick_queue = %s))',
                                    i_queue_name, i_consumer_name, v_queue_id);
        end if;

        if v_pos.batch is not null then
            batch_id := v_pos.batch;
            select t.tick_id, t.tick_time, t.tick_event_seq into cur_tick_id, cur_tick_time, cur_tick_event_seq
              from pgq.tick t where t.tick_queue = v_queue_id and t.tick_id = v_pos.next_tick;
            return;
        end if;

        select n.tick_id, n.tick_time, n.tick_event_seq into cur_tick_id, cur_tick_time, cur_tick_event_seq
          from pgq._batch_end(v_queue_id, prev_tick_id, prev_tick_time, prev_tick_event_seq, i_min_lag, i_min_count, i_min_interval) n;
        if cur_tick_id is null then
            prev_tick_id := null;
            prev_tick_time := null;
            prev_tick_event_seq := null;
            return;
        end if;

        batch_id := nextval('pgq.batch_id_seq');
        if pgq._move(v_sub, v_pos.slot, v_pos.seq, prev_tick_id, batch_id, cur_tick_id, now()) then
            return;
        end if;
        -- Another transaction has moved this consumer, or ended it: look at what it left.
        batch_id := null;
    end loop;
end $$;

-- pgq.next_batch_info(i_queue_name, i_consumer_name) -> record
-- Open the consumer's next batch, or give the one that it has open.
-- returns    the batch and its ticks; all null when there is nothing to do yet, or the consumer is paused
-- raises     PQ002, PQ011  as pgq.next_batch_custom()
-- runs as    caller; see pgq.next_batch_custom()
create or replace function pgq.next_batch_info(
    i_queue_name text, i_consumer_name text, out batch_id int8, out cur_tick_id int8, out prev_tick_id int8,
    out cur_tick_time timestamptz, out prev_tick_time timestamptz, out cur_tick_event_seq int8, out prev_tick_event_seq int8)
returns record
language sql as $$
    select * from pgq.next_batch_custom(i_queue_name, i_consumer_name, null, null, null)
$$;

-- pgq.next_batch(i_queue_name, i_consumer_name) -> bigint
-- Open the consumer's next batch, or give the one that it has open.
-- returns    the batch's id; null when there is nothing to do yet
-- raises     PQ002, PQ011  as pgq.next_batch_custom()
-- runs as    caller; see pgq.next_batch_custom()
create or replace function pgq.next_batch(i_queue_name text, i_consumer_name text) returns bigint
language sql as $$
    select b.batch_id from pgq.next_batch_custom(i_queue_name, i_consumer_name, null, null, null) b
$$;

-- pgq._open_batch(i_batch_id) -> record
-- What is needed to read an open batch: whose it is, the snapshots between which it lies, and the tables with its events.
-- returns    all null when no subscription has the batch open; a snapshot is null when its tick is gone; sealed_txid is no
--            lower than any txid in the previous table, null while that is not sealed; tables are the previous, the
--            current, or both, previous first
-- runs as    caller
create or replace function pgq._open_batch(
    i_batch_id bigint, out queue_id integer, out sub_id integer,
    out from_snapshot txid_snapshot, out to_snapshot txid_snapshot, out sealed_txid bigint, out tables text[])
returns record
language plpgsql as $$
declare
    v_batch record := pgq._find_batch(i_batch_id);
    v_queue pgq.queue;
begin
    select * into v_queue from pgq.queue q where q.queue_id = v_batch.queue_id;
    if not found then
        return;
    end if;
    queue_id := v_batch.queue_id;
    sub_id := v_batch.sub_id;
    select t.tick_snapshot into from_snapshot from pgq.tick t
     where t.tick_queue = v_queue.queue_id and t.tick_id = v_batch.last_tick;
    select t.tick_snapshot into to_snapshot from pgq.tick t
     where t.tick_queue = v_queue.queue_id and t.tick_id = v_batch.next_tick;

    -- The previous table is sealed with a txid above all that wrote to it (maint_rotate_tables_step2), and the current one
    -- takes its first event only after step 1 has committed: both comparisons are exact.
    sealed_txid := v_queue.queue_switch_step2;
    if v_queue.queue_switch_step2 is null or txid_snapshot_xmin(from_snapshot) <= v_queue.queue_switch_step2 then
        tables := array[pgq._event_table(
            v_queue.queue_id, (v_queue.queue_cur_table - 1 + v_queue.queue_ntables) % v_queue.queue_ntables)];
    end if;
    if txid_snapshot_xmax(to_snapshot) >= v_queue.queue_switch_step1 then
        tables := tables || pgq._event_table(v_queue.queue_id, v_queue.queue_cur_table);
    end if;
end $$;

-- pgq.batch_event_tables(x_batch_id) -> setof text
-- The tables in which the events of an open batch are: the previous, the current, or both, previous first.
-- returns    e.g. 'pgq.event_1_0'
-- raises     PQ003  no such open batch
-- runs as    caller
create or replace function pgq.batch_event_tables(x_batch_id bigint) returns setof text
language plpgsql as $$
declare
    v_batch record := pgq._open_batch(x_batch_id);
begin
    if v_batch.queue_id is null then
        raise exception 'Cannot find data for batch %', coalesce(x_batch_id::text, 'NULL')
            using errcode = 'PQ003', hint = 'it may be finished, or given to another worker; open one: select pgq.next_batch(''queue'', ''consumer'')';
    end if;
    return query select unnest(v_batch.tables);
end $$;

-- pgq._batch_query(i_batch_id, i_where) -> text
-- The query that gives a batch's events: those of transactions that the batch's last tick sees and its first does not.
-- The txid index finds them: one range of txids, and a list of those long transactions that ended during the batch, so that
-- one long transaction does not widen the range to all that came after its start.
-- i_where    more conditions for each table, over ev_..., beginning with ' and '; or ''
-- returns    SQL text, without ORDER BY
-- raises     PQ003  no such open batch
-- raises     PQ011  a tick of the batch is gone
-- runs as    caller
create or replace function pgq._batch_query(i_batch_id bigint, i_where text) returns text
language plpgsql as $$
declare
    v_batch record := pgq._open_batch(i_batch_id);
    v_from txid_snapshot := v_batch.from_snapshot;
    v_to txid_snapshot := v_batch.to_snapshot;
    v_low bigint;
    v_listed bigint[] := '{}';
    v_txid bigint;
    v_table text;
    v_range text;
    v_columns text := 'select ev_id, ev_time, ev_txid, ev_retry, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4';
    v_owner text;
    v_parts text[] := '{}';
begin
    if v_batch.queue_id is null then
        raise exception 'batch not found: %', coalesce(i_batch_id::text, 'NULL')
            using errcode = 'PQ003', hint = 'it may be finished, or given to another worker; open one: select pgq.next_batch(''queue'', ''consumer'')';
    end if;
    if v_from is null or v_to is null or v_batch.tables is null then
        raise exception 'could not construct sql for batch %: one of its ticks is gone, or they are out of order', i_batch_id
            using errcode = 'PQ011', hint = 'move the consumer to a tick that exists: pgq.register_consumer_at()';
    end if;

    v_low := txid_snapshot_xmax(v_from);
    for v_txid in
        select x from txid_snapshot_xip(v_from) x
         where txid_visible_in_snapshot(x, v_to)
         order by x desc
    loop
        if v_txid >= v_low - 100 then
            v_low := v_txid;
        else
            v_listed := v_listed || v_txid;
        end if;
    end loop;

    v_range := format('ev.ev_txid >= %s and ev.ev_txid < %s', v_low, txid_snapshot_xmax(v_to));
    if exists (select from txid_snapshot_xip(v_to) x where x >= v_low) then
        v_range := v_range || format(' and txid_visible_in_snapshot(ev.ev_txid, %L)', v_to);
    end if;
    if v_low < txid_snapshot_xmax(v_from) then
        v_range := v_range || format(' and not txid_visible_in_snapshot(ev.ev_txid, %L)', v_from);
    end if;
    v_owner := format(' and (ev.ev_owner is null or ev.ev_owner = %s)', v_batch.sub_id);
    -- An old transaction that is open in both snapshots holds xmin down, but none of its events is in the batch.
    if cardinality(v_batch.tables) > 1 and least(v_low, v_listed[cardinality(v_listed)]) > v_batch.sealed_txid then
        v_batch.tables := v_batch.tables[2:];
    end if;
    foreach v_table in array v_batch.tables loop
        v_parts := v_parts || format('%s from %s ev where %s%s%s', v_columns, v_table, v_range, v_owner, i_where);
        if v_listed <> '{}' then
            v_parts := v_parts || format('%s from %s ev where ev.ev_txid = any (%L::bigint[])%s%s',
                                         v_columns, v_table, v_listed, v_owner, i_where);
        end if;
    end loop;
    return array_to_string(v_parts, e'\nunion all ');
end $$;

-- pgq.batch_event_sql(x_batch_id) -> text
-- The query that gives the events of an open batch, in the order of their ids.
-- returns    SQL text; it stays right as long as the batch is open
-- raises     PQ003  no such open batch
-- raises     PQ011  a tick of the batch is gone
-- runs as    caller
create or replace function pgq.batch_event_sql(x_batch_id bigint) returns text
language sql as $$
    select pgq._batch_query(x_batch_id, '') || ' order by 1'
$$;

-- pgq.get_batch_events(x_batch_id) -> setof record
-- The events of an open batch, in the order of their ids. The same rows each time, as long as the batch is open.
-- returns    no rows for an empty batch, which must be finished like any other
-- raises     PQ003  no such open batch
-- raises     PQ011  a tick of the batch is gone
-- runs as    caller, who needs SELECT on the event tables (pgq_reader)
create or replace function pgq.get_batch_events(
    x_batch_id bigint, out ev_id bigint, out ev_time timestamptz, out ev_txid bigint, out ev_retry int4, out ev_type text,
    out ev_data text, out ev_extra1 text, out ev_extra2 text, out ev_extra3 text, out ev_extra4 text)
returns setof record
language plpgsql as $$
begin
    return query execute pgq.batch_event_sql(x_batch_id);
end $$;

-- pgq.get_batch_cursor(i_batch_id, i_cursor_name, i_quick_limit, i_extra_where) -> setof record
-- Declare a cursor over a batch's events and fetch the first of them; FETCH from the cursor gives the rest.
-- i_cursor_name cursor to declare; it lives to the end of the transaction
-- i_quick_limit how many events to return at once; 0 or less: none
-- i_extra_where SQL condition over the columns of the events, pasted in as it is: never give it untrusted text; null: none
-- returns    the first events; no rows, and no cursor, when the batch, the name or the limit is null
-- raises     PQ003  no such open batch
-- raises     42P03  there is a cursor of that name
-- runs as    caller, who needs SELECT on the event tables (pgq_reader)
create or replace function pgq.get_batch_cursor(
    i_batch_id bigint, i_cursor_name text, i_quick_limit int4, i_extra_where text,
    out ev_id bigint, out ev_time timestamptz, out ev_txid bigint, out ev_retry int4, out ev_type text,
    out ev_data text, out ev_extra1 text, out ev_extra2 text, out ev_extra3 text, out ev_extra4 text)
returns setof record
language plpgsql as $$
declare
    v_sql text;
begin
    if i_batch_id is null or i_cursor_name is null or i_quick_limit is null then
        return;
    end if;
    if i_extra_where is null then
        v_sql := pgq.batch_event_sql(i_batch_id);
    else
        v_sql := pg_catalog.format(e'select * from (%s) ev where %s\norder by 1', pgq._batch_query(i_batch_id, ''), i_extra_where);
    end if;
    execute pg_catalog.format('declare %I no scroll cursor for %s', i_cursor_name, v_sql);
    if i_quick_limit > 0 then
        return query execute pg_catalog.format('fetch %s from %I', i_quick_limit, i_cursor_name);
    end if;
end $$;

-- pgq.get_batch_cursor(i_batch_id, i_cursor_name, i_quick_limit) -> setof record
-- Declare a cursor over a batch's events and fetch the first of them.
-- returns    as the long form
-- raises     PQ003, 42P03  as the long form
-- runs as    caller
create or replace function pgq.get_batch_cursor(
    i_batch_id bigint, i_cursor_name text, i_quick_limit int4,
    out ev_id bigint, out ev_time timestamptz, out ev_txid bigint, out ev_retry int4, out ev_type text,
    out ev_data text, out ev_extra1 text, out ev_extra2 text, out ev_extra3 text, out ev_extra4 text)
returns setof record
language sql strict as $$
    select * from pgq.get_batch_cursor(i_batch_id, i_cursor_name, i_quick_limit, null)
$$;

-- pgq.get_batch_info(x_batch_id) -> record
-- Queue, consumer and ticks of an open batch.
-- returns    one row; all null for a batch that is not open. lag is now less the time of the batch's last tick
-- runs as    owner
create or replace function pgq.get_batch_info(
    x_batch_id bigint, out queue_name text, out consumer_name text, out batch_start timestamptz, out batch_end timestamptz,
    out prev_tick_id bigint, out tick_id bigint, out lag interval, out seq_start bigint, out seq_end bigint)
returns record
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_batch record := pgq._find_batch(x_batch_id);
begin
    select q.queue_name, c.co_name, f.tick_time, t.tick_time, f.tick_id, t.tick_id,
           current_timestamp - t.tick_time, f.tick_event_seq, t.tick_event_seq
      into queue_name, consumer_name, batch_start, batch_end, prev_tick_id, tick_id, lag, seq_start, seq_end
      from pgq.queue q, pgq.consumer c, pgq.tick f, pgq.tick t
     where q.queue_id = v_batch.queue_id and c.co_id = v_batch.consumer_id
       and f.tick_queue = v_batch.queue_id and f.tick_id = v_batch.last_tick
       and t.tick_queue = v_batch.queue_id and t.tick_id = v_batch.next_tick;
end $$;

-- pgq.event_retry(x_batch_id, x_event_id, x_retry_time) -> integer
-- Have one event of an open batch delivered again, to this consumer alone; it counts when the batch's transaction commits.
-- x_retry_time not before this time
-- returns    1 noted, 0 it waits for a retry already
-- raises     PQ003  no such open batch
-- raises     PQ004  the event is not in the batch
-- runs as    owner
create or replace function pgq.event_retry(x_batch_id bigint, x_event_id bigint, x_retry_time timestamptz) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_count integer;
    v_found bigint;
begin
    execute format('with event as (%s), stored as (%s) select (select count(*) from event), (select count(*) from stored)',
                   pgq._batch_query(x_batch_id, ' and ev.ev_id = $1'), pgq._retry_insert('event', x_batch_id))
       into v_found, v_count using x_event_id, x_retry_time;
    if v_found = 0 then
        raise exception 'event not found: % in batch %', coalesce(x_event_id::text, 'NULL'), x_batch_id
            using errcode = 'PQ004', hint = format('events of the batch: select ev_id from pgq.get_batch_events(%s)', x_batch_id);
    end if;
    return v_count;
end $$;

-- pgq._retry_insert(i_source, i_batch_id) -> text
-- The statement that puts events into the retry queue of the subscription that has the batch open.
-- i_source   a table of events; $2 in the statement is the time to retry them
-- returns    an INSERT that skips events which wait already
-- runs as    caller
create or replace function pgq._retry_insert(i_source text, i_batch_id bigint) returns text
language plpgsql as $$
declare
    v_batch record := pgq._find_batch(i_batch_id);
begin
    return format('insert into pgq.retry_queue (ev_retry_after, ev_queue, ev_id, ev_time, ev_owner, ev_retry, ev_type, ev_data, '
                  'ev_extra1, ev_extra2, ev_extra3, ev_extra4) '
                  'select $2, %s, ev_id, ev_time, %s, coalesce(ev_retry, 0) + 1, ev_type, ev_data, '
                  'ev_extra1, ev_extra2, ev_extra3, ev_extra4 from %s on conflict do nothing returning 1',
                  v_batch.queue_id, v_batch.sub_id, i_source);
end $$;

-- pgq.event_retry(x_batch_id, x_event_id, x_retry_seconds) -> integer
-- Have one event of an open batch delivered again, to this consumer alone.
-- x_retry_seconds not before so many seconds from now
-- returns    1 noted, 0 it waits for a retry already
-- raises     PQ003, PQ004  as the form with a time
-- runs as    owner
create or replace function pgq.event_retry(x_batch_id bigint, x_event_id bigint, x_retry_seconds integer) returns integer
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select pgq.event_retry(x_batch_id, x_event_id, current_timestamp + make_interval(secs => x_retry_seconds))
$$;

-- pgq.event_retry(x_batch_id, x_event_id, x_retry) -> integer
-- Have one event of an open batch delivered again: the form that drivers reach which send parameters without types.
-- x_retry    seconds from now as digits, or a timestamp
-- returns    1 noted, 0 it waits for a retry already
-- raises     PQ003, PQ004  as the form with a time
-- raises     22007  neither digits nor a timestamp
-- runs as    caller; see the form with a time
create or replace function pgq.event_retry(x_batch_id bigint, x_event_id bigint, x_retry text) returns integer
language sql as $$
    select case when x_retry ~ '^[0-9]+$' then pgq.event_retry(x_batch_id, x_event_id, x_retry::integer)
                else pgq.event_retry(x_batch_id, x_event_id, x_retry::timestamptz) end
$$;

-- pgq.batch_retry(i_batch_id, i_retry_seconds) -> integer
-- Have all events of an open batch delivered again, to this consumer alone.
-- i_retry_seconds not before so many seconds from now
-- returns    how many were noted; those that wait already are left alone
-- raises     PQ003  no such open batch
-- runs as    owner
create or replace function pgq.batch_retry(i_batch_id bigint, i_retry_seconds integer) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_batch record := pgq._find_batch(i_batch_id);
    v_count integer;
begin
    if v_batch.sub_key is null then
        raise exception 'batch_retry: batch % not found', coalesce(i_batch_id::text, 'NULL')
            using errcode = 'PQ003', hint = 'it may be finished; open one: select pgq.next_batch(''queue'', ''consumer'')';
    end if;
    execute format('with event as (%s), stored as (%s) select count(*) from stored',
                   pgq._batch_query(i_batch_id, ''), pgq._retry_insert('event', i_batch_id))
       into v_count using null::bigint, current_timestamp + make_interval(secs => i_retry_seconds);
    return v_count;
end $$;

-- pgq.event_retry_raw(x_queue, x_consumer, x_retry_after, x_ev_id, x_ev_time, x_ev_retry, x_ev_type, x_ev_data, x_ev_extra1, x_ev_extra2, x_ev_extra3, x_ev_extra4) -> bigint
-- Have an event, given in full, delivered to one consumer.
-- x_retry_after not before this time
-- x_ev_id    null: the next of the queue's sequence
-- x_ev_retry stored as given
-- returns    the event's id
-- raises     PQ002  the consumer is not subscribed to the queue
-- raises     23505  the event waits for a retry already
-- runs as    owner
create or replace function pgq.event_retry_raw(
    x_queue text, x_consumer text, x_retry_after timestamptz, x_ev_id bigint, x_ev_time timestamptz, x_ev_retry integer,
    x_ev_type text, x_ev_data text, x_ev_extra1 text, x_ev_extra2 text, x_ev_extra3 text, x_ev_extra4 text)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
    v_sub_id integer;
    v_ev_id bigint;
begin
    select q.* into v_queue from pgq.queue q where q.queue_name = x_queue;
    select s.sub_id into v_sub_id
      from pgq.subscriber s join pgq.consumer c on c.co_id = s.sub_consumer
     where s.sub_queue = v_queue.queue_id and c.co_name = x_consumer;
    if not found then
        raise exception 'consumer not registered: %/%', coalesce(x_queue, 'NULL'), coalesce(x_consumer, 'NULL')
            using errcode = 'PQ002', hint = format('select pgq.register_consumer(%L, %L)', x_queue, x_consumer);
    end if;
    v_ev_id := coalesce(x_ev_id, nextval(pgq._event_seq(v_queue.queue_id)));
    insert into pgq.retry_queue (ev_retry_after, ev_queue, ev_id, ev_time, ev_owner, ev_retry, ev_type, ev_data,
                                 ev_extra1, ev_extra2, ev_extra3, ev_extra4)
    values (x_retry_after, v_queue.queue_id, v_ev_id, x_ev_time, v_sub_id, x_ev_retry, x_ev_type, x_ev_data,
            x_ev_extra1, x_ev_extra2, x_ev_extra3, x_ev_extra4);
    return v_ev_id;
end $$;

-- pgq.maint_retry_events() -> integer
-- Put events whose time to be retried has come back into their queues, the longest due first; call again until it gives 0.
-- Delayed events whose time has come go with them. Queues that do not take events now (queue_disable_insert) keep theirs
-- waiting and hold up no other queue.
-- returns    how many: at most 10, and at most 1000 delayed ones besides
-- locks      pgq.retry_queue SHARE UPDATE EXCLUSIVE: one caller at a time; consumers go on noting retries
-- runs as    caller (pgq_admin)
create or replace function pgq.maint_retry_events() returns integer
language plpgsql as $$
declare
    v_event record;
    v_count integer := 0;
begin
    lock table pgq.retry_queue in share update exclusive mode;
    for v_event in
        select q.queue_name, r.*
          from pgq.retry_queue r join pgq.queue q on q.queue_id = r.ev_queue
         where r.ev_retry_after <= current_timestamp and not q.queue_disable_insert
         order by r.ev_retry_after
         limit 10
    loop
        perform pgq.insert_event_raw(v_event.queue_name, v_event.ev_id, v_event.ev_time, v_event.ev_owner, v_event.ev_retry,
                                     v_event.ev_type, v_event.ev_data, v_event.ev_extra1, v_event.ev_extra2,
                                     v_event.ev_extra3, v_event.ev_extra4);
        delete from pgq.retry_queue r where r.ev_owner = v_event.ev_owner and r.ev_id = v_event.ev_id;
        v_count := v_count + 1;
    end loop;
    return v_count + pgq.maint_delayed_events();
end $$;

-- Events that a consumer gave up, with the error. Names instead of keys: a dead letter outlives its subscription, so that it
-- can be read, and replayed once the consumer is registered again; it goes with its queue.
create table pgq.dead_letter (
    queue_name     text not null,
    consumer_name  text not null,
    dead_time      timestamptz not null default now(),
    error          text,
    tries          integer not null,
    ev_id          bigint not null,
    ev_time        timestamptz not null,
    ev_txid        bigint,
    ev_retry       integer,
    ev_type        text,
    ev_data        text,
    ev_extra1      text,
    ev_extra2      text,
    ev_extra3      text,
    ev_extra4      text,
    constraint dead_letter_pkey primary key (queue_name, consumer_name, ev_id)
);
comment on table pgq.dead_letter is 'Events that a consumer gave up: see pgq.event_dead(), pgq.dead_letter_replay()';

-- pgq.event_dead(i_batch_id, i_ev_id, i_error) -> integer
-- Put an event of an open batch among the dead letters of its consumer; it counts when the batch's transaction commits.
-- A retry that was noted for the event is withdrawn. Subconsumers give it up in the name of their consumer.
-- i_error    why, for people; null: not known
-- returns    1; when the event is a dead letter already, it takes the new error, time and count of tries
-- raises     PQ003  no such open batch
-- raises     PQ004  the event is not in the batch
-- runs as    owner
create or replace function pgq.event_dead(i_batch_id bigint, i_ev_id bigint, i_error text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_batch record := pgq._find_batch(i_batch_id);
    v_queue text;
    v_consumer text;
    v_count integer;
begin
    select q.queue_name into v_queue from pgq.queue q where q.queue_id = v_batch.queue_id;
    -- Subconsumers share the sub_id of their consumer, which was there before them.
    select c.co_name into v_consumer
      from pgq.subscriber s join pgq.consumer c on c.co_id = s.sub_consumer
     where s.sub_id = v_batch.sub_id order by s.sub_key limit 1;
    execute format($sql$
        insert into pgq.dead_letter (queue_name, consumer_name, error, tries, ev_id, ev_time, ev_txid, ev_retry, ev_type, ev_data,
                                     ev_extra1, ev_extra2, ev_extra3, ev_extra4)
        select $2, $3, $4, coalesce(ev_retry, 0) + 1, ev_id, ev_time, ev_txid, ev_retry, ev_type, ev_data,
               ev_extra1, ev_extra2, ev_extra3, ev_extra4
          from (%s) event
        on conflict (queue_name, consumer_name, ev_id)
        do update set dead_time = excluded.dead_time, error = excluded.error, tries = excluded.tries, ev_retry = excluded.ev_retry,
                      ev_txid = excluded.ev_txid
        $sql$, pgq._batch_query(i_batch_id, ' and ev.ev_id = $1'))
      using i_ev_id, v_queue, v_consumer, i_error;
    get diagnostics v_count = row_count;
    if v_count = 0 then
        raise exception 'event not found: % in batch %', coalesce(i_ev_id::text, 'NULL'), i_batch_id
            using errcode = 'PQ004', hint = format('events of the batch: select ev_id from pgq.get_batch_events(%s)', i_batch_id);
    end if;
    delete from pgq.retry_queue r where r.ev_owner = v_batch.sub_id and r.ev_id = i_ev_id;
    return 1;
end $$;

-- pgq.dead_letter_replay(i_queue_name, i_consumer_name, i_ev_id) -> integer
-- Have dead letters delivered again, to their consumer alone, as if never tried: the next pgq.maint_retry_events() takes them.
-- i_ev_id    one event; null: all that the consumer has in this queue
-- returns    how many; an event that waits for a retry already stays among the dead letters
-- raises     PQ002  the consumer is not subscribed to the queue
-- runs as    owner
create or replace function pgq.dead_letter_replay(i_queue_name text, i_consumer_name text, i_ev_id bigint default null)
returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_sub record;
    v_count integer;
begin
    select s.sub_queue, s.sub_id into v_sub
      from pgq.subscriber s
      join pgq.queue q on q.queue_id = s.sub_queue
      join pgq.consumer c on c.co_id = s.sub_consumer
     where q.queue_name = i_queue_name and c.co_name = i_consumer_name
       for share of s;
    if not found then
        raise exception 'consumer not registered: %/%', coalesce(i_queue_name, 'NULL'), coalesce(i_consumer_name, 'NULL')
            using errcode = 'PQ002', hint = format('select pgq.register_consumer(%L, %L)', i_queue_name, i_consumer_name);
    end if;
    with replayed as (
        insert into pgq.retry_queue (ev_retry_after, ev_queue, ev_id, ev_time, ev_owner, ev_retry, ev_type, ev_data,
                                     ev_extra1, ev_extra2, ev_extra3, ev_extra4)
        select now(), v_sub.sub_queue, d.ev_id, d.ev_time, v_sub.sub_id, 0, d.ev_type, d.ev_data,
               d.ev_extra1, d.ev_extra2, d.ev_extra3, d.ev_extra4
          from pgq.dead_letter d
         where d.queue_name = i_queue_name and d.consumer_name = i_consumer_name and (i_ev_id is null or d.ev_id = i_ev_id)
         order by d.ev_id
           for update
        on conflict do nothing
        returning ev_id
    )
    delete from pgq.dead_letter d
     where d.queue_name = i_queue_name and d.consumer_name = i_consumer_name and d.ev_id in (select r.ev_id from replayed r);
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- pgq.dead_letter_purge(i_queue_name, i_consumer_name, i_ev_id, i_before) -> integer
-- Delete dead letters for good.
-- i_consumer_name those of one consumer; null: of all
-- i_ev_id    one event; null: all
-- i_before   those that were given up before this time; null: any
-- returns    how many
-- runs as    owner
create or replace function pgq.dead_letter_purge(
    i_queue_name text, i_consumer_name text default null, i_ev_id bigint default null, i_before timestamptz default null)
returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_count integer;
begin
    delete from pgq.dead_letter d
     where d.queue_name = i_queue_name
       and (i_consumer_name is null or d.consumer_name = i_consumer_name)
       and (i_ev_id is null or d.ev_id = i_ev_id)
       and (i_before is null or d.dead_time < i_before);
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- pgq._refuse_lost_batch(i_batch_id, i_sub, i_holder) -> void
-- Tell a session that a batch which it had opened was taken over by another worker. The position log tells who had it: as
-- far as it goes back, and as far as one worker is one session; workers that share connections give their names instead.
-- i_sub      the subscription that has the batch open, null: none any more
-- i_holder   who holds it there
-- raises     PQ019  this session had the batch, and not last
-- runs as    caller, within a security definer function
create or replace function pgq._refuse_lost_batch(i_batch_id bigint, i_sub integer, i_holder text) returns void
language plpgsql as $$
declare
    v_own text := pg_backend_pid();
    v_slot integer;
    v_had boolean;
    v_has boolean;
begin
    if i_holder = v_own then
        return;
    end if;
    select e.epoch % 3 into v_slot from pgq.position_epoch e;
    execute format($sql$
        with log as (
            select pos_sub, pos_holder, pos_active from pgq.position_%s where pos_batch = $1
            union all
            select pos_sub, pos_holder, pos_active from pgq.position_%s where pos_batch = $1
        ), last as (
            select coalesce($2, (select pos_sub from log order by pos_active desc limit 1)) as sub
        )
        select exists (select from log where pos_holder = $3 and pos_sub <> last.sub) as had,
               exists (select from log where pos_holder = $3 and pos_sub = last.sub) as has
          from last
        $sql$, v_slot, (v_slot + 2) % 3)
       into v_had, v_has using i_batch_id, i_sub, v_own;
    if v_had and not v_has then
        raise exception 'batch % was taken over by another worker', i_batch_id
            using errcode = 'PQ019',
                  hint = 'roll back what was done with its events; a worker that is slow but alive calls pgq_coop.touch() in time';
    end if;
end $$;

-- pgq.finish_batch(x_batch_id) -> integer
-- Close a batch: the consumer's position moves on to the batch's last tick.
-- returns    1; 0, with a warning, when the batch is not open: finished before, or the consumer was moved or unregistered
-- raises     PQ019  the batch was this session's, and another worker has taken it over
-- raises     40001  under REPEATABLE READ and SERIALIZABLE, when another transaction finished it since the snapshot
-- locks      none; when another transaction is just finishing the batch, waits for it to end
-- runs as    owner
create or replace function pgq.finish_batch(x_batch_id bigint) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_batch record;
begin
    loop
        v_batch := pgq._find_batch(x_batch_id);
        if v_batch.sub_key is null then
            perform pgq._refuse_lost_batch(x_batch_id, null, null);
            raise warning 'finish_batch: batch % not found', coalesce(x_batch_id::text, 'NULL')
                using errcode = 'PQ003', hint = 'it was finished before, or its consumer was moved or unregistered';
            return 0;
        end if;
        perform pgq._refuse_lost_batch(x_batch_id, v_batch.sub_key, v_batch.holder);
        -- A subconsumer stands nowhere between its batches.
        if pgq._move(v_batch.sub_key, v_batch.slot, v_batch.seq,
                     case when v_batch.main_key is null then v_batch.next_tick end, null, null, now()) then
            return 1;
        end if;
    end loop;
end $$;

-- Which subscriptions are paused. Rows come and go by hand: no traffic here.
create table pgq.paused_consumer (
    sub_key      integer not null,
    paused_time  timestamptz not null default now(),
    constraint paused_consumer_pkey primary key (sub_key),
    constraint paused_consumer_sub_fkey foreign key (sub_key) references pgq.subscriber (sub_key) on delete cascade
);
comment on table pgq.paused_consumer is 'Subscriptions that get no batch now: see pgq.pause_consumer()';

-- pgq.pause_consumer(i_queue_name, i_consumer_name) -> integer
-- Give a consumer no batch until it is resumed, not even the one that it has open; a worker that holds it may finish it.
-- Its position stays, so the queue cannot rotate past it: a long pause lets the queue grow.
-- returns    1 paused, 0 it was already
-- raises     PQ002  not subscribed
-- runs as    owner
create or replace function pgq.pause_consumer(i_queue_name text, i_consumer_name text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_count integer;
begin
    insert into pgq.paused_consumer (sub_key) values (pgq._subscription_key(i_queue_name, i_consumer_name)) on conflict do nothing;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- pgq.resume_consumer(i_queue_name, i_consumer_name) -> integer
-- Let a paused consumer go on where it was.
-- returns    1 resumed, 0 it was not paused
-- raises     PQ002  not subscribed
-- runs as    owner
create or replace function pgq.resume_consumer(i_queue_name text, i_consumer_name text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_count integer;
begin
    delete from pgq.paused_consumer p where p.sub_key = pgq._subscription_key(i_queue_name, i_consumer_name);
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- pgq._subscription_key(i_queue_name, i_consumer_name) -> integer
-- The sub_key of a subscription.
-- raises     PQ002  not subscribed
-- runs as    caller, within a security definer function
create or replace function pgq._subscription_key(i_queue_name text, i_consumer_name text) returns integer
language plpgsql stable as $$
declare
    v_sub integer;
begin
    select s.sub_key into v_sub
      from pgq.subscriber s
      join pgq.queue q on q.queue_id = s.sub_queue
      join pgq.consumer c on c.co_id = s.sub_consumer
     where q.queue_name = i_queue_name and c.co_name = i_consumer_name;
    if not found then
        raise exception 'Not subscriber to queue: %/%', coalesce(i_queue_name, 'NULL'), coalesce(i_consumer_name, 'NULL')
            using errcode = 'PQ002', hint = format('select pgq.register_consumer(%L, %L)', i_queue_name, i_consumer_name);
    end if;
    return v_sub;
end $$;

-- pgq.pause_queue(i_queue_name) -> integer
-- Stop the ticks of a queue: events go on coming in, consumers get none of them.
-- returns    1
-- raises     PQ001  no such queue
-- runs as    caller; see pgq.set_queue_config()
create or replace function pgq.pause_queue(i_queue_name text) returns integer
language sql as $$
    select pgq.set_queue_config(i_queue_name, 'ticker_paused', 'true')
$$;

-- pgq.resume_queue(i_queue_name) -> integer
-- Let a paused queue tick again.
-- returns    1
-- raises     PQ001  no such queue
-- runs as    caller; see pgq.set_queue_config()
create or replace function pgq.resume_queue(i_queue_name text) returns integer
language sql as $$
    select pgq.set_queue_config(i_queue_name, 'ticker_paused', 'false')
$$;

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

-- Moving a consumer to another place in its queue. A tick exists as long as the events after it do: rotation drops both.

-- pgq.seek_consumer(i_queue_name, i_consumer_name, i_tick_id) -> bigint
-- Move a consumer to a tick, back or forward: its next batch begins there. A batch that it has open is dropped; events that
-- wait for a retry, and batches of subconsumers, stay as they are.
-- i_tick_id  tick after which its events begin
-- returns    the tick
-- raises     PQ002  not subscribed
-- raises     PQ005  no such tick (any more)
-- locks      the queue's row FOR SHARE, so that no rotation drops the tick; the consumer's row
-- runs as    owner
create or replace function pgq.seek_consumer(i_queue_name text, i_consumer_name text, i_tick_id bigint) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue_id integer;
    v_oldest pgq.tick;
begin
    perform pgq._subscription_key(i_queue_name, i_consumer_name);
    select q.queue_id into v_queue_id from pgq.queue q where q.queue_name = i_queue_name for share;
    perform 1 from pgq.tick t where t.tick_queue = v_queue_id and t.tick_id = i_tick_id;
    if not found then
        select * into v_oldest from pgq.tick t where t.tick_queue = v_queue_id order by t.tick_queue, t.tick_id limit 1;
        raise exception 'queue % has no tick %: the oldest is %, of %', i_queue_name, coalesce(i_tick_id::text, 'NULL'),
            v_oldest.tick_id, v_oldest.tick_time
            using errcode = 'PQ005', hint = format('select pgq.seek_consumer(%L, %L, %s)', i_queue_name, i_consumer_name, v_oldest.tick_id);
    end if;
    perform pgq.register_consumer_at(i_queue_name, i_consumer_name, i_tick_id);
    return i_tick_id;
end $$;

-- pgq.seek_consumer(i_queue_name, i_consumer_name, i_time) -> bigint
-- Move a consumer to the newest tick that is not after a time: it gets all that was committed since then, and at most what
-- the batch around that time holds besides.
-- i_time     after the newest tick: the consumer gets what comes from there on
-- returns    the tick
-- raises     PQ002  not subscribed
-- raises     PQ005  the events of that time are gone
-- locks      as the form with a tick
-- runs as    owner
create or replace function pgq.seek_consumer(i_queue_name text, i_consumer_name text, i_time timestamptz) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue_id integer;
    v_tick bigint;
    v_oldest timestamptz;
begin
    perform pgq._subscription_key(i_queue_name, i_consumer_name);
    select q.queue_id into v_queue_id from pgq.queue q where q.queue_name = i_queue_name for share;
    select t.tick_id into v_tick from pgq.tick t
     where t.tick_queue = v_queue_id and t.tick_time <= i_time
     order by t.tick_queue desc, t.tick_id desc limit 1;
    if not found then
        select t.tick_time into v_oldest from pgq.tick t where t.tick_queue = v_queue_id order by t.tick_queue, t.tick_id limit 1;
        raise exception 'queue % has no tick of % or before: the oldest is of %', i_queue_name, coalesce(i_time::text, 'NULL'), v_oldest
            using errcode = 'PQ005', hint = format('select pgq.seek_consumer(%L, %L, %L::timestamptz)', i_queue_name, i_consumer_name, v_oldest);
    end if;
    return pgq.seek_consumer(i_queue_name, i_consumer_name, v_tick);
end $$;

-- pgq.seek_consumer(i_queue_name, i_consumer_name, i_to) -> bigint
-- Move a consumer to a tick or a time: the form for literals and drivers that send parameters without types.
-- i_to       a tick as digits, or a timestamp
-- returns    the tick
-- raises     PQ002, PQ005  as the other forms
-- raises     22007  neither digits nor a timestamp
-- runs as    caller; see the other forms
create or replace function pgq.seek_consumer(i_queue_name text, i_consumer_name text, i_to text) returns bigint
language sql as $$
    select case when i_to ~ '^[0-9]+$' then pgq.seek_consumer(i_queue_name, i_consumer_name, i_to::bigint)
                else pgq.seek_consumer(i_queue_name, i_consumer_name, i_to::timestamptz) end
$$;

-- A tick stores a snapshot; a batch is what became visible between two. So the order of tick ids must be the order of the
-- snapshots, whoever ticks: an advisory lock for each queue holds tickers apart, and the snapshot is taken under it.

-- pgq._ticks_due(i_queue_id) -> setof integer
-- The queues for which a tick is due now: many new events, or the last tick is old; without events ever more seldom.
-- i_queue_id that queue alone; null: all that are ticked from here, by name
-- returns    queue ids
-- runs as    caller, within a security definer function
create or replace function pgq._ticks_due(i_queue_id integer) returns setof integer
language sql stable as $$
    select q.queue_id
      from pgq.queue q
     cross join lateral (select coalesce(l.value, 1) as event_seq, l.value is not null as drawn
                           from pg_sequence_last_value(pgq._event_seq(q.queue_id)) l (value)) s
      left join lateral (select t.tick_id, t.tick_time, t.tick_event_seq from pgq.tick t
                          where t.tick_queue = q.queue_id order by t.tick_queue desc, t.tick_id desc limit 1) last on true
      left join lateral (select t.tick_time from pgq.tick t
                          where t.tick_queue = q.queue_id and t.tick_id < last.tick_id
                          order by t.tick_queue desc, t.tick_id desc limit 1) prev on true
     where (q.queue_id = i_queue_id or i_queue_id is null and not q.queue_external_ticker and not q.queue_ticker_paused)
       and case
           when last.tick_id is null then true
           when s.event_seq > last.tick_event_seq then
               s.event_seq - last.tick_event_seq >= q.queue_ticker_max_count
               or now() - last.tick_time >= q.queue_ticker_max_lag
           when prev.tick_time is null then true
           else
               now() - last.tick_time >= q.queue_ticker_max_lag / 2
               and (now() - last.tick_time >= 2 * (last.tick_time - prev.tick_time)
                    or now() - last.tick_time >= q.queue_ticker_idle_period)
               -- The sequence reads 1 before the first event of a queue and after it.
               or s.drawn and last.tick_event_seq = 1 and s.event_seq = 1
                  and now() - last.tick_time >= q.queue_ticker_max_lag and pgq._has_new_events(q.queue_id)
           end
     order by q.queue_name
$$;

-- pgq._tick_snapshot() -> txid_snapshot
-- The snapshot for a tick. This transaction counts as still open in it, whatever its txid: it may go on and write events
-- after the tick, and none of its events may come before others of the same transaction.
-- runs as    caller
create or replace function pgq._tick_snapshot() returns txid_snapshot
language sql as $$
    select case when pg_catalog.txid_visible_in_snapshot(s.own, s.now)
                then pg_catalog.format('%s:%s:%s', least(s.own, pg_catalog.txid_snapshot_xmin(s.now)), pg_catalog.txid_snapshot_xmax(s.now),
                         (select pg_catalog.string_agg(x.txid::text, ',' order by x.txid)
                            from (select pg_catalog.txid_snapshot_xip(s.now) union all select s.own) as x (txid)))::txid_snapshot
                else s.now end
      from (select pg_catalog.txid_current() as own, pg_catalog.txid_current_snapshot() as now) s
$$;

-- pgq._tick(i_queue_id, i_now) -> bigint
-- Make a tick if it is still due; the caller holds the queue's ticker lock. Wakes the consumers where they ask for that.
-- i_now      due or not
-- returns    the tick's id; null when it is not due any more, or the queue is just being dropped or rotated
-- raises     PQ011  transaction ids have gone back: the database was restored into a younger cluster
-- raises     40001  under REPEATABLE READ and SERIALIZABLE, when there is a tick newer than the snapshot
-- runs as    caller, within a security definer function
create or replace function pgq._tick(i_queue_id integer, i_now boolean) returns bigint
language plpgsql as $$
declare
    v_queue pgq.queue;
    v_last pgq.tick;
    v_event_seq bigint;
    v_tick_id bigint;
    v_fixed boolean := current_setting('transaction_isolation') in ('repeatable read', 'serializable');
begin
    if not i_now then
        perform 1 from pgq._ticks_due(i_queue_id);
        if not found then
            return null;
        end if;
    end if;
    -- Whoever drops or rotates the queue just now must not hold up the ticks of all others: it gets its tick the next time.
    select * into v_queue from pgq.queue q where q.queue_id = i_queue_id for key share skip locked;
    if not found then
        return null;
    end if;
    select * into v_last from pgq.tick t where t.tick_queue = i_queue_id
     order by t.tick_queue desc, t.tick_id desc limit 1;
    if txid_current() < txid_snapshot_xmin(v_last.tick_snapshot) then
        raise exception 'Invalid PgQ state: old xmin=%, old xmax=%, cur txid=% (queue %)',
            txid_snapshot_xmin(v_last.tick_snapshot), txid_snapshot_xmax(v_last.tick_snapshot), txid_current(), v_queue.queue_name
            using errcode = 'PQ011', hint = 'was the database restored into a younger cluster? drop the queue and create it again';
    elsif txid_current() < txid_snapshot_xmax(v_last.tick_snapshot) then
        raise warning 'Dubious PgQ state: old xmax=%, cur txid=% (queue %)',
            txid_snapshot_xmax(v_last.tick_snapshot), txid_current(), v_queue.queue_name;
    end if;

    -- Read before the snapshot is taken: every event up to it belongs to this tick, or its transaction is still open.
    v_event_seq := coalesce(pg_sequence_last_value(pgq._event_seq(i_queue_id)), 1);
    if v_event_seq < v_last.tick_event_seq then
        raise warning 'Negative new_events?  old=% cur=% (queue %)', v_last.tick_event_seq, v_event_seq, v_queue.queue_name;
    end if;
    -- A fixed snapshot may be older than a tick that it does not see: then the id is taken already, and the insert fails.
    v_tick_id := case when v_fixed then coalesce(v_last.tick_id, 0) + 1 else nextval(format('pgq.event_%s_tick_seq', i_queue_id)) end;
    insert into pgq.tick (tick_queue, tick_id, tick_time, tick_snapshot, tick_event_seq)
    values (i_queue_id, v_tick_id, now(), pgq._tick_snapshot(), v_event_seq)
    on conflict do nothing;
    if not found then
        raise exception 'could not serialize access: queue % has tick % already', v_queue.queue_name, v_tick_id
            using errcode = '40001', hint = 'run the ticker in READ COMMITTED';
    end if;
    if v_fixed then
        perform pgq.seq_setval(format('pgq.event_%s_tick_seq', i_queue_id), v_tick_id);
    end if;
    if pgq._wakes(i_queue_id) then
        perform pg_notify('pgq_tick', i_queue_id::text);
    end if;
    return v_tick_id;
end $$;

-- pgq.ticker() -> bigint
-- Make a tick for every queue that is due; queues with an external ticker, or paused, are left out.
-- returns    how many queues got one
-- raises     PQ011, 40001  as pgq.ticker(text)
-- locks      an advisory lock for each queue ticked, to the end of the transaction; a queue that another ticker is just
--            ticking is left to it
-- runs as    owner
create or replace function pgq.ticker() returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue_id integer;
    v_count bigint := 0;
begin
    for v_queue_id in select * from pgq._ticks_due(null) loop
        if pg_try_advisory_xact_lock('pgq.tick'::regclass::oid::bigint::integer, v_queue_id) then
            if pgq._tick(v_queue_id, false) is not null then
                v_count := v_count + 1;
            end if;
        end if;
    end loop;
    return v_count;
end $$;

-- pgq.ticker(i_queue_name) -> bigint
-- Make a tick for one queue, if it is due.
-- returns    the tick's id; null when none was due
-- raises     PQ001  no such queue
-- raises     PQ010  the queue is ticked from elsewhere, or paused
-- raises     PQ011  transaction ids have gone back: the database was restored into a younger cluster
-- raises     40001  under REPEATABLE READ and SERIALIZABLE, when there is a tick newer than the snapshot
-- locks      an advisory lock for the queue, to the end of the transaction: waits for another ticker
-- runs as    owner
create or replace function pgq.ticker(i_queue_name text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
begin
    select * into v_queue from pgq.queue q where q.queue_name = i_queue_name;
    if not found then
        raise exception 'no such queue: %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    if v_queue.queue_external_ticker then
        raise exception 'This queue has external tick source.  Queue: %', i_queue_name
            using errcode = 'PQ010', hint = format('to tick it here: select pgq.set_queue_config(%L, ''external_ticker'', ''false'')', i_queue_name);
    end if;
    if v_queue.queue_ticker_paused then
        raise exception 'Ticker has been paused for this queue: %', i_queue_name
            using errcode = 'PQ010', hint = format('to go on: select pgq.set_queue_config(%L, ''ticker_paused'', ''false'')', i_queue_name);
    end if;
    perform 1 from pgq._ticks_due(v_queue.queue_id);
    if not found then
        return null;
    end if;
    perform pg_advisory_xact_lock('pgq.tick'::regclass::oid::bigint::integer, v_queue.queue_id);
    return pgq._tick(v_queue.queue_id, false);
end $$;

-- pgq.ticker(i_queue_name, i_tick_id, i_orig_timestamp, i_event_seq) -> bigint
-- Make a tick that was made elsewhere, on a queue that has an external ticker.
-- i_tick_id  its id there
-- i_orig_timestamp its time there
-- i_event_seq the event sequence there; the queue's sequences follow it, never back
-- returns    i_tick_id
-- raises     PQ010  no such queue, it has no external ticker, or it is paused
-- raises     23505  there is a tick of that id
-- locks      as pgq.ticker(text)
-- runs as    owner
create or replace function pgq.ticker(i_queue_name text, i_tick_id bigint, i_orig_timestamp timestamptz, i_event_seq bigint)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
begin
    select * into v_queue from pgq.queue q
     where q.queue_name = i_queue_name and q.queue_external_ticker and not q.queue_ticker_paused;
    if not found then
        raise exception 'queue not found or ticker disabled: %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ010', hint = format('select pgq.set_queue_config(%L, ''external_ticker'', ''true'')', i_queue_name);
    end if;
    perform pg_advisory_xact_lock('pgq.tick'::regclass::oid::bigint::integer, v_queue.queue_id);
    insert into pgq.tick (tick_queue, tick_id, tick_time, tick_snapshot, tick_event_seq)
    values (v_queue.queue_id, i_tick_id, i_orig_timestamp, pgq._tick_snapshot(), i_event_seq);
    perform pgq.seq_setval(format('pgq.event_%s_tick_seq', v_queue.queue_id), i_tick_id);
    perform pgq.seq_setval(format('pgq.event_%s_id_seq', v_queue.queue_id), i_event_seq);
    return i_tick_id;
end $$;

-- pgq.force_tick(i_queue_name) -> bigint
-- Make the next call of the ticker tick this queue, by a jump of its event sequence; call until the result changes.
-- returns    the newest tick's id; null when there is no such queue or no tick. Nothing jumps where the ticker is external
--            or paused
-- runs as    owner
create or replace function pgq.force_tick(i_queue_name text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
begin
    select * into v_queue from pgq.queue q where q.queue_name = i_queue_name;
    if not found then
        return null;
    end if;
    if not v_queue.queue_external_ticker and not v_queue.queue_ticker_paused then
        perform setval(pgq._event_seq(v_queue.queue_id),
                       nextval(pgq._event_seq(v_queue.queue_id)) + v_queue.queue_ticker_max_count * 2::bigint + 1000);
    end if;
    return (select max(t.tick_id) from pgq.tick t where t.tick_queue = v_queue.queue_id);
end $$;

-- After an outage of the ticker all that was committed meanwhile waits as one batch. Here it is cut: ticks are put in
-- between, with snapshots made up for the purpose.
--
-- Any set of transactions that contains what one tick sees, and is contained in what the next one sees, makes a sound tick
-- between them: no event is lost, none comes twice, no transaction is split. Which sets are chosen decides the order.
-- Transactions are taken in the order of their last event: who has seen what another committed put its own event in later,
-- so it does not come before it.

-- pgq.split_ticks(i_queue_name, i_max_events) -> integer
-- Cut the batches that no consumer has opened yet, and what waits for a tick, into batches of bounded size.
-- i_max_events most events in one batch. A transaction is never cut: one with more events makes a batch of its own
-- returns    how many ticks were added
-- raises     PQ001  no such queue
-- raises     PQ008  i_max_events is null or below 1
-- raises     PQ010  the queue is ticked from elsewhere
-- raises     PQ058  nothing could be cut: what is too big for one consumer has been opened by it, or reached by another one
-- raises     40001  called under REPEATABLE READ or SERIALIZABLE
-- locks      the queue's row, its ticker lock and the positions of its consumers, to the end of the transaction: they
--            open and finish no batch meanwhile. Reads all the events in question once
-- runs as    owner
-- see        docs/operations.md; Lamport, Time, clocks, and the ordering of events in a distributed system (1978)
create or replace function pgq.split_ticks(i_queue_name text, i_max_events integer default 10000) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
    v_sub record;
    v_reached bigint;
    v_lowest bigint;
    v_last pgq.tick;
    v_event_seq bigint;
    v_tick pgq.tick;
    v_cuts pgq.tick[];
    v_new pgq.tick[] := array[]::pgq.tick[];
    v_count integer := 0;
    v_stuck bigint[] := array[]::bigint[];
begin
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        raise exception 'queue %: ticks cannot be split in a transaction with a fixed snapshot', coalesce(i_queue_name, 'NULL')
            using errcode = '40001', hint = 'run it in READ COMMITTED';
    end if;
    if i_max_events is null or i_max_events < 1 then
        raise exception 'queue %: a batch must be allowed at least one event, not %',
            coalesce(i_queue_name, 'NULL'), coalesce(i_max_events::text, 'NULL')
            using errcode = 'PQ008', hint = format('select pgq.split_ticks(%L, 10000)', i_queue_name);
    end if;
    select * into v_queue from pgq.queue q where q.queue_name = i_queue_name for update;
    if not found then
        raise exception 'no such queue: %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ001', hint = 'queues there are: select queue_name from pgq.queue';
    end if;
    if v_queue.queue_external_ticker then
        raise exception 'This queue has external tick source.  Queue: %', i_queue_name
            using errcode = 'PQ010', hint = 'split its ticks where they are made';
    end if;
    perform pg_advisory_xact_lock('pgq.tick'::regclass::oid::bigint::integer, v_queue.queue_id);

    -- Moving each position to where it is holds its consumer: who opens or finishes a batch just now waits, and looks again.
    for v_sub in select s.sub_key from pgq.subscriber s where s.sub_queue = v_queue.queue_id order by s.sub_key loop
        select greatest(v_reached, p.last_tick, p.next_tick), least(v_lowest, p.last_tick) into v_reached, v_lowest
          from pgq._hold_position(v_sub.sub_key) p;
    end loop;
    if v_reached is null then
        return 0;
    end if;

    select * into v_last from pgq.tick t where t.tick_queue = v_queue.queue_id order by t.tick_queue desc, t.tick_id desc limit 1;
    v_event_seq := coalesce(pg_sequence_last_value(pgq._event_seq(v_queue.queue_id)), 1);
    if v_event_seq > v_last.tick_event_seq and not v_queue.queue_ticker_paused then
        insert into pgq.tick (tick_queue, tick_id, tick_time, tick_snapshot, tick_event_seq)
        values (v_queue.queue_id, nextval(format('pgq.event_%s_tick_seq', v_queue.queue_id)), now(), pgq._tick_snapshot(), v_event_seq);
    end if;

    v_last := null;
    for v_tick in
        select * from pgq.tick t where t.tick_queue = v_queue.queue_id and t.tick_id >= v_lowest
         order by t.tick_queue, t.tick_id
    loop
        if v_last.tick_id is not null then
            v_cuts := pgq._cut_batch(v_last, v_tick, i_max_events);
            if v_tick.tick_id > v_reached then
                v_new := array_append(v_new || v_cuts, v_tick);
                v_count := v_count + cardinality(v_cuts);
            elsif v_cuts <> '{}' then
                v_stuck := v_stuck || v_tick.tick_id;
            end if;
        end if;
        v_last := v_tick;
    end loop;
    if v_count > 0 then
        delete from pgq.tick t where t.tick_queue = v_queue.queue_id and t.tick_id > v_reached;
        insert into pgq.tick (tick_queue, tick_id, tick_time, tick_snapshot, tick_event_seq)
        select v_queue.queue_id, v_reached + n.n, n.tick_time, n.tick_snapshot, n.tick_event_seq
          from unnest(v_new) with ordinality n (tick_queue, tick_id, tick_time, tick_snapshot, tick_event_seq, n);
        perform pgq.seq_setval(format('pgq.event_%s_tick_seq', v_queue.queue_id), v_reached + cardinality(v_new));
    end if;
    if v_count = 0 and v_stuck <> '{}' then
        raise exception 'queue %: no batch could be cut, consumers have reached tick %: %', i_queue_name, v_stuck[1],
            (select string_agg(quote_ident(c.co_name), ', ' order by c.co_name)
               from pgq.subscription s join pgq.consumer c on c.co_id = s.sub_consumer
              where s.sub_queue = v_queue.queue_id and greatest(s.sub_last_tick, s.sub_next_tick) >= v_stuck[1])
            using errcode = 'PQ058',
                  hint = format('a consumer gives up an open batch by going back to its start, last_tick in pgq.get_consumer_info(): '
                                'select pgq.register_consumer_at(%L, ''consumer'', last_tick)', i_queue_name);
    end if;
    return v_count;
end $$;

-- pgq._cut_batch(i_from, i_to, i_max_events) -> pgq.tick[]
-- Ticks to put between two, so that no batch has more than so many events, as far as its transactions allow.
-- returns    their times, snapshots and event sequences, in order; tick_id is null. Empty when there is nothing to cut
-- runs as    caller, within a security definer function
create or replace function pgq._cut_batch(i_from pgq.tick, i_to pgq.tick, i_max_events integer) returns pgq.tick[]
language plpgsql as $$
declare
    -- Its transactions by txid: how many events, the last of them, and when that was.
    v_txids bigint[];
    v_counts bigint[];
    v_last_ids bigint[];
    v_times timestamptz[];
    v_open bigint[] := array(select txid_snapshot_xip(i_to.tick_snapshot));
    v_cuts pgq.tick[] := array[]::pgq.tick[];
    v_cut pgq.tick := i_from;
    v_xmax bigint := txid_snapshot_xmax(i_from.tick_snapshot);
    v_events bigint := 0;
    v_n integer;
    v_highest integer := 0;
    v_done boolean[];
    v_first integer := 1;
    v_excluded bigint[];
begin
    execute format($sql$
        select array_agg(x.ev_txid order by x.ev_txid), array_agg(x.events order by x.ev_txid),
               array_agg(x.last_id order by x.ev_txid), array_agg(x.last_time order by x.ev_txid)
          from (select e.ev_txid, count(*) as events, max(e.ev_id) as last_id, max(e.ev_time) as last_time
                  from pgq.event_%s e
                 where e.ev_txid >= %s and e.ev_txid < %s
                   and txid_visible_in_snapshot(e.ev_txid, %L) and not txid_visible_in_snapshot(e.ev_txid, %L)
                 group by e.ev_txid) x
        $sql$, i_from.tick_queue, txid_snapshot_xmin(i_from.tick_snapshot), txid_snapshot_xmax(i_to.tick_snapshot),
               i_to.tick_snapshot, i_from.tick_snapshot)
       into v_txids, v_counts, v_last_ids, v_times;
    if coalesce((select sum(c) from unnest(v_counts) c), 0) <= i_max_events then
        return v_cuts;
    end if;

    v_cut.tick_id := null;
    v_done := array_fill(false, array[cardinality(v_txids)]);
    for v_n in select l.n from unnest(v_last_ids) with ordinality l (last_id, n) order by l.last_id loop
        if v_events > 0 and v_events + v_counts[v_n] > i_max_events then
            -- What the cut does not see: those still to come, as far as they have lower txids than one that it sees.
            while v_done[v_first] loop
                v_first := v_first + 1;
            end loop;
            v_excluded := array(select x.txid from unnest(v_txids[v_first:v_highest], v_done[v_first:v_highest]) x (txid, done)
                                 where not x.done
                                union select o from unnest(v_open) o where o < v_xmax
                                order by 1);
            v_cut.tick_snapshot := format('%s:%s:%s', coalesce(v_excluded[1], v_xmax), v_xmax, array_to_string(v_excluded, ','))::txid_snapshot;
            v_cuts := array_append(v_cuts, v_cut);
            v_events := 0;
        end if;
        v_done[v_n] := true;
        v_highest := greatest(v_highest, v_n);
        v_xmax := greatest(v_xmax, v_txids[v_n] + 1);
        v_events := v_events + v_counts[v_n];
        v_cut.tick_time := least(greatest(v_cut.tick_time, v_times[v_n]), i_to.tick_time);
        v_cut.tick_event_seq := least(greatest(v_cut.tick_event_seq, v_last_ids[v_n]), i_to.tick_event_seq);
    end loop;
    return v_cuts;
end $$;

-- Rotation: events leave by TRUNCATE. Of a queue's data tables the current one takes events, the previous one still may
-- hold events that a consumer needs, and the next one is empty of use. Step 1 empties the next one and makes it current.
-- Step 2, in a later transaction, seals the table that was current before.
--
-- Sealed means: nobody is writing to it, nobody can (pgq._sealed()), and queue_switch_step2 is above the txid of every
-- event in it. So a consumer whose position was taken after step 2 needs nothing from it, which is what step 1 asks of all
-- consumers before it empties the table's successor. It holds for producers under REPEATABLE READ and SERIALIZABLE, and
-- for statements that were under way during both steps, as for all others.

-- pgq.maint_rotate_tables_step1(i_queue_name) -> integer
-- Switch a queue to its next data table, if that is due and no consumer is in the way; ticks that no consumer can need any
-- more are dropped.
-- returns    0, whether it rotated or not: no such queue, not due, a consumer still needs the table, or somebody reads it
-- raises     PQ011  transaction ids have gone back, or a consumer's tick is missing
-- locks      the queue's row; the next data table ACCESS EXCLUSIVE, NOWAIT
-- runs as    owner; under REPEATABLE READ and SERIALIZABLE it does nothing, as it would act on old positions
create or replace function pgq.maint_rotate_tables_step1(i_queue_name text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
    v_next integer;
    v_table text;
    v_lowest bigint;
    v_lowest_xmin bigint;
begin
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        return 0;
    end if;
    select * into v_queue from pgq.queue q
     where q.queue_name = i_queue_name
       and q.queue_switch_step2 is not null
       and q.queue_switch_time + q.queue_rotation_period < current_timestamp
       for update;
    if not found then
        return 0;
    end if;
    if txid_current() < v_queue.queue_switch_step1 then
        raise exception 'queue % maint failure: step1=%, current=%', i_queue_name, v_queue.queue_switch_step1, txid_current()
            using errcode = 'PQ011', hint = 'was the database restored into a younger cluster? drop the queue and create it again';
    end if;

    select min(s.sub_last_tick) into v_lowest from pgq.subscription s where s.sub_queue = v_queue.queue_id;
    if v_lowest is not null then
        select txid_snapshot_xmin(t.tick_snapshot) into v_lowest_xmin
          from pgq.tick t where t.tick_queue = v_queue.queue_id and t.tick_id = v_lowest;
        if not found then
            raise exception 'queue % maint failure: tick % not found', i_queue_name, v_lowest
                using errcode = 'PQ011', hint = 'move the consumer that stands there: see pgq.get_consumer_info(), pgq.register_consumer_at()';
        end if;
        if v_lowest_xmin <= v_queue.queue_switch_step2 then
            return 0;
        end if;
    end if;

    v_next := (v_queue.queue_cur_table + 1) % v_queue.queue_ntables;
    v_table := pgq._event_table(v_queue.queue_id, v_next);
    begin
        execute format('lock table %s in access exclusive mode nowait', v_table);
        execute format('truncate table %s', v_table);
        if exists (select from pg_trigger t where t.tgrelid = v_table::regclass and t.tgname = 'sealed') then
            execute format('drop trigger sealed on %s', v_table);
        end if;
    exception
        when lock_not_available then
            return 0;
    end;
    update pgq.queue q
       set queue_cur_table = v_next, queue_switch_time = current_timestamp,
           queue_switch_step1 = txid_current(), queue_switch_step2 = null
     where q.queue_id = v_queue.queue_id;
    -- The newest stays in any case: without consumers, and with an old transaction about, it too may be from before step 2,
    -- and who registers now begins there.
    delete from pgq.tick t
     where t.tick_queue = v_queue.queue_id and txid_snapshot_xmin(t.tick_snapshot) < v_queue.queue_switch_step2
       and t.tick_id < (select max(m.tick_id) from pgq.tick m where m.tick_queue = v_queue.queue_id);
    return 0;
end $$;

-- pgq.maint_rotate_tables_step2() -> integer
-- Complete the rotation of every queue that has gone through step 1: seal the table that was current before.
-- returns    0; a queue whose old table somebody is still writing to is left for the next call
-- locks      the table that was current SHARE ROW EXCLUSIVE, NOWAIT: readers are not held up
-- runs as    owner; under REPEATABLE READ and SERIALIZABLE it does nothing
create or replace function pgq.maint_rotate_tables_step2() returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
    v_table text;
begin
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        return 0;
    end if;
    for v_queue in
        select * from pgq.queue q where q.queue_switch_step2 is null order by q.queue_name for update skip locked
    loop
        v_table := pgq._event_table(v_queue.queue_id,
                                    (v_queue.queue_cur_table - 1 + v_queue.queue_ntables) % v_queue.queue_ntables);
        begin
            execute format('lock table %s in share row exclusive mode nowait', v_table);
        exception
            when lock_not_available then
                continue;
        end;
        perform 1 from pg_trigger t where t.tgrelid = v_table::regclass and t.tgname = 'sealed';
        if not found then
            execute format('create trigger sealed before insert on %s for each row execute function pgq._sealed(%s)',
                           v_table, v_queue.queue_id);
        end if;
        -- Whoever wrote to the table has ended, so its txid is below the end of a snapshot taken now.
        update pgq.queue q
           set queue_switch_step2 = greatest(txid_current(), txid_snapshot_xmax(txid_current_snapshot()))
         where q.queue_id = v_queue.queue_id;
    end loop;
    return 0;
end $$;

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

-- pgq.get_queue_info(i_queue_name) -> setof record
-- Settings and state of queues, by name.
-- i_queue_name that queue alone; null: all
-- returns    the queue's settings; ticker_lag since the newest tick; ev_per_sec over the last 20 ticks, null while unknown;
--            ev_new events since the newest tick; last_tick_id. No rows for an unknown queue
-- runs as    caller
create or replace function pgq.get_queue_info(
    i_queue_name text, out queue_name text, out queue_ntables integer, out queue_cur_table integer,
    out queue_rotation_period interval, out queue_switch_time timestamptz, out queue_external_ticker boolean,
    out queue_ticker_paused boolean, out queue_ticker_max_count integer, out queue_ticker_max_lag interval,
    out queue_ticker_idle_period interval, out ticker_lag interval, out ev_per_sec float8, out ev_new bigint,
    out last_tick_id bigint)
returns setof record
language plpgsql as $$
begin
    return query
    select q.queue_name, q.queue_ntables, q.queue_cur_table, q.queue_rotation_period, q.queue_switch_time,
           q.queue_external_ticker, q.queue_ticker_paused, q.queue_ticker_max_count, q.queue_ticker_max_lag,
           q.queue_ticker_idle_period, current_timestamp - last.tick_time,
           case when last.tick_time > first.tick_time
                then (last.tick_event_seq - first.tick_event_seq) / extract(epoch from last.tick_time - first.tick_time)::float8
           end,
           pgq.seq_getval(q.queue_event_seq) - last.tick_event_seq, last.tick_id
      from pgq.queue q
      left join lateral (select * from pgq.tick t where t.tick_queue = q.queue_id
                          order by t.tick_queue desc, t.tick_id desc limit 1) last on true
      left join lateral (select * from pgq.tick t where t.tick_queue = q.queue_id and t.tick_id >= last.tick_id - 20
                          order by t.tick_queue, t.tick_id limit 1) first on true
     where q.queue_name = i_queue_name or i_queue_name is null
     order by 1;
end $$;

-- pgq.get_queue_info() -> setof record
-- Settings and state of all queues, by name.
-- returns    as the form with a name
-- runs as    caller
create or replace function pgq.get_queue_info(
    out queue_name text, out queue_ntables integer, out queue_cur_table integer,
    out queue_rotation_period interval, out queue_switch_time timestamptz, out queue_external_ticker boolean,
    out queue_ticker_paused boolean, out queue_ticker_max_count integer, out queue_ticker_max_lag interval,
    out queue_ticker_idle_period interval, out ticker_lag interval, out ev_per_sec float8, out ev_new bigint,
    out last_tick_id bigint)
returns setof record
language sql as $$
    select * from pgq.get_queue_info(null)
$$;

-- pgq.get_consumer_info(i_queue_name, i_consumer_name) -> setof record
-- State of subscriptions, by queue and consumer.
-- i_queue_name that queue alone; null: all
-- i_consumer_name that consumer alone; null: all
-- returns    lag since the consumer's tick; last_seen since its last contact; last_tick, current_batch and next_tick;
--            pending_events, an estimate. A subconsumer without a batch has no tick, so no lag. No rows for unknown names
-- runs as    owner
create or replace function pgq.get_consumer_info(
    i_queue_name text, i_consumer_name text, out queue_name text, out consumer_name text, out lag interval,
    out last_seen interval, out last_tick bigint, out current_batch bigint, out next_tick bigint, out pending_events bigint)
returns setof record
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    return query
    select q.queue_name, c.co_name, current_timestamp - t.tick_time, current_timestamp - s.sub_active,
           s.sub_last_tick, s.sub_batch, s.sub_next_tick, top.tick_event_seq - t.tick_event_seq
      from pgq.subscription s
      join pgq.queue q on q.queue_id = s.sub_queue
      join pgq.consumer c on c.co_id = s.sub_consumer
      left join pgq.tick t on t.tick_queue = s.sub_queue and t.tick_id = s.sub_last_tick
      left join lateral (select n.tick_event_seq from pgq.tick n where n.tick_queue = s.sub_queue
                          order by n.tick_queue desc, n.tick_id desc limit 1) top on true
     where (q.queue_name = i_queue_name or i_queue_name is null)
       and (c.co_name = i_consumer_name or i_consumer_name is null)
     order by 1, 2;
end $$;

-- pgq.get_consumer_info(i_queue_name) -> setof record
-- State of the subscriptions of one queue, or of all for null.
-- returns    as the form with both names
-- runs as    caller
create or replace function pgq.get_consumer_info(
    i_queue_name text, out queue_name text, out consumer_name text, out lag interval,
    out last_seen interval, out last_tick bigint, out current_batch bigint, out next_tick bigint, out pending_events bigint)
returns setof record
language sql as $$
    select * from pgq.get_consumer_info(i_queue_name, null)
$$;

-- pgq.get_consumer_info() -> setof record
-- State of all subscriptions.
-- returns    as the form with both names
-- runs as    caller
create or replace function pgq.get_consumer_info(
    out queue_name text, out consumer_name text, out lag interval,
    out last_seen interval, out last_tick bigint, out current_batch bigint, out next_tick bigint, out pending_events bigint)
returns setof record
language sql as $$
    select * from pgq.get_consumer_info(null, null)
$$;

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

-- Cooperative consumers: several workers share the batches of one consumer.
--
-- A worker is a subconsumer, a subscription of its own named <consumer>.<subconsumer> with the consumer's sub_id. The
-- consumer itself, the main one, only hands out: its position moves on when a worker gets a batch, which then stands in the
-- worker's position. An idle worker stands nowhere. All positions are in the log of pgq/positions.sql.
create schema pgq_coop;
comment on schema pgq_coop is 'skytools: consumers that share their work among several workers';
grant usage on schema pgq_coop to public;

-- pgq_coop.version() -> text
-- The version of the schema: the bundle's.
-- returns    e.g. '4.0.0'
-- runs as    caller
-- see        skytools.version()
create or replace function pgq_coop.version() returns text
language sql immutable parallel safe as $$
    select skytools.version()
$$;

-- pgq_coop._find(i_queue_name, i_consumer_name) -> record
-- A subscription by its names.
-- returns    all null when there is none
-- runs as    caller, within a security definer function
create or replace function pgq_coop._find(
    i_queue_name text, i_consumer_name text, out sub_key integer, out sub_id integer, out queue_id integer)
returns record
language sql as $$
    select s.sub_key, s.sub_id, s.sub_queue
      from pgq.queue q
      join pgq.subscriber s on s.sub_queue = q.queue_id
      join pgq.consumer c on c.co_id = s.sub_consumer
     where q.queue_name = i_queue_name and c.co_name = i_consumer_name
$$;

-- pgq_coop.register_subconsumer(i_queue_name, i_consumer_name, i_subconsumer_name) -> integer
-- Let a worker take part in a consumer's work; the consumer is subscribed too if it is not yet.
-- i_subconsumer_name the worker, any text
-- returns    1 registered, 0 it was already
-- raises     PQ001  no such queue
-- raises     PQ008  a name is null
-- raises     PQ012  the queue has no tick yet
-- raises     PQ042  another consumer has the name consumer.subconsumer
-- locks      the queue's row FOR SHARE, the consumers' rows
-- runs as    owner
create or replace function pgq_coop.register_subconsumer(i_queue_name text, i_consumer_name text, i_subconsumer_name text)
returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_main record;
    v_name text := i_consumer_name || '.' || i_subconsumer_name;
    v_consumer_id integer;
    v_sub integer;
begin
    if v_name is null then
        raise exception 'Invalid NULL value: consumer % and subconsumer % for queue %', coalesce(i_consumer_name, 'NULL'),
            coalesce(i_subconsumer_name, 'NULL'), coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ008', hint = 'select pgq_coop.register_subconsumer(''queue'', ''consumer'', ''worker'')';
    end if;
    perform pgq.register_consumer(i_queue_name, i_consumer_name);
    select * into v_main from pgq_coop._find(i_queue_name, i_consumer_name);
    loop
        select c.co_id into v_consumer_id from pgq.consumer c where c.co_name = v_name for update;
        exit when found;
        insert into pgq.consumer (co_name) values (v_name) on conflict do nothing;
    end loop;
    insert into pgq.subscriber (sub_id, sub_queue, sub_consumer) values (v_main.sub_id, v_main.queue_id, v_consumer_id)
    on conflict do nothing returning sub_key into v_sub;
    if not found then
        perform 1 from pgq.subscriber s
          where s.sub_queue = v_main.queue_id and s.sub_consumer = v_consumer_id and s.sub_id = v_main.sub_id;
        if not found then
            raise exception 'consumer % of queue % is there already, and is no subconsumer of %', v_name, i_queue_name, i_consumer_name
                using errcode = 'PQ042', hint = 'choose another name for the subconsumer';
        end if;
        return 0;
    end if;
    perform pgq._move(v_sub, null, 0, null, null, null, now());
    return 1;
end $$;

-- pgq_coop.unregister_subconsumer(i_queue_name, i_consumer_name, i_subconsumer_name, i_batch_handling) -> integer
-- End a worker's part in a consumer's work; the consumer and its other workers go on.
-- i_batch_handling what to do where it has a batch open: 1 gives the batch up, its events are lost to the consumer (to have
--            them come again: pgq.batch_retry() first); any other value refuses
-- returns    1; 0 there is no such worker
-- raises     PQ042  the worker has a batch open, and i_batch_handling is not 1
-- locks      waits for a transaction that opens or finishes a batch of the worker
-- runs as    owner
create or replace function pgq_coop.unregister_subconsumer(
    i_queue_name text, i_consumer_name text, i_subconsumer_name text, i_batch_handling integer)
returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_main record;
    v_sub record;
    v_pos record;
    v_consumer_id integer;
begin
    select * into v_main from pgq_coop._find(i_queue_name, i_consumer_name);
    select * into v_sub from pgq_coop._find(i_queue_name, i_consumer_name || '.' || i_subconsumer_name);
    if v_sub.sub_key is null or v_sub.sub_id is distinct from v_main.sub_id then
        return 0;
    end if;
    v_pos := pgq._hold_position(v_sub.sub_key);
    if v_pos.next_tick is not null and i_batch_handling is distinct from 1 then
        raise exception 'subconsumer has active batch: %.% of queue %', i_consumer_name, i_subconsumer_name, i_queue_name
            using errcode = 'PQ042',
                  hint = format('let it finish, or give the batch''s events up: select pgq_coop.unregister_subconsumer(%L, %L, %L, 1)',
                                i_queue_name, i_consumer_name, i_subconsumer_name);
    end if;
    delete from pgq.subscriber s where s.sub_key = v_sub.sub_key returning s.sub_consumer into v_consumer_id;
    if not found then
        return 0;
    end if;
    perform pgq._forget_names(array[v_consumer_id]);
    return 1;
end $$;

-- pgq_coop.next_batch_custom(i_queue_name, i_consumer_name, i_subconsumer_name, i_min_lag, i_min_count, i_min_interval, i_dead_interval) -> bigint
-- Give a worker its next batch, or the one that it has open. Worker and consumer are registered if they are not yet.
-- i_min_lag       only events that are at least this old; null: any
-- i_min_count     only a batch of about this many events; null: any
-- i_min_interval  only a batch that covers this much time; null: any. With i_min_count too, either suffices
-- i_dead_interval a worker without a sign of life for this long is dead: its batch comes to this one, and it is
--                 unregistered (it is registered again when it calls). A batch that the main consumer has had open for as long,
--                 from before it became cooperative, comes too. Null: nobody is dead
-- returns    the batch's id; null when there is nothing to do yet, or the consumer or this worker is paused. Commit before working on the batch: another worker's call
--            waits for it
-- raises     PQ001  no such queue
-- raises     PQ002  it was unregistered just now
-- raises     PQ008  a name is null
-- raises     PQ011  the consumer's tick is gone
-- raises     PQ042  the main consumer has a batch open: it still works without subconsumers
-- raises     40001  its position was written by hand just now, or is newer than this transaction's snapshot
-- locks      an advisory lock for the consumer, to the end of the transaction: one worker at a time is given a batch
-- runs as    owner
create or replace function pgq_coop.next_batch_custom(
    i_queue_name text, i_consumer_name text, i_subconsumer_name text,
    i_min_lag interval, i_min_count int4, i_min_interval interval, i_dead_interval interval)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_main record;
    v_sub record;
    v_main_pos record;
    v_pos record;
    v_dead record;
    v_tick record;
    v_next record;
    v_batch bigint;
    v_held integer;
    v_name integer;
begin
    -- Both rows are held: whoever ends the worker, or takes it for dead, has done so before, or waits.
    loop
        select * into v_main from pgq_coop._find(i_queue_name, i_consumer_name);
        select * into v_sub from pgq_coop._find(i_queue_name, i_consumer_name || '.' || i_subconsumer_name);
        if v_sub.sub_key is null or v_sub.sub_id is distinct from v_main.sub_id then
            perform pgq_coop.register_subconsumer(i_queue_name, i_consumer_name, i_subconsumer_name);
            continue;
        end if;
        perform pg_advisory_xact_lock('pgq.subscriber'::regclass::oid::bigint::integer, v_main.sub_key);
        perform 1 from pgq.subscriber s where s.sub_key in (v_main.sub_key, v_sub.sub_key) order by s.sub_key for key share;
        get diagnostics v_held = row_count;
        exit when v_held = 2;
    end loop;
    if exists (select from pgq.paused_consumer p where p.sub_key in (v_main.sub_key, v_sub.sub_key)) then
        return null;
    end if;

    -- Under the lock nobody else gives out batches of this consumer; but they are finished, and worked on without subconsumers.
    loop
        v_main_pos := pgq._position(v_main.sub_key);
        v_pos := pgq._position(v_sub.sub_key);
        if v_main_pos.seq is null or v_pos.seq is null then
            raise exception 'Not subscriber to queue: %/%.%', i_queue_name, i_consumer_name, i_subconsumer_name
                using errcode = 'PQ002', hint = 'it was unregistered just now: call again';
        end if;
        if v_pos.batch is not null then
            if pgq._move(v_sub.sub_key, v_pos.slot, v_pos.seq, v_pos.last_tick, v_pos.batch, v_pos.next_tick, now()) then
                return v_pos.batch;
            end if;
            continue;
        end if;
        if v_main_pos.next_tick is not null and not coalesce(v_main_pos.active < now() - i_dead_interval, false) then
            raise exception 'main consumer has batch open?  Consumer % of queue %, batch %', i_consumer_name, i_queue_name, v_main_pos.batch
                using errcode = 'PQ042',
                      hint = 'it works without subconsumers: let it finish; if its worker is dead, give a dead interval';
        end if;

        select s.sub_key, p.* into v_dead
          from pgq.subscriber s cross join lateral pgq._position(s.sub_key) p
         where i_dead_interval is not null and s.sub_id = v_main.sub_id and s.sub_key <> v_sub.sub_key
           and p.active < now() - i_dead_interval
           and (s.sub_key <> v_main.sub_key or p.next_tick is not null)
         order by p.batch is null, p.active limit 1;
        if v_dead.sub_key is not null then
            -- Whoever finishes just now is alive after all: then this move fails.
            continue when not pgq._move(v_dead.sub_key, v_dead.slot, v_dead.seq,
                case when v_dead.sub_key = v_main.sub_key then v_dead.next_tick end, null, null, v_dead.active);
            if v_dead.sub_key <> v_main.sub_key then
                delete from pgq.subscriber s where s.sub_key = v_dead.sub_key returning s.sub_consumer into v_name;
                perform pgq._forget_names(array[v_name]);
            end if;
            continue when v_dead.batch is null;
            v_batch := v_dead.batch;
            v_next := v_dead;
        else
            select * into v_tick from pgq.tick t where t.tick_queue = v_main.queue_id and t.tick_id = v_main_pos.last_tick;
            if not found then
                raise exception 'PgQ corruption: Consumer % on queue % does not see tick %',
                    i_consumer_name, i_queue_name, coalesce(v_main_pos.last_tick::text, '<NULL>')
                    using errcode = 'PQ011', hint = format('start again at a tick that exists: pgq.register_consumer_at(%L, %L, ...)',
                                                           i_queue_name, i_consumer_name);
            end if;
            select v_main_pos.last_tick, n.tick_id as next_tick into v_next
              from pgq._batch_end(v_main.queue_id, v_tick.tick_id, v_tick.tick_time, v_tick.tick_event_seq,
                                  i_min_lag, i_min_count, i_min_interval) n;
            if v_next.next_tick is null then
                -- A sign of life, now and then: polling leaves no row a time.
                if v_pos.active < now() - interval '10 seconds' then
                    perform pgq._move(v_sub.sub_key, v_pos.slot, v_pos.seq, null, null, null, now());
                end if;
                return null;
            end if;
            v_batch := nextval('pgq.batch_id_seq');
            continue when not pgq._move(v_main.sub_key, v_main_pos.slot, v_main_pos.seq, v_next.next_tick, null, null, now());
        end if;
        exit when pgq._move(v_sub.sub_key, v_pos.slot, v_pos.seq, v_next.last_tick, v_batch, v_next.next_tick, now());
        -- Only somebody who writes to pgq.subscription by hand can have moved it: all of this call must go.
        raise exception 'could not serialize access: subconsumer %.% of queue % was moved', i_consumer_name, i_subconsumer_name, i_queue_name
            using errcode = '40001', hint = 'call again';
    end loop;
    return v_batch;
end $$;

-- pgq_coop.next_batch_custom(i_queue_name, i_consumer_name, i_subconsumer_name, i_min_lag, i_min_count, i_min_interval) -> bigint
-- Give a worker its next batch, or the one that it has open; nobody is taken for dead.
-- returns    the batch's id; null when there is nothing to do yet
-- raises     PQ001, PQ008, PQ011, PQ042  as the form with i_dead_interval
-- runs as    caller; see the form with i_dead_interval
create or replace function pgq_coop.next_batch_custom(
    i_queue_name text, i_consumer_name text, i_subconsumer_name text,
    i_min_lag interval, i_min_count int4, i_min_interval interval)
returns bigint
language sql as $$
    select pgq_coop.next_batch_custom(i_queue_name, i_consumer_name, i_subconsumer_name, i_min_lag, i_min_count, i_min_interval, null)
$$;

-- pgq_coop.next_batch(i_queue_name, i_consumer_name, i_subconsumer_name, i_dead_interval) -> bigint
-- Give a worker its next batch, or the one that it has open.
-- i_dead_interval a worker without a sign of life for this long is dead, and its batch comes to this one
-- returns    the batch's id; null when there is nothing to do yet
-- raises     PQ001, PQ008, PQ011, PQ042  as pgq_coop.next_batch_custom()
-- runs as    caller; see pgq_coop.next_batch_custom()
create or replace function pgq_coop.next_batch(
    i_queue_name text, i_consumer_name text, i_subconsumer_name text, i_dead_interval interval)
returns bigint
language sql as $$
    select pgq_coop.next_batch_custom(i_queue_name, i_consumer_name, i_subconsumer_name, null, null, null, i_dead_interval)
$$;

-- pgq_coop.next_batch(i_queue_name, i_consumer_name, i_subconsumer_name) -> bigint
-- Give a worker its next batch, or the one that it has open; nobody is taken for dead.
-- returns    the batch's id; null when there is nothing to do yet
-- raises     PQ001, PQ008, PQ011, PQ042  as pgq_coop.next_batch_custom()
-- runs as    caller; see pgq_coop.next_batch_custom()
create or replace function pgq_coop.next_batch(i_queue_name text, i_consumer_name text, i_subconsumer_name text)
returns bigint
language sql as $$
    select pgq_coop.next_batch_custom(i_queue_name, i_consumer_name, i_subconsumer_name, null, null, null, null)
$$;

-- pgq_coop.finish_batch(i_batch_id) -> integer
-- Close a worker's batch.
-- returns    1; 0, with a warning, when the batch is not open
-- raises     PQ019  the batch was this session's, and another worker has taken it over
-- raises     40001  under REPEATABLE READ and SERIALIZABLE, when another transaction finished it since the snapshot
-- locks      none; when another transaction is just finishing it, or taking it over, waits for it to end
-- runs as    owner
create or replace function pgq_coop.finish_batch(i_batch_id bigint) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_batch record := pgq._find_batch(i_batch_id);
begin
    if v_batch.sub_key is null then
        perform pgq._refuse_lost_batch(i_batch_id, null, null);
        raise warning 'coop_finish_batch: batch % not found', coalesce(i_batch_id::text, 'NULL')
            using errcode = 'PQ003', hint = 'it was finished before, or its worker was unregistered';
        return 0;
    end if;
    return pgq.finish_batch(i_batch_id);
end $$;

-- pgq_coop._held(i_batch_id, i_worker_name) -> record
-- A batch that a worker has open.
-- i_worker_name the subconsumer, or the worker of a partitioned consumer
-- returns    as pgq._find_batch(); sub_key is null when the batch is not open at all
-- raises     PQ019  another worker has it
-- runs as    caller, within a security definer function
create or replace function pgq_coop._held(
    i_batch_id bigint, i_worker_name text, out sub_key integer, out slot integer, out seq bigint, out last_tick bigint, out next_tick bigint,
    out holder text, out main_key integer)
returns record
language plpgsql as $$
declare
    v_worker text;
begin
    select b.sub_key, b.slot, b.seq, b.last_tick, b.next_tick, b.holder, b.main_key
      into sub_key, slot, seq, last_tick, next_tick, holder, main_key from pgq._find_batch(i_batch_id) b;
    if sub_key is null then
        return;
    end if;
    if main_key is null then
        v_worker := holder;
    else
        select substr(c.co_name, length(m.co_name) + 2) into v_worker
          from pgq.subscriber s join pgq.consumer c on c.co_id = s.sub_consumer,
               pgq.subscriber ms join pgq.consumer m on m.co_id = ms.sub_consumer
         where s.sub_key = _held.sub_key and ms.sub_key = _held.main_key;
    end if;
    if v_worker is distinct from i_worker_name then
        raise exception 'batch % was taken over: worker % has it, not %', i_batch_id, v_worker, coalesce(i_worker_name, 'NULL')
            using errcode = 'PQ019',
                  hint = 'roll back what was done with its events; a worker that is slow but alive calls pgq_coop.touch() in time';
    end if;
end $$;

-- pgq_coop.finish_batch(i_batch_id, i_worker_name) -> integer
-- Close a batch as the worker that got it: for workers that share connections, whom the session does not tell apart.
-- i_worker_name the subconsumer, or the worker of a partitioned consumer
-- returns    1; 0, with a warning, when the batch is not open
-- raises     PQ019  another worker has taken it over
-- raises     40001  as the form with the batch alone
-- runs as    owner
create or replace function pgq_coop.finish_batch(i_batch_id bigint, i_worker_name text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_batch record;
begin
    loop
        v_batch := pgq_coop._held(i_batch_id, i_worker_name);
        if v_batch.sub_key is null then
            raise warning 'coop_finish_batch: batch % not found', coalesce(i_batch_id::text, 'NULL')
                using errcode = 'PQ003', hint = 'it was finished before, or its worker was unregistered';
            return 0;
        end if;
        if pgq._move(v_batch.sub_key, v_batch.slot, v_batch.seq,
                     case when v_batch.main_key is null then v_batch.next_tick end, null, null, now(), i_worker_name) then
            return 1;
        end if;
    end loop;
end $$;

-- pgq_coop.touch(i_batch_id) -> integer
-- Give a sign of life: the worker that has this batch open is slow, not dead.
-- returns    1; 0, with a warning, when the batch is not open
-- raises     PQ019  the batch was this session's, and another worker has taken it over
-- runs as    owner
create or replace function pgq_coop.touch(i_batch_id bigint) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_batch record;
begin
    loop
        v_batch := pgq._find_batch(i_batch_id);
        perform pgq._refuse_lost_batch(i_batch_id, v_batch.sub_key, v_batch.holder);
        if v_batch.sub_key is null then
            raise warning 'coop touch: batch % not found', coalesce(i_batch_id::text, 'NULL')
                using errcode = 'PQ003', hint = 'it was finished before, or its worker was unregistered';
            return 0;
        end if;
        if pgq._move(v_batch.sub_key, v_batch.slot, v_batch.seq, v_batch.last_tick, i_batch_id, v_batch.next_tick,
                     clock_timestamp(), v_batch.holder) then
            return 1;
        end if;
    end loop;
end $$;

-- pgq_coop.touch(i_batch_id, i_worker_name) -> integer
-- Give a sign of life as the worker that got the batch.
-- returns    1; 0, with a warning, when the batch is not open
-- raises     PQ019  another worker has taken it over
-- runs as    owner
create or replace function pgq_coop.touch(i_batch_id bigint, i_worker_name text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_batch record;
begin
    loop
        v_batch := pgq_coop._held(i_batch_id, i_worker_name);
        if v_batch.sub_key is null then
            raise warning 'coop touch: batch % not found', coalesce(i_batch_id::text, 'NULL')
                using errcode = 'PQ003', hint = 'it was finished before, or its worker was unregistered';
            return 0;
        end if;
        if pgq._move(v_batch.sub_key, v_batch.slot, v_batch.seq, v_batch.last_tick, i_batch_id, v_batch.next_tick,
                     clock_timestamp(), v_batch.holder) then
            return 1;
        end if;
    end loop;
end $$;

-- Order within a key, and different keys in parallel: a partitioned consumer. Each of its partitions is a subscription named
-- <consumer>#<number>, which has every event whose key hashes to that number. A worker gets the next batch of some partition
-- that nobody is working on. So the batches of one partition are worked on one after the other, by whoever comes, and with
-- them the events of each key. There are no leases, and nothing to rebalance when workers come and go.

create table pgq_coop.partitioned (
    par_queue     integer not null,
    par_consumer  text not null,
    par_count     integer not null,
    par_key       text not null,
    constraint partitioned_pkey primary key (par_queue, par_consumer),
    constraint par_queue_fkey foreign key (par_queue) references pgq.queue (queue_id) on delete cascade
);
comment on table pgq_coop.partitioned is 'Consumers that keep the order of events within a key';

-- pgq_coop.register_partitions(i_queue_name, i_consumer_name, i_count, i_key, i_tick_pos) -> integer
-- Subscribe a consumer that keeps the order of events within a key.
-- i_count    partitions: at most so many workers are busy at one time. It cannot change later
-- i_key      what the key of an event is: ev_type, ev_data, ev_extra1 .. ev_extra4, or ev_data.<name> for a field of JSON data.
--            An event whose key is null has no order to keep
-- i_tick_pos tick after which its events begin; null: the newest
-- returns    how many partitions were subscribed; 0: all were already
-- raises     PQ001  no such queue
-- raises     PQ005  no such tick
-- raises     PQ008  the count is below 1, or there is no such key
-- raises     PQ042  it is subscribed already with another count or key
-- locks      as pgq.register_consumer_at()
-- runs as    owner
create or replace function pgq_coop.register_partitions(
    i_queue_name text, i_consumer_name text, i_count integer, i_key text default 'ev_extra1', i_tick_pos bigint default null)
returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue_id integer;
    v_tick bigint := i_tick_pos;
    v_known pgq_coop.partitioned;
    v_count integer := 0;
begin
    if i_consumer_name is null or coalesce(i_count, 0) < 1 or not coalesce(i_key ~ '^ev_(type|data|extra[1-4]|data\..+)$', false) then
        raise exception 'consumer % of queue %: cannot be partitioned into % by %', coalesce(i_consumer_name, 'NULL'),
            coalesce(i_queue_name, 'NULL'), coalesce(i_count::text, 'NULL'), coalesce(i_key, 'NULL')
            using errcode = 'PQ008', hint = 'select pgq_coop.register_partitions(''queue'', ''consumer'', 8, ''ev_data.order_id'')';
    end if;
    select q.queue_id into v_queue_id from pgq.queue q where q.queue_name = i_queue_name for share;
    if not found then
        raise exception 'Event queue not created yet: %', coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ001', hint = format('select pgq.create_queue(%L)', i_queue_name);
    end if;
    insert into pgq_coop.partitioned values (v_queue_id, i_consumer_name, i_count, i_key) on conflict do nothing;
    select * into v_known from pgq_coop.partitioned p where p.par_queue = v_queue_id and p.par_consumer = i_consumer_name;
    if (v_known.par_count, v_known.par_key) is distinct from (i_count, i_key) then
        raise exception 'consumer % of queue % is partitioned already: into % by %', i_consumer_name, i_queue_name,
            v_known.par_count, v_known.par_key
            using errcode = 'PQ042', hint = format('let it finish what there is, then: select pgq_coop.unregister_partitions(%L, %L)',
                                                   i_queue_name, i_consumer_name);
    end if;
    if v_tick is null then
        select max(t.tick_id) into v_tick from pgq.tick t where t.tick_queue = v_queue_id;
    end if;
    for v_n in 0 .. i_count - 1 loop
        if not exists (select from pgq_coop._find(i_queue_name, format('%s#%s', i_consumer_name, v_n)) f where f.sub_key is not null) then
            v_count := v_count + pgq.register_consumer_at(i_queue_name, format('%s#%s', i_consumer_name, v_n), v_tick);
        end if;
    end loop;
    return v_count;
end $$;

-- pgq_coop.unregister_partitions(i_queue_name, i_consumer_name) -> integer
-- End the subscriptions of a partitioned consumer; its open batches and what waits for a retry are given up.
-- returns    how many ended; 0: there is no such consumer
-- runs as    owner
create or replace function pgq_coop.unregister_partitions(i_queue_name text, i_consumer_name text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_known pgq_coop.partitioned;
    v_count integer := 0;
begin
    delete from pgq_coop.partitioned p using pgq.queue q
     where q.queue_id = p.par_queue and q.queue_name = i_queue_name and p.par_consumer = i_consumer_name
    returning p.* into v_known;
    for v_n in 0 .. coalesce(v_known.par_count, 0) - 1 loop
        v_count := v_count + pgq.unregister_consumer(i_queue_name, format('%s#%s', i_consumer_name, v_n));
    end loop;
    return v_count;
end $$;

-- pgq_coop.next_partition(i_queue_name, i_consumer_name, i_worker_name, i_dead_interval) -> bigint
-- Give a worker the next batch of a partition that nobody is working on, or the batch that the worker has open.
-- i_worker_name   the worker, any text; it need not be registered
-- i_dead_interval a worker that has had a batch for this long without pgq_coop.touch() is dead, and its batch comes to this
--                 one; null: nobody is dead
-- returns    the batch's id; null when there is nothing to do yet. Read it by pgq_coop.get_batch_events(), finish it by
--            pgq_coop.finish_batch(batch, worker)
-- raises     PQ002  the consumer is not partitioned
-- raises     PQ008  the worker's name is null
-- locks      an advisory lock for the partition, to the end of the transaction; partitions that others are just taking are
--            passed over, so nobody waits
-- runs as    owner
create or replace function pgq_coop.next_partition(
    i_queue_name text, i_consumer_name text, i_worker_name text, i_dead_interval interval default null)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_known pgq_coop.partitioned;
    v_part record;
    v_pos record;
    v_tick record;
    v_next bigint;
    v_batch bigint;
begin
    if i_worker_name is null then
        raise exception 'Invalid NULL value: worker of consumer % of queue %', coalesce(i_consumer_name, 'NULL'), coalesce(i_queue_name, 'NULL')
            using errcode = 'PQ008', hint = 'select pgq_coop.next_partition(''queue'', ''consumer'', ''worker'')';
    end if;
    select p.* into v_known from pgq_coop.partitioned p join pgq.queue q on q.queue_id = p.par_queue
     where q.queue_name = i_queue_name and p.par_consumer = i_consumer_name;
    if not found then
        raise exception 'Not partitioned: %/%', coalesce(i_queue_name, 'NULL'), coalesce(i_consumer_name, 'NULL')
            using errcode = 'PQ002', hint = format('select pgq_coop.register_partitions(%L, %L, 8, ''ev_extra1'')', i_queue_name, i_consumer_name);
    end if;
    -- Its own batch first, then those of the dead, then the partition that is furthest behind.
    for v_part in
        select s.sub_key, p.holder = i_worker_name as own
          from pgq.subscriber s join pgq.consumer c on c.co_id = s.sub_consumer
         cross join lateral pgq._position(s.sub_key) p
         where s.sub_queue = v_known.par_queue
           and c.co_name = any (array(select format('%s#%s', i_consumer_name, n) from generate_series(0, v_known.par_count - 1) n))
           and (p.batch is null or p.holder = i_worker_name or p.active < now() - i_dead_interval)
         order by p.batch is not null and p.holder = i_worker_name desc, p.batch is null, p.last_tick, random()
    loop
        continue when not pg_try_advisory_xact_lock('pgq.subscriber'::regclass::oid::bigint::integer, v_part.sub_key);
        v_pos := pgq._position(v_part.sub_key);
        if v_pos.batch is not null then
            continue when v_pos.holder <> i_worker_name and not coalesce(v_pos.active < now() - i_dead_interval, false);
            v_batch := v_pos.batch;
            v_next := v_pos.next_tick;
        else
            select * into v_tick from pgq.tick t where t.tick_queue = v_known.par_queue and t.tick_id = v_pos.last_tick;
            -- As each partition keeps but a part of what it reads, it takes what waits at one go, up to a thousand events for each.
            select coalesce(max(t.tick_id) filter (where t.tick_event_seq - v_tick.tick_event_seq <= 1000 * v_known.par_count), min(t.tick_id))
              into v_next
              from (select n.tick_id, n.tick_event_seq from pgq.tick n
                     where n.tick_queue = v_known.par_queue and n.tick_id > v_tick.tick_id
                     order by n.tick_queue, n.tick_id limit 1000) t;
            continue when v_next is null;
            v_batch := nextval('pgq.batch_id_seq');
        end if;
        if pgq._move(v_part.sub_key, v_pos.slot, v_pos.seq, v_pos.last_tick, v_batch, v_next, now(), i_worker_name) then
            return v_batch;
        end if;
    end loop;
    return null;
end $$;

-- pgq_coop.partition_filter(i_batch_id) -> text
-- The condition that holds for the events of a batch which belong to its partition: for pgq.get_batch_cursor().
-- returns    SQL text over ev_...; 'true' for a batch of a consumer that is not partitioned
-- raises     PQ003  no such open batch
-- runs as    owner
create or replace function pgq_coop.partition_filter(i_batch_id bigint) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_batch record := pgq._find_batch(i_batch_id);
    v_part record;
begin
    if v_batch.sub_key is null then
        raise exception 'batch not found: %', coalesce(i_batch_id::text, 'NULL')
            using errcode = 'PQ003', hint = 'it may be finished, or given to another worker';
    end if;
    select p.par_count, p.par_key, substr(c.co_name, length(p.par_consumer) + 2)::integer as number into v_part
      from pgq.consumer c join pgq_coop.partitioned p on c.co_name like '%#%' and p.par_consumer = regexp_replace(c.co_name, '#[0-9]+$', '')
     where c.co_id = v_batch.consumer_id and p.par_queue = v_batch.queue_id;
    if not found then
        return 'true';
    end if;
    -- By md5, which is the same in every version: a key must not move to another partition when the server is upgraded.
    return format($sql$coalesce(('x' || substr(md5(%s), 1, 8))::bit(32)::bigint, ev_id) %% %s = %s$sql$,
        case when v_part.par_key like 'ev\_data.%' then format('(ev_data::jsonb ->> %L)', substr(v_part.par_key, 9))
             else quote_ident(v_part.par_key) end,
        v_part.par_count, v_part.number);
end $$;

-- pgq_coop.get_batch_events(i_batch_id) -> setof record
-- The events of an open batch that belong to its partition, by id.
-- returns    as pgq.get_batch_events()
-- raises     PQ003  no such open batch
-- raises     PQ011  a tick of the batch is gone
-- runs as    caller
create or replace function pgq_coop.get_batch_events(
    i_batch_id bigint, out ev_id bigint, out ev_time timestamptz, out ev_txid bigint, out ev_retry int4, out ev_type text,
    out ev_data text, out ev_extra1 text, out ev_extra2 text, out ev_extra3 text, out ev_extra4 text)
returns setof record
language plpgsql as $$
begin
    return query execute pgq._batch_query(i_batch_id, ' and ' || pgq_coop.partition_filter(i_batch_id)) || ' order by 1';
end $$;

-- pgq_coop.upgrade_schema() -> integer
-- Give the functions their privileges: version() to PUBLIC, what workers call to pgq_reader. The install calls it; call it again
-- when the roles did not exist then (see pgq.upgrade_schema()).
-- returns    how many tables changed: 0
-- runs as    caller, who must own the schema
create or replace function pgq_coop.upgrade_schema() returns integer
language plpgsql as $$
begin
    revoke all on all functions in schema pgq_coop from public;
    grant execute on function pgq_coop.version() to public;
    if pg_catalog.to_regrole('pgq_reader') is not null then
        grant execute on function
            pgq_coop.register_subconsumer(text, text, text), pgq_coop.unregister_subconsumer(text, text, text, integer),
            pgq_coop.next_batch(text, text, text), pgq_coop.next_batch(text, text, text, interval),
            pgq_coop.next_batch_custom(text, text, text, interval, integer, interval),
            pgq_coop.next_batch_custom(text, text, text, interval, integer, interval, interval),
            pgq_coop.finish_batch(bigint), pgq_coop.finish_batch(bigint, text),
            pgq_coop.touch(bigint), pgq_coop.touch(bigint, text),
            pgq_coop.register_partitions(text, text, integer, text, bigint), pgq_coop.unregister_partitions(text, text),
            pgq_coop.next_partition(text, text, text, interval), pgq_coop.partition_filter(bigint),
            pgq_coop.get_batch_events(bigint)
            to pgq_reader;
    end if;
    return 0;
end $$;

select pgq_coop.upgrade_schema();

create schema pgq_ext;
comment on schema pgq_ext is 'skytools: what a target database has applied of a queue in another one';
grant usage on schema pgq_ext to public;

-- How far each consumer has come, by tick, by batch or by event, whichever it works with.
create table pgq_ext.completed_tick (
    consumer_id     text not null,
    subconsumer_id  text not null default '',
    last_tick_id    bigint not null,
    constraint completed_tick_pkey primary key (consumer_id, subconsumer_id)
);
comment on table pgq_ext.completed_tick is 'The last tick that a consumer has applied here';

create table pgq_ext.completed_batch (
    consumer_id     text not null,
    subconsumer_id  text not null default '',
    last_batch_id   bigint not null,
    constraint completed_batch_pkey primary key (consumer_id, subconsumer_id)
);
comment on table pgq_ext.completed_batch is 'The last batch that a consumer has applied here';

create table pgq_ext.completed_event (
    consumer_id     text not null,
    subconsumer_id  text not null default '',
    batch_id        bigint not null,
    event_id        bigint not null,
    constraint completed_event_pkey primary key (consumer_id, subconsumer_id, batch_id, event_id)
);
comment on table pgq_ext.completed_event is 'The events of its current batch that a consumer has applied here';

create table pgq_ext.partial_batch (
    consumer_id     text not null,
    subconsumer_id  text not null default '',
    cur_batch_id    bigint not null,
    constraint partial_batch_pkey primary key (consumer_id, subconsumer_id)
);
comment on table pgq_ext.partial_batch is 'The batch to which the events in completed_event belong';

-- pgq_ext.get_last_tick(a_consumer, a_subconsumer) -> bigint
-- The last tick that a consumer has applied in this database.
-- returns    null when none is stored
-- runs as    owner
create or replace function pgq_ext.get_last_tick(a_consumer text, a_subconsumer text) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select t.last_tick_id from pgq_ext.completed_tick t
     where t.consumer_id = a_consumer and t.subconsumer_id = a_subconsumer
$$;

-- pgq_ext.get_last_tick(a_consumer) -> bigint
-- The last tick that a consumer has applied in this database.
-- returns    null when none is stored
-- runs as    caller; see the form with a subconsumer
create or replace function pgq_ext.get_last_tick(a_consumer text) returns bigint
language sql as $$
    select pgq_ext.get_last_tick(a_consumer, '')
$$;

-- pgq_ext.set_last_tick(a_consumer, a_subconsumer, a_tick_id) -> integer
-- Store the last tick that a consumer has applied, in the transaction that applied it; it may go back.
-- a_tick_id  null: forget the consumer
-- returns    1
-- runs as    owner
create or replace function pgq_ext.set_last_tick(a_consumer text, a_subconsumer text, a_tick_id bigint) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if a_tick_id is null then
        delete from pgq_ext.completed_tick t where t.consumer_id = a_consumer and t.subconsumer_id = a_subconsumer;
    else
        insert into pgq_ext.completed_tick as t (consumer_id, subconsumer_id, last_tick_id)
        values (a_consumer, a_subconsumer, a_tick_id)
        on conflict (consumer_id, subconsumer_id) do update set last_tick_id = excluded.last_tick_id;
    end if;
    return 1;
end $$;

-- pgq_ext.set_last_tick(a_consumer, a_tick_id) -> integer
-- Store the last tick that a consumer has applied, in the transaction that applied it; it may go back.
-- a_tick_id  null: forget the consumer
-- returns    1
-- runs as    caller; see the form with a subconsumer
create or replace function pgq_ext.set_last_tick(a_consumer text, a_tick_id bigint) returns integer
language sql as $$
    select pgq_ext.set_last_tick(a_consumer, '', a_tick_id)
$$;

-- pgq_ext.is_batch_done(a_consumer, a_subconsumer, a_batch_id) -> boolean
-- Whether a batch is the last one that the consumer has applied in this database.
-- returns    false for a consumer of which nothing is stored; else null for a null batch
-- runs as    owner
create or replace function pgq_ext.is_batch_done(a_consumer text, a_subconsumer text, a_batch_id bigint) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_last bigint;
begin
    select b.last_batch_id into v_last from pgq_ext.completed_batch b
     where b.consumer_id = a_consumer and b.subconsumer_id = a_subconsumer;
    if not found then
        return false;
    end if;
    return v_last = a_batch_id;
end $$;

-- pgq_ext.is_batch_done(a_consumer, a_batch_id) -> boolean
-- Whether a batch is the last one that the consumer has applied in this database.
-- returns    false for a consumer of which nothing is stored; else null for a null batch
-- runs as    caller; see the form with a subconsumer
create or replace function pgq_ext.is_batch_done(a_consumer text, a_batch_id bigint) returns boolean
language sql as $$
    select pgq_ext.is_batch_done(a_consumer, '', a_batch_id)
$$;

-- pgq_ext.set_batch_done(a_consumer, a_subconsumer, a_batch_id) -> boolean
-- Note a batch as applied, in the transaction that applies it.
-- a_batch_id stored when above 0
-- returns    false when it is the last one already: then do not apply it again; else true
-- locks      the consumer's row: a second process with the same batch waits, and is told false
-- runs as    owner
create or replace function pgq_ext.set_batch_done(a_consumer text, a_subconsumer text, a_batch_id bigint) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if a_batch_id > 0 then
        insert into pgq_ext.completed_batch as b (consumer_id, subconsumer_id, last_batch_id)
        values (a_consumer, a_subconsumer, a_batch_id)
        on conflict (consumer_id, subconsumer_id) do update set last_batch_id = excluded.last_batch_id
         where b.last_batch_id <> excluded.last_batch_id;
        return found;
    end if;
    return coalesce(not pgq_ext.is_batch_done(a_consumer, a_subconsumer, a_batch_id), true);
end $$;

-- pgq_ext.set_batch_done(a_consumer, a_batch_id) -> boolean
-- Note a batch as applied, in the transaction that applies it.
-- a_batch_id stored when above 0
-- returns    false when it is the last one already: then do not apply it again; else true
-- runs as    caller; see the form with a subconsumer
create or replace function pgq_ext.set_batch_done(a_consumer text, a_batch_id bigint) returns boolean
language sql as $$
    select pgq_ext.set_batch_done(a_consumer, '', a_batch_id)
$$;

-- pgq_ext.is_event_done(a_consumer, a_subconsumer, a_batch_id, a_event_id) -> boolean
-- Whether the consumer has applied an event of its current batch in this database.
-- returns    true or false
-- runs as    owner
create or replace function pgq_ext.is_event_done(a_consumer text, a_subconsumer text, a_batch_id bigint, a_event_id bigint)
returns boolean
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select exists (select from pgq_ext.completed_event e
                    where e.consumer_id = a_consumer and e.subconsumer_id = a_subconsumer
                      and e.batch_id = a_batch_id and e.event_id = a_event_id)
$$;

-- pgq_ext.is_event_done(a_consumer, a_batch_id, a_event_id) -> boolean
-- Whether the consumer has applied an event of its current batch in this database.
-- returns    true or false
-- runs as    caller; see the form with a subconsumer
create or replace function pgq_ext.is_event_done(a_consumer text, a_batch_id bigint, a_event_id bigint) returns boolean
language sql as $$
    select pgq_ext.is_event_done(a_consumer, '', a_batch_id, a_event_id)
$$;

-- pgq_ext.set_event_done(a_consumer, a_subconsumer, a_batch_id, a_event_id) -> boolean
-- Note an event as applied, in the transaction that applies it. With the first event of another batch, those of the batch
-- before are forgotten.
-- returns    false when it is applied already: then do not apply it again; else true
-- locks      a second process with the same event waits, and is told false
-- runs as    owner
create or replace function pgq_ext.set_event_done(a_consumer text, a_subconsumer text, a_batch_id bigint, a_event_id bigint)
returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_before bigint;
begin
    select p.cur_batch_id into v_before from pgq_ext.partial_batch p
     where p.consumer_id = a_consumer and p.subconsumer_id = a_subconsumer;
    if v_before is distinct from a_batch_id then
        insert into pgq_ext.partial_batch as p (consumer_id, subconsumer_id, cur_batch_id)
        values (a_consumer, a_subconsumer, a_batch_id)
        on conflict (consumer_id, subconsumer_id) do update set cur_batch_id = excluded.cur_batch_id;
        delete from pgq_ext.completed_event e
         where e.consumer_id = a_consumer and e.subconsumer_id = a_subconsumer and e.batch_id = v_before;
    end if;
    insert into pgq_ext.completed_event (consumer_id, subconsumer_id, batch_id, event_id)
    values (a_consumer, a_subconsumer, a_batch_id, a_event_id)
    on conflict do nothing;
    return found;
end $$;

-- pgq_ext.set_event_done(a_consumer, a_batch_id, a_event_id) -> boolean
-- Note an event as applied, in the transaction that applies it.
-- returns    false when it is applied already: then do not apply it again; else true
-- runs as    caller; see the form with a subconsumer
create or replace function pgq_ext.set_event_done(a_consumer text, a_batch_id bigint, a_event_id bigint) returns boolean
language sql as $$
    select pgq_ext.set_event_done(a_consumer, '', a_batch_id, a_event_id)
$$;

-- pgq_ext.version() -> text
-- The version of the schema: the bundle's.
-- returns    e.g. '4.0.0'
-- runs as    caller
-- see        skytools.version()
create or replace function pgq_ext.version() returns text
language sql immutable parallel safe as $$
    select skytools.version()
$$;

-- pgq_ext.upgrade_schema() -> integer
-- Give the functions their privileges: all to pgq_writer, version() to PUBLIC. The install calls it; call it again when the
-- roles did not exist then (see pgq.upgrade_schema()).
-- returns    how many tables changed: 0
-- runs as    caller, who must own the schema
create or replace function pgq_ext.upgrade_schema() returns integer
language plpgsql as $$
begin
    revoke all on all functions in schema pgq_ext from public;
    grant execute on function pgq_ext.version() to public;
    if pg_catalog.to_regrole('pgq_writer') is not null then
        grant execute on function
            pgq_ext.get_last_tick(text), pgq_ext.get_last_tick(text, text),
            pgq_ext.set_last_tick(text, bigint), pgq_ext.set_last_tick(text, text, bigint),
            pgq_ext.is_batch_done(text, bigint), pgq_ext.is_batch_done(text, text, bigint),
            pgq_ext.set_batch_done(text, bigint), pgq_ext.set_batch_done(text, text, bigint),
            pgq_ext.is_event_done(text, bigint, bigint), pgq_ext.is_event_done(text, text, bigint, bigint),
            pgq_ext.set_event_done(text, bigint, bigint), pgq_ext.set_event_done(text, text, bigint, bigint)
            to pgq_writer;
    end if;
    return 0;
end $$;

select pgq_ext.upgrade_schema();

-- Events of captured tables, read back: what table, what happened, which values.

-- skytools._event_kind(i_type) -> record
-- What the type of an event of a captured table says.
-- returns    op I, U, D or R (TRUNCATE); format json, urlencode or sql; key the names of the key columns; all null when it is
--            no such type
-- runs as    caller
create or replace function skytools._event_kind(i_type text, out op text, out format text, out key text[])
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
    v_type jsonb;
begin
    if i_type ~ '^\s*\{' then
        begin
            v_type := i_type::jsonb;
        exception when invalid_text_representation then
            return;
        end;
        op := case v_type->>'op' when 'INSERT' then 'I' when 'UPDATE' then 'U' when 'DELETE' then 'D' when 'TRUNCATE' then 'R' end;
        if op is not null then
            format := 'json';
            key := array(select k from jsonb_array_elements_text(case jsonb_typeof(v_type->'pkey') when 'array' then v_type->'pkey' else '[]' end)
                                       with ordinality u (k, n) order by n);
        end if;
    elsif i_type ~ '^[IUD]:' then
        op := left(i_type, 1);
        format := 'urlencode';
        key := array(select k from regexp_split_to_table(substr(i_type, 3), '[\s,]+') with ordinality u (k, n) where k <> '' order by n);
    elsif i_type in ('I', 'U', 'D', 'R') then
        op := i_type;
        format := case op when 'R' then 'urlencode' else 'sql' end;
        key := '{}';
    end if;
end $$;

-- skytools._decode_row(i_data) -> jsonb
-- A row as events carry it, a JSON object or name=value&name=value, as an object. Urlencoded values become strings.
-- returns    null for null and for what is neither
-- runs as    caller
create or replace function skytools._decode_row(i_data text) returns jsonb
language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
declare
    v_json text := i_data;
    v_bytes text;
begin
    if i_data like '{%' then
        return i_data::jsonb;
    elsif i_data !~ '^([A-Za-z0-9_.+=&-]|%[0-9A-Fa-f]{2})*$' then
        return null;
    end if;
    -- Bytes of the server's encoding first, for a character may have several; then the others by JSON's own escapes.
    for v_bytes in select distinct m[1] from regexp_matches(i_data, '((?:%[89A-Fa-f][0-9A-Fa-f])+)', 'g') m loop
        v_json := replace(v_json, v_bytes, convert_from(decode(replace(v_bytes, '%', ''), 'hex'), getdatabaseencoding()));
    end loop;
    v_json := regexp_replace(v_json, '([^&=]+)=([^&]*)', '"\1":"\2"', 'g');
    v_json := regexp_replace(v_json, '(^|&)([^&"]+)(?=&|$)', '\1"\2":null', 'g');
    return ('{' || replace(replace(replace(v_json, '&', ','), '+', ' '), '%', '\u00') || '}')::jsonb;
end $$;

-- A batch of events of one captured table, applied to another as a set. Of all events about one row only its first state
-- and its last matter. A row may change its key on the way, so its life is followed over its keys: an update that changes
-- the key leaves one and arrives at another.

-- skytools._apply_columns(i_target, i_names) -> record
-- The columns of a target among some names, and how to read each out of a JSON object.
-- returns    name, type, sql: the value, given that the record r has a column of this name and type; generated; identity: always
-- runs as    caller
create or replace function skytools._apply_columns(
    i_target regclass, i_names text[], out name text, out type text, out sql text, out nullable boolean, out generated boolean, out identity boolean)
returns setof record
language sql stable set search_path = pg_catalog, pg_temp as $$
    select a.attname::text,
           -- Events carry JSON as a string: read as what it is, it would stay a string.
           case when b.is_json then 'text' else format_type(a.atttypid, a.atttypmod) end
           || case when a.attcollation <> 0 and a.attcollation <> y.typcollation and not b.is_json then format(' collate %I.%I', s.nspname, c.collname) else '' end,
           case when b.is_json then format('r.%I::%s', a.attname, format_type(a.atttypid, a.atttypmod)) else format('r.%I', a.attname) end,
           not a.attnotnull, a.attgenerated <> '', a.attidentity = 'a'
      from pg_attribute a
      join pg_type y on y.oid = a.atttypid
      cross join lateral (select coalesce(nullif(y.typbasetype, 0), y.oid) in ('json'::regtype, 'jsonb'::regtype) as is_json) b
      left join pg_collation c on c.oid = a.attcollation
      left join pg_namespace s on s.oid = c.collnamespace
     where a.attrelid = i_target and a.attname = any (i_names) and a.attnum > 0 and not a.attisdropped
     order by a.attnum
$$;

-- skytools._apply_sql(i_target, i_events, i_columns, i_key, i_method, i_moves, i_later) -> text
-- The statement that folds events into one change for each row and makes those changes.
-- i_events   a query that gives n (the order), op, row and old_row (jsonb)
-- i_columns  the columns that each event has, among those of the target
-- i_key      the columns that identify a row; none: each event is an insert
-- i_moves    whether some update has its old row, and so may have changed the key
-- i_later    false: leave rows that were inserted and updated as they were inserted, but for merged. True: bring those rows to
--            their last state, and no others
-- returns    a statement that gives one row (inserted, updated, deleted, missing, later)
-- runs as    caller
create or replace function skytools._apply_sql(
    i_target regclass, i_events text, i_columns text[], i_key text[], i_method text, i_moves boolean, i_later boolean) returns text
language plpgsql stable as $$
declare
    v_target text := (select pg_catalog.format('%I.%I', n.nspname, c.relname)
                        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = i_target);
    v_record text := (select string_agg(format('%I %s', c.name, c.type), ', ') from skytools._apply_columns(i_target, i_columns) c);
    v_key_record text := (select string_agg(format('%I %s', c.name, c.type), ', ') from skytools._apply_columns(i_target, i_key) c);
    v_new text;
    v_old text;
    v_differs text;
    v_k text := '';
    v_match text;
    v_written text;
    v_values text;
    v_assign text;
    v_rest text[];
    v_identity boolean;
    v_overriding text;
    v_update boolean := i_method = 'correct';
    v_which text;
    v_state text;
begin
    -- In the statement, a column is called by its place: c1, c2 ... of the event, k1 ... of the key.
    select string_agg(format('%s as c%s', c.sql, c.n), ', ' order by c.n),
           string_agg(quote_ident(c.name), ', ' order by c.n) filter (where not c.generated),
           string_agg('f.c' || c.n, ', ' order by c.n) filter (where not c.generated),
           string_agg(format('%I = f.c%s', c.name, c.n), ', ' order by c.n) filter (where not c.generated and not c.identity),
           bool_or(c.identity and c.name = any (i_key)), case when bool_or(c.identity) then 'overriding system value ' else '' end
      into v_new, v_written, v_values, v_assign, v_identity, v_overriding
      from skytools._apply_columns(i_target, i_columns) with ordinality c (name, type, sql, nullable, generated, identity, n);
    select string_agg(format(', %s as k%s', regexp_replace(c.sql, '^r\.', 'o.'), c.n), '' order by c.n),
           string_agg(format('o.%1$I is distinct from r.%1$I', c.name), ' or '),
           string_agg(', k' || c.n, '' order by c.n),
           string_agg(format(case when c.nullable then 'array[t.%I] = array[f.k%s]' else 't.%I = f.k%s' end, c.name, c.n), ' and ')
      into v_old, v_differs, v_k, v_match
      from skytools._apply_columns(i_target, i_key) with ordinality c (name, type, sql, nullable, generated, identity, n);
    -- What the events do not have stays, even where an update is made by delete and insert.
    v_rest := array(select quote_ident(a.attname) from pg_catalog.pg_attribute a
                     where a.attrelid = i_target and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and a.attname <> all (i_columns)
                     order by a.attnum);
    if v_assign is null or i_moves and v_identity then
        v_update := false;
    end if;
    -- A delete that others follow by a foreign key is not half of an update.
    if v_assign is not null and exists (select from pg_catalog.pg_constraint c where c.confrelid = i_target and c.contype = 'f' and c.confdeltype in ('c', 'n', 'd')) then
        v_update := true;
    end if;

    if i_key = '{}' then
        return format('with "i" as (insert into %s (%s) %sselect %s from (select e.n, %s from (%s) e cross join lateral jsonb_to_record(e.row) as r (%s)) f order by f.n returning 1)'
                      ' select (select count(*) from "i") as inserted, 0::bigint as updated, 0::bigint as deleted, 0::bigint as missing, 0::bigint as later',
                      v_target, v_written, v_overriding, v_values, v_new, i_events, v_record);
    end if;

    v_state := case when i_later then 'f.born is not null and f.alive and f.last > f.born and not f.moved' else 'f.born is null and f.alive' end;
    v_which := case when i_method = 'merged' or i_later then 'f.last' else 'case when f.born is null or f.moved then f.last else f.born end' end;
    return 'with recursive '
        -- Each event, typed.
        || format('"e" as materialized (select e.n, %s, %s from (%s) e cross join lateral jsonb_to_record(e.row) as r (%s)%s)',
                  case when i_moves then format('case when e.op = ''U'' and e.old_row is not null and (%s) then ''a'' else lower(e.op) end as kind%s', v_differs, v_old)
                       else 'lower(e.op) as kind' end,
                  v_new, i_events, v_record,
                  case when i_moves then format(' left join lateral jsonb_to_record(e.old_row) as o (%s) on e.old_row is not null', v_key_record) else '' end)
        -- What happened to each key: inserted, updated, deleted, left, arrived at.
        || format(', "x" as (select e.n, e.kind%s from "e" e%s)',
                  (select string_agg(format(', e.c%s as k%s', d.n, c.n), '' order by c.n)
                     from skytools._apply_columns(i_target, i_key) with ordinality c (name, type, sql, nullable, generated, identity, n)
                     join skytools._apply_columns(i_target, i_columns) with ordinality d (name, type, sql, nullable, generated, identity, n)
                       on d.name = c.name),
                  case when i_moves then format(' union all select e.n, ''l''%s from "e" e where e.kind = ''a''', v_k) else '' end)
        -- A life under one key begins when the row is inserted or arrives, and ends when it is deleted or leaves.
        || format(', "y" as (select x.*, count(*) filter (where kind in (''i'', ''a'')) over (partition by %1$s order by n) as life from "x" x)'
                  ', "z" as materialized (select %1$s, min(n) filter (where kind = ''i'') as born, min(n) filter (where kind = ''a'') as arrived,'
                  ' min(n) filter (where kind = ''l'') as left_at, min(n) filter (where kind in (''d'', ''l'')) as ended, max(n) as last from "y" group by %1$s, life)',
                  substr(v_k, 3))
        -- The whole life of a row begins under its first key.
        || case when i_moves then
            format(', "w" as (select z.born, z.left_at, z.ended, z.last, false as moved%1$s from "z" z where z.arrived is null'
                   ' union all select w.born, z.left_at, z.ended, z.last, true%2$s from "w" w join "z" z on z.arrived = w.left_at and w.left_at = w.ended)'
                   ', "f" as materialized (select w.born, w.last, w.moved, w.ended is null as alive%2$s from "w" w where w.ended is null or w.left_at is distinct from w.ended)',
                   replace(v_k, ' k', ' z.k'), replace(v_k, ' k', ' w.k'))
           else ', "f" as (select z.*, false as moved, z.ended is null as alive from "z" z)' end
        || format(', "d" as (delete from %s t using "f" f where f.born is null and not f.alive and not %L::boolean and %s returning 1)', v_target, i_later, v_match)
        -- Each row that lives on, with its values. No statistics tell how many there are, and a full join is never a nested loop.
        || format(', "g" as materialized (select f.*%s from "f" f full join "e" e on e.n = %s where coalesce(f.alive, false))',
                  (select string_agg(', e.c' || n, '' order by n) from generate_series(1, cardinality(i_columns)) n), v_which)
        || case when v_update then
            format(', "u" as (update %s t set %s from "g" f where %s and %s and (select count(*) from "d") >= 0 returning 1)',
                   v_target, v_assign, v_state, v_match)
           else
            format(', "o" as (delete from %1$s t using "g" f where %2$s and %3$s and (select count(*) from "d") >= 0 returning f.*%4$s)'
                   ', "u" as (insert into %1$s (%5$s) overriding system value select %6$s from "o" f where (select count(*) from "o") >= 0 returning 1)',
                   v_target, v_state, v_match, (select coalesce(string_agg(format(', t.%s as r%s', c, n), ''), '') from unnest(v_rest) with ordinality u (c, n)),
                   concat_ws(', ', v_written, nullif(array_to_string(v_rest, ', '), '')),
                   concat_ws(', ', v_values, (select string_agg('f.r' || n, ', ' order by n) from generate_series(1, cardinality(v_rest)) n)))
           end
        || format(', "i" as (insert into %s (%s) %sselect %s from "g" f where f.born is not null and not %L::boolean and (select count(*) from "u") >= 0 order by f.born returning 1)',
                  v_target, v_written, v_overriding, v_values, i_later)
        || format(' select (select count(*) from "i") as inserted, (select count(*) from "u") as updated, (select count(*) from "d") as deleted,'
                  ' case when %1$L::boolean then 0 else (select count(*) from "f" f where f.born is null) - (select count(*) from "d") - (select count(*) from "u") end as missing,'
                  ' (select count(*) from "f" f where f.born is not null and f.alive and f.last > f.born and not f.moved) as later', i_later);
end $$;

-- skytools._refuse_event(i_event) -> boolean
-- Stop a statement that meets an event with other columns than the rest.
-- raises     PQ029
-- runs as    caller
create or replace function skytools._refuse_event(i_event bigint) returns boolean
language plpgsql as $$
begin
    raise exception 'event % has other columns than those before it', i_event
        using errcode = 'PQ029', hint = 'the table was altered meanwhile: apply the batch row by row';
end $$;

-- skytools._apply_key(i_target, i_key, i_columns) -> text[]
-- The columns by which events find their rows: those given, else the target's primary key.
-- i_columns  the columns that events have
-- returns    in the target's order
-- raises     PQ024  none, or one that the events or the target do not have
-- runs as    caller
create or replace function skytools._apply_key(i_target regclass, i_key text[], i_columns text[]) returns text[]
language plpgsql stable as $$
declare
    v_key text[] := i_key;
    v_bad text;
begin
    if coalesce(v_key, '{}') = '{}' then
        v_key := array(select a.attname::text
                         from pg_catalog.pg_index i, unnest(i.indkey::smallint[]) with ordinality k (num, n), pg_catalog.pg_attribute a
                        where i.indrelid = i_target and i.indisprimary and k.n <= i.indnkeyatts and a.attrelid = i_target and a.attnum = k.num);
    end if;
    if v_key = '{}' then
        raise exception 'neither the events nor table % have a key', i_target
            using errcode = 'PQ024', hint = 'say which columns identify a row: key => array[''id'']';
    end if;
    select string_agg(quote_ident(k), ', ') into v_bad
      from unnest(v_key) k
     where k <> all (i_columns) or k not in (select c.name from skytools._apply_columns(i_target, v_key) c);
    if v_bad is not null then
        raise exception 'key of %: the events or the table have no column %', i_target, v_bad
            using errcode = 'PQ024', hint = 'say which columns identify a row: key => array[''id'']';
    end if;
    return array(select c.name from skytools._apply_columns(i_target, v_key) c);
end $$;

-- skytools._apply_names(i_target, i_row, i_columns, i_event) -> text[]
-- The columns of a target that an event sets.
-- i_columns  only these; null: all, which the target must have
-- raises     PQ024  the target has no such column
-- raises     PQ029  the event has no row, or one with columns that the target lacks
-- runs as    caller
create or replace function skytools._apply_names(i_target regclass, i_row jsonb, i_columns text[], i_event bigint) returns text[]
language plpgsql stable as $$
declare
    v_names text[];
    v_has text[];
    v_bad text;
begin
    if jsonb_typeof(i_row) is distinct from 'object' then
        raise exception 'event %: its data is not a row', i_event
            using errcode = 'PQ029', hint = 'rows are JSON objects or urlencoded: name=value&name=value';
    end if;
    v_has := array(select jsonb_object_keys(i_row));
    v_names := array(select c.name from skytools._apply_columns(i_target, coalesce(i_columns, v_has)) c);
    select string_agg(quote_ident(k), ', ') into v_bad from unnest(coalesce(i_columns, v_has)) k where k <> all (v_names);
    if v_bad is not null and i_columns is not null then
        raise exception 'table % has no column %', i_target, v_bad
            using errcode = 'PQ024', hint = 'columns names those to take from the events, all of them if it is null';
    elsif v_bad is not null then
        raise exception 'event %: table % has no column %', i_event, i_target, v_bad
            using errcode = 'PQ029', hint = 'add it, or name those to take from the events: columns => array[...]';
    end if;
    return array(select n from unnest(v_names) n where n = any (v_has));
end $$;

-- skytools.apply_events(batch_id, target, ...) -> record
-- Apply the events of a captured table in an open batch to a table, as a set. It ends as if they had been applied one by one.
-- batch_id   an open batch; finish it in the same transaction
-- target     the table to change
-- method     correct: updates are updates, a row that was inserted and then updated is so here too; delete: updates are a
--            delete and an insert; merged: as delete, and a row that was inserted and then updated is inserted once, as it was last
-- source     ev_extra1 of the events to apply; default: the target's own name, schema.table without quotes
-- key        the columns that identify a row; default: the key in the events, else the target's primary key
-- columns    the columns to take from the events; default: all, and the target must have them
-- returns    one row: events applied, rows inserted, updated, deleted; missing: rows to update or delete that the target lacks;
--            truncated: it was emptied first; set_wise: false when the events had to be applied one by one
-- raises     PQ003  no such open batch
-- raises     PQ024  an argument is wrong: the method, a column, no key
-- raises     PQ029  an event is not of a captured table, is of format sql, or has columns that the target lacks
-- locks      the rows that it changes; a TRUNCATE locks the table
-- runs as    caller, who needs pgq_reader and the rights to change the target
-- see        docs/batch-updates.md
create or replace function skytools.apply_events(
    batch_id bigint, target regclass, method text default 'merged', source text default null, key text[] default null, columns text[] default null,
    out events bigint, out inserted bigint, out updated bigint, out deleted bigint, out missing bigint, out truncated boolean, out set_wise boolean)
language plpgsql set jit = off set work_mem = '64MB' set enable_nestloop = on as $$
#variable_conflict use_variable
declare
    v_source text := coalesce(source, (select n.nspname || '.' || c.relname
                                         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = target));
    v_batch text;
    v_type text;
    v_count bigint;
    v_first bigint;
    v_last bigint;
    v_extras bigint;
    v_data text;
    v_kind record;
    v_format text;
    v_key text[];
    v_after bigint := 0;
    v_ops text := '';
    v_all text := '';
    v_old bigint := 0;
    v_row jsonb;
    v_has text[];
    v_names text[];
    v_decode text;
    v_events text;
    v_later bigint;
    v_second bigint;
begin
    if coalesce(method, '') not in ('correct', 'delete', 'merged') then
        raise exception 'apply_events to %: method is %', coalesce(target::text, 'NULL'), quote_nullable(method)
            using errcode = 'PQ024', hint = 'method: correct, delete or merged';
    elsif v_source is null then
        raise exception 'no table to change: %', coalesce(target::text, 'NULL')
            using errcode = 'PQ024', hint = 'select skytools.apply_events(batch_id, ''app.orders'')';
    end if;
    v_batch := pgq._batch_query(batch_id, pg_catalog.format(' and ev.ev_extra1 = %L', v_source));
    events := 0; inserted := 0; updated := 0; deleted := 0; missing := 0; truncated := false; set_wise := true;

    -- A table's events have few types. Those before the last TRUNCATE do not matter.
    for v_type, v_count, v_first, v_last, v_extras in
        execute format('select b.ev_type as type, count(*) as n, min(b.ev_id) as first, max(b.ev_id) as last, count(b.ev_extra2) as old from (%s) b group by 1', v_batch)
    loop
        v_kind := skytools._event_kind(v_type);
        events := events + v_count;
        if v_kind.op is null or v_kind.format = 'sql' then
            raise exception 'event % of batch %: type % is not one that can be applied', v_first, batch_id, quote_nullable(v_type)
                using errcode = 'PQ029', hint = 'capture the table as json or urlencode, and leave event_type as it is: select pgq.capture(''table'', ''queue'')';
        elsif v_kind.op = 'R' then
            truncated := true;
            v_after := greatest(v_after, v_last);
            continue;
        end if;
        set_wise := set_wise and coalesce(v_format = v_kind.format and v_key = v_kind.key, true);
        v_format := v_kind.format;
        v_key := v_kind.key;
        v_all := v_all || v_kind.op;
        v_old := v_old + case v_kind.op when 'U' then v_extras else 0 end;
        v_ops := v_ops || format(' when %L then %L', v_type, v_kind.op);
    end loop;
    if truncated then
        if exists (select from pg_catalog.pg_constraint c where c.confrelid = target and c.contype = 'f') then
            execute format('delete from %s', target);
        else
            execute format('truncate %s', target);
        end if;
    end if;
    v_batch := format('select * from (%s) b where b.ev_id > %s', v_batch, v_after);
    execute format('select b.ev_id as id, b.ev_data as data from (%s) b order by b.ev_id limit 1', v_batch) into v_first, v_data;
    if v_first is null then
        return;
    end if;

    -- Nothing tells the planner how many events there are: with so many, each row of the target is read but once.
    if v_old > 1000 or events > (select c.reltuples / 20 from pg_catalog.pg_class c where c.oid = target) then
        perform pg_catalog.set_config('enable_nestloop', 'off', true);
    end if;
    if set_wise then
        begin
            v_row := skytools._decode_row(v_data);
            v_names := skytools._apply_names(target, v_row, columns, v_first);
            v_has := array(select jsonb_object_keys(v_row));
            v_key := coalesce(nullif(key, '{}'), v_key);
            if v_key <> '{}' or v_all ~ '[UD]' then
                v_key := skytools._apply_key(target, v_key, v_names);
            end if;
            v_decode := case v_format when 'json' then '%s::pg_catalog.jsonb' else 'skytools._decode_row(%s)' end;
            v_events := format('select q.n, q.op, q.row, case when q.old ?& %2$L then q.old end as old_row from (select b.ev_id as n, case b.ev_type%3$s end as op, %4$s as row, %5$s as old from (%1$s) b offset 0) q'
                               ' where (q.row ?& %6$L and q.row - %6$L::text[] = ''{}'') is true or skytools._refuse_event(q.n)',
                               v_batch, v_key, v_ops, format(v_decode, 'b.ev_data'),
                               case when v_old > 0 then 'skytools._decode_row(b.ev_extra2)' else 'null::jsonb' end, v_has);
            execute skytools._apply_sql(target, v_events, v_names, v_key, method, v_old > 0, false)
               into inserted, updated, deleted, missing, v_later;
            if method <> 'merged' and v_later > 0 then
                execute skytools._apply_sql(target, v_events, v_names, v_key, method, v_old > 0, true) into v_later, v_second;
                updated := updated + v_second;
            end if;
            return;
        exception
            -- Other events in between may be what makes it possible, and if not, the replay names the event that fails.
            when integrity_constraint_violation or data_exception or sqlstate 'PQ029' then
                set_wise := false;
        end;
    end if;
    select r.inserted, r.updated, r.deleted, r.missing into inserted, updated, deleted, missing
      from skytools._replay_events(batch_id, target, v_batch, key, columns) r;
end $$;

-- skytools._replay_events(i_batch_id, i_target, i_batch, i_key, i_columns) -> record
-- Apply events to a table one by one, in their order.
-- i_batch    a query that gives them
-- raises     PQ024  no key
-- raises     PQ029  an event's data is no row, or has columns that the target lacks
-- raises     what the target says, with the event in the message
-- runs as    caller
create or replace function skytools._replay_events(
    i_batch_id bigint, i_target regclass, i_batch text, i_key text[], i_columns text[],
    out inserted bigint, out updated bigint, out deleted bigint, out missing bigint)
language plpgsql as $$
declare
    v_target text := (select format('%I.%I', n.nspname, c.relname)
                        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = i_target);
    v_id bigint;
    v_type text;
    v_data text;
    v_extra text;
    v_kind record;
    v_row jsonb;
    v_old jsonb;
    v_names text[];
    v_key text[];
    v_moved boolean;
    v_shape text;
    v_last text;
    v_made boolean;
    v_sql text;
    v_count bigint;
    v_state text;
    v_detail text;
    v_hint text;
    v_constraint text;
    v_column text;
begin
    inserted := 0; updated := 0; deleted := 0; missing := 0;
    for v_id, v_type, v_data, v_extra in
        execute format('select b.ev_id as id, b.ev_type as type, b.ev_data as data, b.ev_extra2 as old from (%s) b order by 1', i_batch)
    loop
        v_row := skytools._decode_row(v_data);
        -- All that follows from the type and the columns is worked out when they differ from those of the event before.
        v_shape := concat_ws(' ', v_type, case when jsonb_typeof(v_row) = 'object' then array(select to_json(k) from jsonb_object_keys(v_row) k) end);
        if v_shape is distinct from v_last then
            v_last := v_shape;
            v_kind := skytools._event_kind(v_type);
            v_names := skytools._apply_names(i_target, v_row, i_columns, v_id);
            v_key := coalesce(nullif(i_key, '{}'), v_kind.key);
            if v_kind.op <> 'I' then
                v_key := skytools._apply_key(i_target, v_key, v_names);
            end if;
            v_made := null;
        end if;
        v_old := v_row;
        v_moved := false;
        if v_kind.op = 'U' and v_extra is not null then
            v_old := skytools._decode_row(v_extra);
            if (v_old ?& v_key) is not true then
                v_old := v_row;
            end if;
            v_moved := exists (select from unnest(v_key) k where v_old->k is distinct from v_row->k);
        end if;
        if v_made is distinct from v_moved then
            v_sql := skytools._replay_sql(v_target, i_target, v_kind.op, v_names, v_key, v_moved);
            v_made := v_moved;
        end if;
        execute v_sql using v_row, v_old;
        get diagnostics v_count = row_count;
        inserted := inserted + case v_kind.op when 'I' then v_count else 0 end;
        updated := updated + case v_kind.op when 'U' then v_count else 0 end;
        deleted := deleted + case v_kind.op when 'D' then v_count else 0 end;
        missing := missing + case when v_kind.op <> 'I' and v_count = 0 then 1 else 0 end;
    end loop;
exception when integrity_constraint_violation or data_exception then
    get stacked diagnostics v_state = returned_sqlstate, v_detail = pg_exception_detail, v_hint = pg_exception_hint,
        v_constraint = constraint_name, v_column = column_name;
    raise exception 'event % of batch %: %', v_id, i_batch_id, sqlerrm
        using errcode = v_state, detail = v_detail, constraint = v_constraint, column = v_column, table = i_target::text,
              hint = coalesce(nullif(v_hint, ''), 'the table and the events do not fit: copy the table anew, or leave the event out');
end $$;

-- skytools._replay_sql(i_target_name, i_target, i_op, i_columns, i_key, i_moved) -> text
-- The statement that applies one event: $1 is its row, $2 has the key of the row to change.
-- runs as    caller
create or replace function skytools._replay_sql(
    i_target_name text, i_target regclass, i_op text, i_columns text[], i_key text[], i_moved boolean) returns text
language sql stable as $$
    select case i_op
        when 'I' then format('insert into %s (%s) %sselect %s from jsonb_to_record($1) as r (%s)', i_target_name, c.written,
                             case when c.identity then 'overriding system value ' else '' end, c.values, c.record)
        -- Where there is nothing to set, whether the row is there still counts.
        when 'U' then case when c.assign is null then format('select from %s t, (select %s from jsonb_to_record($2) as r (%s)) f where %s', i_target_name, k.old, k.record, k.match)
             else format('update %s t set %s from jsonb_to_record($1) as r (%s), (select %s from jsonb_to_record($2) as r (%s)) f where %s',
                             i_target_name, c.assign, c.record, k.old, k.record, k.match) end
        else format('delete from %s t using (select %s from jsonb_to_record($2) as r (%s)) f where %s', i_target_name, k.old, k.record, k.match)
        end
      from (select string_agg(format('%I %s', c.name, c.type), ', ') as record,
                   string_agg(quote_ident(c.name), ', ' order by c.n) filter (where not c.generated) as written,
                   string_agg(c.sql, ', ' order by c.n) filter (where not c.generated) as values,
                   string_agg(format('%I = %s', c.name, c.sql), ', ') filter (where not c.generated and (i_moved or not c.identity)) as assign,
                   bool_or(c.identity) as identity
              from skytools._apply_columns(i_target, i_columns) with ordinality c (name, type, sql, nullable, generated, identity, n)) c,
           (select string_agg(format('%I %s', k.name, k.type), ', ') as record,
                   string_agg(format('%s as k%s', k.sql, k.n), ', ') as old,
                   string_agg(format(case when k.nullable then 't.%I is not distinct from f.k%s' else 't.%I = f.k%s' end, k.name, k.n), ' and ') as match
              from skytools._apply_columns(i_target, i_key) with ordinality k (name, type, sql, nullable, generated, identity, n)) k
$$;

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

-- generated by npm run generate from the headers in sql/: do not edit

comment on function skytools.version() is
    'The version of the installed bundle';
comment on function skytools.protect(text) is
    'Mark this database, so that whatever destroys queues (wipe, reset, uninstall ...) refuses it unless it is named';
comment on function skytools.unprotect() is
    'Take the mark of skytools.protect() away';
comment on function skytools.protection() is
    'Why this database is protected';
comment on function skytools.refuse_protected(text, text) is
    'Refuse to destroy anything in a protected database';
comment on function skytools._batch_sql(text, regclass, text, text[], jsonb) is
    'Write the statement that changes a table by the rows of a source, and counts what it did';
comment on function skytools._batch_is_plain(regclass) is
    'Whether rows of a table are found by its own index alone';
comment on function skytools._batch_moved(text) is
    'Refuse a statement that was written some time ago for another table than its name means now';
comment on function skytools._batch_ordered(text) is
    'Run a statement of skytools._batch_sql() so that an ordered one meets its rows in the order of their keys';
comment on function skytools._batch_fold(regclass, text, text[], text[], text, text, jsonb) is
    'Write the query that gives each key of a source once';
comment on function skytools._batch_value(regclass, text, text) is
    'SQL for a value as a column would hold it, to be compared with what that holds';
comment on function skytools._batch_missing(text, text[]) is
    'Run the part of a statement that counts what the table lacks, as the calling statement sees it';
comment on function skytools._refuse_repeated(text, jsonb) is
    'Stop a batch whose source has a key twice';
comment on function skytools._batch(text, regclass, text, text, interval, jsonb) is
    'Run the statement that skytools._batch_sql() writes, as its concurrency asks for';
comment on function skytools._batch_run(text) is
    'Run a statement of skytools._batch_sql(), an ordered one in the order of its keys';
comment on function skytools._batch_source(text) is
    'A source as a FROM item';
comment on function skytools._batch_columns(text) is
    'The columns of a FROM item, without running it';
comment on function skytools.batch_update(regclass, text, text[], text[], jsonb, text, jsonb, text, text, text, interval, bool, bool) is
    'Update the rows of a table that a source names by key, in one statement';
comment on function skytools.batch_upsert(regclass, text, text[], text[], jsonb, text, jsonb, text, text, interval, bool, bool) is
    'Update the rows of a table that a source names by key, and insert those that are not there, in one statement';
comment on function skytools.batch_delete(regclass, text, text[], text, jsonb, text, text, text, interval, bool) is
    'Delete the rows of a table that a source names by key, in one statement';
comment on function skytools.batch_merge(regclass, text, text[], text[], jsonb, text, jsonb, text, text, text, interval, bool, bool) is
    'Make a table, or a part of it, like a source';
comment on function pgq.version() is
    'The version of the queue schema; the ticker daemon pgqd works with any that begins with 3 or more';
comment on function pgq.quote_fqname(text) is
    'Quote a possibly qualified name for use in SQL; it is split at its first dot';
comment on function pgq.seq_getval(text) is
    'The last value of a sequence, which is not advanced; 1 for one that was never used';
comment on function pgq.seq_setval(text, int8) is
    'Move a sequence forward; it never goes back';
comment on function pgq._position(int4) is
    'The newest position of a subscription';
comment on function pgq._move(int4, int4, int8, int8, int8, int8, timestamptz, text) is
    'Move a subscription on from the position that pgq._position() gave as slot and seq';
comment on function pgq._set_position(int4, int8, int8, int8, timestamptz) is
    'Put a subscription at a position, whatever it was before';
comment on function pgq._hold_position(int4) is
    'Keep a subscription where it is until the transaction ends';
comment on function pgq._find_batch(int8) is
    'The subscription that has this batch open';
comment on function pgq.maint_rotate_positions() is
    'Go over to the empty slot of the position log and take along the subscriptions that stayed in the oldest one';
comment on function pgq._write_subscription() is
    'INSERT, UPDATE and DELETE on the view pgq.subscription';
comment on function pgq.set_wakeup(text, bool) is
    'Have the producers of a queue wake the ticker and its ticks wake the consumers, so that an event is on its way within milliseconds; or no longer';
comment on function pgq._wakes(int4) is
    'Whether a queue has wake-up on';
comment on function pgq.wakeup_polling(bool) is
    'A ticker says whether it looks for events by itself, so that producers need not notify';
comment on function pgq.tick_now(text) is
    'Make a tick for one queue whatever its settings, if there are committed events that no tick covers yet';
comment on function pgq.tick_new() is
    'Make ticks for all queues that have wake-up on and committed events that no tick covers yet';
comment on function pgq._has_new_events(int4) is
    'Whether there are committed events that the queue''s newest tick does not cover';
comment on function pgq._event_table(int4, int4) is
    'The name of a queue''s data table';
comment on function pgq._event_seq(int4) is
    'The sequence of a queue''s event ids';
comment on function pgq._make_queue_code(pgq.queue) is
    'Write the functions of one queue';
comment on function pgq._queue_functions(int4) is
    'The functions that were generated for a queue';
comment on function pgq._name_tree(text[], int4[], text, text, int4, int4) is
    'PL/pgSQL that finds a queue by name, by binary search, and makes a call for it';
comment on function pgq._make_insert_event() is
    'Write pgq.insert_event() and pgq.insert_events() for the queues that there are now';
comment on function pgq.refresh_code() is
    'Generate the code of every queue anew, and pgq.insert_event(), and drop the code of triggers that are gone; for after a restore or a repair by hand';
comment on function pgq._lock_queue_set() is
    'One transaction at a time changes the set of queues';
comment on function pgq._queue_changed() is
    'Keep the generated code in step with pgq.queue';
comment on function pgq._sealed() is
    'Guards a data table that takes no more events (see pgq.maint_rotate_tables_step2())';
comment on function pgq.create_queue(text) is
    'Create a queue with its tables, sequences, code and first tick';
comment on function pgq.drop_queue(text, bool) is
    'Drop a queue with everything in it';
comment on function pgq.drop_queue(text) is
    'Drop a queue that has no consumers';
comment on function pgq._grant_perms_from(text, text, text, text) is
    'Copy the table privileges of one table, with their grant options, to another; those of the owner are left out';
comment on function pgq.grant_perms(text) is
    'Give a queue''s tables the privileges of pgq.event_template, and its sequences those of every queue';
comment on function pgq.tune_storage(text) is
    'Set storage parameters that suit event tables';
comment on function pgq.set_queue_config(text, text, text) is
    'Change a setting of a queue';
comment on function pgq.insert_event_raw(text, int8, timestamptz, int4, int4, text, text, text, text, text, text) is
    'Put an event with given id, time, owner and retry count into a queue';
comment on function pgq.current_event_table(text) is
    'The table that takes a queue''s events now, for INSERT and COPY straight into it';
comment on function pgq._check_arrays(text, text[], text[], text[], text[], text[], text[]) is
    'See that the arrays of pgq.insert_events() fit together';
comment on function pgq.insert_events(text, jsonb[]) is
    'Put many events into a queue in one call, each given as a JSON object';
comment on function pgq.insert_json(text, text, jsonb, text, text, text, text) is
    'Put an event with a JSON payload into a queue; pgq.get_batch_json() reads it back as jsonb';
comment on function pgq.get_batch_json(int8) is
    'The events of an open batch, with ev_data as jsonb';
comment on function pgq.insert_event_at(text, timestamptz, text, text, text, text, text, text) is
    'Put an event into a queue at a later time, if the caller''s transaction commits';
comment on function pgq.cancel_event_at(text, int8) is
    'Withdraw an event that waits for its time';
comment on function pgq.maint_delayed_events() is
    'Put delayed events whose time has come into their queues, the longest due first';
comment on function pgq.insert_event_once(text, text, interval, text, text, text, text, text, text) is
    'Put an event into a queue unless one with the same key was put in within the window';
comment on function pgq.maint_expire_keys() is
    'Delete keys of pgq.insert_event_once() whose window is over';
comment on function pgq._base_type(oid) is
    'What a domain is made of in the end; other types as they are';
comment on function pgq._table_columns(regclass) is
    'The columns of a table that an event can hold, in the table''s order; virtual generated ones have no value in a trigger';
comment on function pgq._key_columns(regclass) is
    'The columns of the primary key, in the order of its index, and then those that it includes';
comment on function pgq._shape(regclass) is
    'A hash of what generated code supposes about a table';
comment on function pgq._text_of(text, oid) is
    'SQL for a value''s text as the type''s output function writes it; null for null';
comment on function pgq._encode_value(text, oid, text) is
    'SQL for a value in one of the formats; null for null';
comment on function pgq._differs(oid, text, text) is
    'SQL that tells whether two values differ';
comment on function pgq._encode_join(text[], text) is
    'SQL that joins what is not null of any number of texts';
comment on function pgq._urlencode(text) is
    'Text as in the query of a URL';
comment on function pgq._urlencode_common(text) is
    'SQL that does what pgq._urlencode() does, for an expression of letters, digits and _ ';
comment on function pgq._urlencode_columns(regclass, name[], text) is
    'How each column goes into a row';
comment on function pgq._urlencode_row(regclass, name[], text) is
    'SQL for a row as in the query of a URL';
comment on function pgq._encode_row(regclass, text, name[], text) is
    'SQL for the event data of a row, never null';
comment on function pgq._encode_json_from(regclass, name[], text) is
    'SQL for a FROM item of which row_to_json() makes what pgq._encode_row() does, in fewer steps';
comment on function pgq._null_key(text, text) is
    'Refuses a null where a row is looked for by its key';
comment on function pgq._encode_sql_key(regclass, name[], text) is
    'SQL for a condition that finds a row by its key';
comment on function pgq._encode_changed(regclass, name[], text, text) is
    'SQL that tells whether any of the columns differs between two rows; false where there are none';
comment on function pgq._encode_sql_update(regclass, name[], name[], text, text) is
    'SQL for what an UPDATE changed';
comment on function pgq._trigger_arguments(text[], int4) is
    'Read the arguments of a trigger that logs events';
comment on function pgq._put_values(text, name[], text) is
    'Put fields of a record in the place of column names in an expression';
comment on function pgq._one_value(text[]) is
    'The only element of what an expression gave';
comment on function pgq._condition_holds(anyarray) is
    'What a when= expression gave';
comment on function pgq._trigger_shape(regclass, name) is
    'A hash of what generated code supposes about a trigger and its table; immutable as pgq._shape() is';
comment on function pgq._trigger_definition(oid, name) is
    'The kind and arguments of a trigger that logs events';
comment on function pgq._trigger_event(oid, text, text, name[], text, name[], bool) is
    'SQL for the six fields of an event about a row in i_new, or a change of i_old to i_new';
comment on function pgq._trigger_plain(oid) is
    'Whether the values of a table read the same whoever reads them, with any search_path, and run no code but Postgres'' own';
comment on function pgq._trigger_body(oid, name, int4) is
    'PL/pgSQL that logs the event of one row, for the function that pgq._trigger_code() makes';
comment on function pgq._trigger_code(oid, name) is
    'Make the function of a trigger';
comment on function pgq._grant_trigger_code(regproc) is
    'Let those who may execute pgq.insert_event() execute the code of a trigger';
comment on function pgq._drop_queue_code(int4) is
    'Drop what was generated for triggers and puts events into the tables of a queue that is gone, or has another name now';
comment on function pgq._drop_trigger_code() is
    'Drop what was generated for triggers that are gone, or for sessions that have ended';
comment on function pgq._truncate_event(oid, name, text) is
    'The event of a TRUNCATE';
comment on function pgq._capture_has_equality(oid) is
    'Whether = finds the values of a type again; json, xml, geometric types and composites are compared as text';
comment on function pgq._capture_key_sql(regclass, name[], text) is
    'SQL for the condition that finds a row by its key, as in';
comment on function pgq._capture_comparable(oid, text) is
    'SQL for what differs between two values where their texts do';
comment on function pgq._capture_differs(regclass, name[]) is
    'SQL that tells whether any of these columns differs between old and new; its names are qualified';
comment on function pgq._capture_sql_update(regclass, name[], name[]) is
    'SQL for what follows UPDATE t SET';
comment on function pgq._capture_key(regclass, jsonb) is
    'The key columns by which a captured row is known';
comment on function pgq._capture_unique(regclass, jsonb) is
    'Whether the key columns are those of a unique index that is never violated, not even within a statement';
comment on function pgq._capture_columns(pgq.captured) is
    'The columns that a capture takes, as the table has them now; virtual generated ones are never stored, so never taken';
comment on function pgq._capture_key_value(regclass, name[], text) is
    'SQL for the key of a row as one value, which differs where what its columns show as text does';
comment on function pgq._capture_same_keys(regclass, name[], bool, bool) is
    'SQL that tells whether the keys of old_rows and new_rows are the same, row by row';
comment on function pgq._capture_event(pgq.captured, text, bool) is
    'What an event is made of, in SQL over the rows new and old';
comment on function pgq._capture_select(pgq.captured, text, text, bool, bool) is
    'The SELECT that turns the rows new and old into events';
comment on function pgq._capture_pairs(pgq.captured) is
    'Whether every update needs the old rows beside the new ones; else only one that changes keys does';
comment on function pgq._capture_writes(pgq.captured) is
    'Whether a capture inserts into the queue''s table itself';
comment on function pgq._capture_insert(pgq.captured, text, int4, text, bool, bool) is
    'The statement that stores the events of a change';
comment on function pgq._capture_rows(text, text, text) is
    'SQL for a FROM item with the rows new and old of a trigger by row';
comment on function pgq._capture_statement(int4, text) is
    'What a trigger function runs by EXECUTE, with $1 = new and $2 = old, when its table has changed since it was generated';
comment on function pgq._capture_qualified(pgq.captured) is
    'Whether a trigger by row, or what an update of one row runs by statement, finds all its names in pg_catalog and pgq, whatever the search_path';
comment on function pgq._capture_code(pgq.captured, text, int4) is
    'PL/pgSQL for one operation';
comment on function pgq._capture_slots(pgq.captured, text[], text) is
    'PL/pgSQL that does what is said for the queue''s current table, if the captured table still has the shape that cap_shape says';
comment on function pgq._capture_functions(int4) is
    'The functions that were generated for a capture';
comment on function pgq._capture_one_update(pgq.captured) is
    'PL/pgSQL for an update of one row and no key, as most are, after which it returns; what follows is for all others';
comment on function pgq._capture_fixed(text) is
    'PL/pgSQL that runs statements with the settings of other captures, in a function that has none of its own';
comment on function pgq._capture_operations(pgq.captured, text[]) is
    'PL/pgSQL for these operations, whatever the current table, and whether the captured table has changed or not';
comment on function pgq._make_capture_code(pgq.captured) is
    'Write the trigger functions of a captured table, and note the table''s shape';
comment on function pgq._capture_options(regclass, text, jsonb) is
    'Options as they are stored';
comment on function pgq._capture_level(regclass) is
    'How a table is captured unless told otherwise';
comment on function pgq._store_capture(regclass, text, jsonb) is
    'Store what pgq.capture() was told, and write the trigger function';
comment on function pgq._lock_captures() is
    'One transaction at a time changes captures; nobody who changes a captured table waits for it';
comment on function pgq._capture_triggers(int4, regclass, text, text[]) is
    'Put the triggers of a capture where they are missing';
comment on function pgq.capture(regclass, text, jsonb) is
    'Turn every change of a table into an event in a queue, by triggers generated for that table';
comment on function pgq._drop_capture(int4, bool) is
    'Drop the triggers and the function of a capture';
comment on function pgq.uncapture(regclass, text) is
    'End the capture of a table into a queue; the events that there are stay';
comment on function pgq._refresh_captures() is
    'Write the functions of stale captures anew, and forget captures whose tables are gone';
comment on function pgq.refresh_capture() is
    'Generate the code of captures anew whose tables have changed, and put triggers on new child tables';
comment on function pgq.register_consumer(text, text) is
    'Subscribe a consumer to a queue';
comment on function pgq.register_consumer_at(text, text, int8) is
    'Subscribe a consumer to a queue at a tick, or move a subscribed one there; a batch that it has open is then dropped';
comment on function pgq._forget_names(int4[]) is
    'Delete those of the consumer names that nobody uses any more';
comment on function pgq.unregister_consumer(text, text) is
    'End a subscription, its subconsumers'' too';
comment on function pgq.find_tick_helper(int4, int8, timestamptz, int8, int8, interval) is
    'The tick that ends a batch of at least so many events, or so long a time';
comment on function pgq._batch_end(int4, int8, timestamptz, int8, interval, int4, interval) is
    'The tick that ends the next batch';
comment on function pgq.next_batch_custom(text, text, interval, int4, interval) is
    'Open the consumer''s next batch, or give the one that it has open';
comment on function pgq.next_batch_info(text, text) is
    'Open the consumer''s next batch, or give the one that it has open';
comment on function pgq.next_batch(text, text) is
    'Open the consumer''s next batch, or give the one that it has open';
comment on function pgq._open_batch(int8) is
    'What is needed to read an open batch';
comment on function pgq.batch_event_tables(int8) is
    'The tables in which the events of an open batch are';
comment on function pgq._batch_query(int8, text) is
    'The query that gives a batch''s events';
comment on function pgq.batch_event_sql(int8) is
    'The query that gives the events of an open batch, in the order of their ids';
comment on function pgq.get_batch_events(int8) is
    'The events of an open batch, in the order of their ids';
comment on function pgq.get_batch_cursor(int8, text, int4, text) is
    'Declare a cursor over a batch''s events and fetch the first of them; FETCH from the cursor gives the rest';
comment on function pgq.get_batch_cursor(int8, text, int4) is
    'Declare a cursor over a batch''s events and fetch the first of them';
comment on function pgq.get_batch_info(int8) is
    'Queue, consumer and ticks of an open batch';
comment on function pgq.event_retry(int8, int8, timestamptz) is
    'Have one event of an open batch delivered again, to this consumer alone; it counts when the batch''s transaction commits';
comment on function pgq._retry_insert(text, int8) is
    'The statement that puts events into the retry queue of the subscription that has the batch open';
comment on function pgq.event_retry(int8, int8, int4) is
    'Have one event of an open batch delivered again, to this consumer alone';
comment on function pgq.event_retry(int8, int8, text) is
    'Have one event of an open batch delivered again';
comment on function pgq.batch_retry(int8, int4) is
    'Have all events of an open batch delivered again, to this consumer alone';
comment on function pgq.event_retry_raw(text, text, timestamptz, int8, timestamptz, int4, text, text, text, text, text, text) is
    'Have an event, given in full, delivered to one consumer';
comment on function pgq.maint_retry_events() is
    'Put events whose time to be retried has come back into their queues, the longest due first; call again until it gives 0';
comment on function pgq.event_dead(int8, int8, text) is
    'Put an event of an open batch among the dead letters of its consumer; it counts when the batch''s transaction commits';
comment on function pgq.dead_letter_replay(text, text, int8) is
    'Have dead letters delivered again, to their consumer alone, as if never tried';
comment on function pgq.dead_letter_purge(text, text, int8, timestamptz) is
    'Delete dead letters for good';
comment on function pgq._refuse_lost_batch(int8, int4, text) is
    'Tell a session that a batch which it had opened was taken over by another worker';
comment on function pgq.finish_batch(int8) is
    'Close a batch';
comment on function pgq.pause_consumer(text, text) is
    'Give a consumer no batch until it is resumed, not even the one that it has open; a worker that holds it may finish it';
comment on function pgq.resume_consumer(text, text) is
    'Let a paused consumer go on where it was';
comment on function pgq._subscription_key(text, text) is
    'The sub_key of a subscription';
comment on function pgq.pause_queue(text) is
    'Stop the ticks of a queue';
comment on function pgq.resume_queue(text) is
    'Let a paused queue tick again';
comment on function pgq.note_failure(text, text, text) is
    'Note that the batch of a consumer has failed again';
comment on function pgq.clear_failure(text, text) is
    'Note that a consumer gets on again';
comment on function pgq.seek_consumer(text, text, int8) is
    'Move a consumer to a tick, back or forward';
comment on function pgq.seek_consumer(text, text, timestamptz) is
    'Move a consumer to the newest tick that is not after a time';
comment on function pgq.seek_consumer(text, text, text) is
    'Move a consumer to a tick or a time';
comment on function pgq._ticks_due(int4) is
    'The queues for which a tick is due now';
comment on function pgq._tick_snapshot() is
    'The snapshot for a tick';
comment on function pgq._tick(int4, bool) is
    'Make a tick if it is still due; the caller holds the queue''s ticker lock';
comment on function pgq.ticker() is
    'Make a tick for every queue that is due; queues with an external ticker, or paused, are left out';
comment on function pgq.ticker(text) is
    'Make a tick for one queue, if it is due';
comment on function pgq.ticker(text, int8, timestamptz, int8) is
    'Make a tick that was made elsewhere, on a queue that has an external ticker';
comment on function pgq.force_tick(text) is
    'Make the next call of the ticker tick this queue, by a jump of its event sequence; call until the result changes';
comment on function pgq.split_ticks(text, int4) is
    'Cut the batches that no consumer has opened yet, and what waits for a tick, into batches of bounded size';
comment on function pgq._cut_batch(pgq.tick, pgq.tick, int4) is
    'Ticks to put between two, so that no batch has more than so many events, as far as its transactions allow';
comment on function pgq.maint_rotate_tables_step1(text) is
    'Switch a queue to its next data table, if that is due and no consumer is in the way; ticks that no consumer can need any more are dropped';
comment on function pgq.maint_rotate_tables_step2() is
    'Complete the rotation of every queue that has gone through step 1';
comment on function pgq.maint_tables_to_vacuum() is
    'Tables that want a VACUUM from outside because the server does none by itself';
comment on function pgq.maint_operations() is
    'What maintenance has to do now';
comment on function pgq._maint_other_schemas() is
    'What cascaded queues and replication have to do, where those are installed';
comment on function pgq.upgrade_schema() is
    'Create the roles that are missing (pgq_reader, pgq_writer, pgq_admin) and give them and PUBLIC their privileges';
comment on procedure pgq.ticker_loop(float8, float8, float8, float8) is
    'Tick, put back retries and do maintenance for so many seconds, committing after each step';
comment on function pgq.schedule(float8, text) is
    'Have pg_cron tick';
comment on function pgq.unschedule(text) is
    'Take the job of pgq.schedule() away';
comment on function pgq._cron_job(text) is
    'The name of pg_cron''s job';
comment on function pgq.get_queue_info(text) is
    'Settings and state of queues, by name';
comment on function pgq.get_queue_info() is
    'Settings and state of all queues, by name';
comment on function pgq.get_consumer_info(text, text) is
    'State of subscriptions, by queue and consumer';
comment on function pgq.get_consumer_info(text) is
    'State of the subscriptions of one queue, or of all for null';
comment on function pgq.get_consumer_info() is
    'State of all subscriptions';
comment on function pgq._grant_all() is
    'The one table of privileges';
comment on function pgq_coop.version() is
    'The version of the schema';
comment on function pgq_coop._find(text, text) is
    'A subscription by its names';
comment on function pgq_coop.register_subconsumer(text, text, text) is
    'Let a worker take part in a consumer''s work; the consumer is subscribed too if it is not yet';
comment on function pgq_coop.unregister_subconsumer(text, text, text, int4) is
    'End a worker''s part in a consumer''s work; the consumer and its other workers go on';
comment on function pgq_coop.next_batch_custom(text, text, text, interval, int4, interval, interval) is
    'Give a worker its next batch, or the one that it has open';
comment on function pgq_coop.next_batch_custom(text, text, text, interval, int4, interval) is
    'Give a worker its next batch, or the one that it has open; nobody is taken for dead';
comment on function pgq_coop.next_batch(text, text, text, interval) is
    'Give a worker its next batch, or the one that it has open';
comment on function pgq_coop.next_batch(text, text, text) is
    'Give a worker its next batch, or the one that it has open; nobody is taken for dead';
comment on function pgq_coop.finish_batch(int8) is
    'Close a worker''s batch';
comment on function pgq_coop._held(int8, text) is
    'A batch that a worker has open';
comment on function pgq_coop.finish_batch(int8, text) is
    'Close a batch as the worker that got it';
comment on function pgq_coop.touch(int8) is
    'Give a sign of life';
comment on function pgq_coop.touch(int8, text) is
    'Give a sign of life as the worker that got the batch';
comment on function pgq_coop.register_partitions(text, text, int4, text, int8) is
    'Subscribe a consumer that keeps the order of events within a key';
comment on function pgq_coop.unregister_partitions(text, text) is
    'End the subscriptions of a partitioned consumer; its open batches and what waits for a retry are given up';
comment on function pgq_coop.next_partition(text, text, text, interval) is
    'Give a worker the next batch of a partition that nobody is working on, or the batch that the worker has open';
comment on function pgq_coop.partition_filter(int8) is
    'The condition that holds for the events of a batch which belong to its partition';
comment on function pgq_coop.get_batch_events(int8) is
    'The events of an open batch that belong to its partition, by id';
comment on function pgq_coop.upgrade_schema() is
    'Give the functions their privileges';
comment on function pgq_ext.get_last_tick(text, text) is
    'The last tick that a consumer has applied in this database';
comment on function pgq_ext.get_last_tick(text) is
    'The last tick that a consumer has applied in this database';
comment on function pgq_ext.set_last_tick(text, text, int8) is
    'Store the last tick that a consumer has applied, in the transaction that applied it; it may go back';
comment on function pgq_ext.set_last_tick(text, int8) is
    'Store the last tick that a consumer has applied, in the transaction that applied it; it may go back';
comment on function pgq_ext.is_batch_done(text, text, int8) is
    'Whether a batch is the last one that the consumer has applied in this database';
comment on function pgq_ext.is_batch_done(text, int8) is
    'Whether a batch is the last one that the consumer has applied in this database';
comment on function pgq_ext.set_batch_done(text, text, int8) is
    'Note a batch as applied, in the transaction that applies it';
comment on function pgq_ext.set_batch_done(text, int8) is
    'Note a batch as applied, in the transaction that applies it';
comment on function pgq_ext.is_event_done(text, text, int8, int8) is
    'Whether the consumer has applied an event of its current batch in this database';
comment on function pgq_ext.is_event_done(text, int8, int8) is
    'Whether the consumer has applied an event of its current batch in this database';
comment on function pgq_ext.set_event_done(text, text, int8, int8) is
    'Note an event as applied, in the transaction that applies it';
comment on function pgq_ext.set_event_done(text, int8, int8) is
    'Note an event as applied, in the transaction that applies it';
comment on function pgq_ext.version() is
    'The version of the schema';
comment on function pgq_ext.upgrade_schema() is
    'Give the functions their privileges';
comment on function skytools._event_kind(text) is
    'What the type of an event of a captured table says';
comment on function skytools._decode_row(text) is
    'A row as events carry it, a JSON object or name=value&name=value, as an object';
comment on function skytools._apply_columns(regclass, text[]) is
    'The columns of a target among some names, and how to read each out of a JSON object';
comment on function skytools._apply_sql(regclass, text, text[], text[], text, bool, bool) is
    'The statement that folds events into one change for each row and makes those changes';
comment on function skytools._refuse_event(int8) is
    'Stop a statement that meets an event with other columns than the rest';
comment on function skytools._apply_key(regclass, text[], text[]) is
    'The columns by which events find their rows';
comment on function skytools._apply_names(regclass, jsonb, text[], int8) is
    'The columns of a target that an event sets';
comment on function skytools.apply_events(int8, regclass, text, text, text[], text[]) is
    'Apply the events of a captured table in an open batch to a table, as a set';
comment on function skytools._replay_events(int8, regclass, text, text[], text[]) is
    'Apply events to a table one by one, in their order';
comment on function skytools._replay_sql(text, regclass, text, text[], text[], bool) is
    'The statement that applies one event';
comment on function skytools.archive_chunk(regclass, regclass, text, int4, text) is
    'Move some rows of a table to another by one statement';
comment on function skytools._archive_sql(regclass, regclass, text, int4, text) is
    'The statement that moves a chunk';
comment on function skytools.replica_lag() is
    'How far the replica that lags most is behind, in bytes of WAL, as far as replicas are connected';
comment on procedure skytools.archive(regclass, regclass, text, int4, text, interval, int8, int8) is
    'Move all rows of a condition to another table, in chunks, each in its own transaction';
comment on function skytools.wipe_list(text) is
    'What skytools.wipe() would drop';
comment on function skytools.wipe(text, text, interval) is
    'Drop queues with all that belongs to them';
comment on function skytools.upgrade_schema() is
    'Give the functions their privileges';

-- Down Migration

-- Roles stay: they belong to the whole server, and other databases may use them.
do $$
declare
    v_forced boolean := coalesce(current_setting('skytools.force', true), '') = 'on';
    v_schemas oid[] := (select array_agg(n.oid) from pg_namespace n where n.nspname in ('pgq', 'pgq_coop', 'pgq_ext'));
    v_hint text := 'skytools uninstall --force';
    v_found text;
    v_object record;
begin
    select string_agg(quote_ident(q.queue_name), ', ' order by q.queue_name) into v_found from pgq.queue q;
    if v_found is not null then
        raise exception 'there are queues in database %: %', quote_ident(current_database()), v_found
            using errcode = 'PQ034', hint = format('%s drops them and their events; or: select pgq.drop_queue(''name'', true)', v_hint);
    end if;

    for v_object in
        select c.oid::regclass as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.oid = any (v_schemas) and n.nspname <> 'pgq' and c.relkind = 'r' and not v_forced
    loop
        execute format('select ''x'' from %s limit 1', v_object.name) into v_found;
        if v_found is not null then
            raise exception 'there is data in %', v_object.name
                using errcode = 'PQ034', hint = format('empty that table, or drop it with all in it: %s', v_hint);
        end if;
    end loop;

    select string_agg(distinct pg_describe_object(d.classid, d.objid, d.objsubid), ', ') into v_found
      from pg_depend d,
           lateral pg_identify_object_as_address(d.classid, d.objid, d.objsubid) a
     where d.deptype in ('n', 'a')
       and a.object_names[1] not in ('pgq', 'pgq_coop', 'pgq_ext', 'skytools')
       and a.type <> 'schema'
       and exists (
           select from pg_class c
            where d.refclassid = 'pg_class'::regclass and c.oid = d.refobjid and c.relnamespace = any (v_schemas)
           union all
           select from pg_proc p
            where d.refclassid = 'pg_proc'::regclass and p.oid = d.refobjid and p.pronamespace = any (v_schemas)
           union all
           select from pg_type t
            where d.refclassid = 'pg_type'::regclass and t.oid = d.refobjid and t.typnamespace = any (v_schemas));
    if v_found is not null and not v_forced then
        raise exception 'objects of others depend on skytools: %', v_found
            using errcode = 'PQ041', hint = format('drop them first, or drop them too: %s', v_hint);
    end if;

    perform set_config('client_min_messages', 'warning', true);
    for v_object in
        select format('schema %I', n.nspname) as name from pg_namespace n where n.oid = any (v_schemas)
        union all
        select format('routine %s', p.oid::regprocedure)
          from pg_proc p where p.pronamespace = 'skytools'::regnamespace
        union all
        select format('table %s', c.oid::regclass)
          from pg_class c
         where c.relnamespace = 'skytools'::regnamespace and c.relkind = 'r' and c.relname <> 'migrations'
    loop
        execute format('drop %s cascade', v_object.name);
    end loop;
end $$;
