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
