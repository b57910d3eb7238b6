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
