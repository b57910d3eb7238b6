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
