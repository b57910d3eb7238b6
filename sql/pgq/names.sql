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
