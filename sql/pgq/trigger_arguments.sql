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
