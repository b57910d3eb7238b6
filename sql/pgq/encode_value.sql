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
