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
