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
