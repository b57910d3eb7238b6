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
