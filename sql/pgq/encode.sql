-- Writers of SQL: for one table they give the text of an expression that encodes a row of it, each column as its type asks,
-- so that nothing has to be looked up when the expression runs. The record may be anything with the table's columns:
-- new and old of a trigger, a parameter, the alias of a transition table. Used by the trigger functions and pgq.capture().

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
               (select array_agg(row(x.indisprimary, x.indkey) order by x.indisprimary)
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
-- i_format   json, urlencode or sql
-- runs as    caller
create or replace function pgq._encode_value(i_value text, i_type oid, i_format text) returns text
language sql stable as $$
    select pg_catalog.format(case i_format
        when 'json' then
            case when t.name = any ('{bool,int2,int4,int8}') then '%1$s::pg_catalog.text'
                 when t.name = any ('{date,timestamp,timestamptz}') then 'pg_catalog.to_json(%1$s)::pg_catalog.text'
                 when t.base = any ('{int2,int4,int8,oid,numeric,float4,float8,uuid}') then '''"'' || %1$s::pg_catalog.text || ''"'''
                 else 'pg_catalog.to_json(%2$s)::pg_catalog.text' end
        when 'urlencode' then
            case when t.base = 'bool' then 'pg_catalog.left(%1$s::pg_catalog.text, 1)'
                 when t.base = any ('{int2,int4,int8,oid,numeric,uuid}') then '%1$s::pg_catalog.text'
                 when t.base = any ('{float4,float8}') then 'pg_catalog.replace(%1$s::pg_catalog.text, ''+'', ''%%2b'')'
                 when t.base = any ('{date,time,timetz,timestamp,timestamptz}') then
                     'pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace('
                     '%1$s::pg_catalog.text, ''+'', ''%%2b''), '' '', ''+''), '':'', ''%%3a''), ''/'', ''%%2f'')'
                 else
                     'case when %2$s ~ ''[^0-9A-Za-z_.-]'' collate "C" then'
                     ' case when %2$s ~ ''[^0-9A-Za-z_. :,/%%+-]'' collate "C" then pgq._urlencode(%2$s) else'
                     ' pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace('
                     '%2$s collate "C", ''%%'', ''%%25''), ''+'', ''%%2b''), '' '', ''+''), '':'', ''%%3a''), '','', ''%%2c''), ''/'', ''%%2f'') end'
                     ' else %2$s end' end
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

-- pgq._urlencode(i_text) -> text
-- Text as in the query of a URL: letters, digits and _ . - as they are, a space as +, every other byte as %xx.
-- returns    null for null
-- runs as    caller
create or replace function pgq._urlencode(i_text text) returns text
language plpgsql immutable strict parallel safe as $$
declare
    v_text text collate "C" := i_text;
begin
    -- What is common, without taking the text apart.
    v_text := replace(replace(replace(replace(replace(replace(v_text, '%', '%25'), '+', '%2b'), ' ', '+'), ':', '%3a'), ',', '%2c'), '/', '%2f');
    v_text := replace(replace(replace(replace(replace(replace(v_text, '@', '%40'), '"', '%22'), '{', '%7b'), '}', '%7d'), '''', '%27'), e'\n', '%0a');
    if v_text !~ '[^0-9A-Za-z_.%+-]' then
        return v_text;
    end if;
    v_text := i_text;
    return (select string_agg(
                       case when p.part ~ '^[0-9A-Za-z_.-]' then p.part
                            else replace(regexp_replace(encode(convert_to(p.part, getdatabaseencoding()), 'hex'), '..', e'%\\&', 'g'),
                                         '%20', '+') end,
                       '' order by p.n)
              from (select m.part[1] as part, m.n
                      from regexp_matches(v_text, '[0-9A-Za-z_.-]+|[^0-9A-Za-z_.-]+', 'g') with ordinality m (part, n)) p);
end $$;

-- pgq._encode_row(i_table, i_format, i_columns, i_record) -> text
-- SQL for the event data of a row, never null.
-- i_format   json: {"a":1,"b":null}; urlencode: a=1&b; sql: (a,b) values ('1',null)
-- i_columns  the columns to take, always in the table's order; null: all
-- i_record   what holds the row in SQL, e.g. new
-- runs as    caller
create or replace function pgq._encode_row(i_table regclass, i_format text, i_columns name[], i_record text) returns text
language sql stable as $$
    with c as (
        select row_number() over (order by t.attnum) as n, t.name,
               pgq._encode_value(format('%s.%I', i_record, t.name), t.type, i_format) as value
          from pgq._table_columns(i_table) t
         where i_columns is null or t.name = any (i_columns)
    )
    select case i_format
        when 'json' then
            coalesce(string_agg(format('%L || coalesce(%s, ''null'') || ',
                                       case when c.n = 1 then '{' else ',' end || to_json(c.name::text) || ':', c.value), '' order by c.n)
                     || '''}''', '''{}''')
        when 'urlencode' then
            coalesce(string_agg(format('%L || coalesce(''='' || %s, '''')',
                                       case when c.n = 1 then '' else '&' end || pgq._urlencode(c.name), c.value), ' || ' order by c.n), '''''')
        when 'sql' then
            format('%L || ', '(' || coalesce(string_agg(quote_ident(c.name), ',' order by c.n), '') || ') values (')
            || coalesce(string_agg(format('coalesce(%s, ''null'')', c.value), ' || '','' || ' order by c.n) || ' || ', '') || ''')'''
        end
      from c
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
