-- pgq._open_batch(i_batch_id) -> record
-- What is needed to read an open batch: whose it is, the snapshots between which it lies, and the tables with its events.
-- returns    all null when no subscription has the batch open; a snapshot is null when its tick is gone; sealed_txid is no
--            lower than any txid in the previous table, null while that is not sealed; tables are the previous, the
--            current, or both, previous first
-- runs as    caller
create or replace function pgq._open_batch(
    i_batch_id bigint, out queue_id integer, out sub_id integer,
    out from_snapshot txid_snapshot, out to_snapshot txid_snapshot, out sealed_txid bigint, out tables text[])
returns record
language plpgsql as $$
declare
    v_batch record := pgq._find_batch(i_batch_id);
    v_queue pgq.queue;
begin
    select * into v_queue from pgq.queue q where q.queue_id = v_batch.queue_id;
    if not found then
        return;
    end if;
    queue_id := v_batch.queue_id;
    sub_id := v_batch.sub_id;
    select t.tick_snapshot into from_snapshot from pgq.tick t
     where t.tick_queue = v_queue.queue_id and t.tick_id = v_batch.last_tick;
    select t.tick_snapshot into to_snapshot from pgq.tick t
     where t.tick_queue = v_queue.queue_id and t.tick_id = v_batch.next_tick;

    -- The previous table is sealed with a txid above all that wrote to it (maint_rotate_tables_step2), and the current one
    -- takes its first event only after step 1 has committed: both comparisons are exact.
    sealed_txid := v_queue.queue_switch_step2;
    if v_queue.queue_switch_step2 is null or txid_snapshot_xmin(from_snapshot) <= v_queue.queue_switch_step2 then
        tables := array[pgq._event_table(
            v_queue.queue_id, (v_queue.queue_cur_table - 1 + v_queue.queue_ntables) % v_queue.queue_ntables)];
    end if;
    if txid_snapshot_xmax(to_snapshot) >= v_queue.queue_switch_step1 then
        tables := tables || pgq._event_table(v_queue.queue_id, v_queue.queue_cur_table);
    end if;
end $$;

-- pgq.batch_event_tables(x_batch_id) -> setof text
-- The tables in which the events of an open batch are: the previous, the current, or both, previous first.
-- returns    e.g. 'pgq.event_1_0'
-- raises     PQ003  no such open batch
-- runs as    caller
create or replace function pgq.batch_event_tables(x_batch_id bigint) returns setof text
language plpgsql as $$
declare
    v_batch record := pgq._open_batch(x_batch_id);
begin
    if v_batch.queue_id is null then
        raise exception 'Cannot find data for batch %', coalesce(x_batch_id::text, 'NULL')
            using errcode = 'PQ003', hint = 'it may be finished, or given to another worker; open one: select pgq.next_batch(''queue'', ''consumer'')';
    end if;
    return query select unnest(v_batch.tables);
end $$;

-- pgq._batch_query(i_batch_id, i_where) -> text
-- The query that gives a batch's events: those of transactions that the batch's last tick sees and its first does not.
-- The txid index finds them: one range of txids, and a list of those long transactions that ended during the batch, so that
-- one long transaction does not widen the range to all that came after its start.
-- i_where    more conditions for each table, over ev_..., beginning with ' and '; or ''
-- returns    SQL text, without ORDER BY
-- raises     PQ003  no such open batch
-- raises     PQ011  a tick of the batch is gone
-- runs as    caller
create or replace function pgq._batch_query(i_batch_id bigint, i_where text) returns text
language plpgsql as $$
declare
    v_batch record := pgq._open_batch(i_batch_id);
    v_from txid_snapshot := v_batch.from_snapshot;
    v_to txid_snapshot := v_batch.to_snapshot;
    v_low bigint;
    v_listed bigint[] := '{}';
    v_txid bigint;
    v_table text;
    v_range text;
    v_columns text := 'select ev_id, ev_time, ev_txid, ev_retry, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4';
    v_owner text;
    v_parts text[] := '{}';
begin
    if v_batch.queue_id is null then
        raise exception 'batch not found: %', coalesce(i_batch_id::text, 'NULL')
            using errcode = 'PQ003', hint = 'it may be finished, or given to another worker; open one: select pgq.next_batch(''queue'', ''consumer'')';
    end if;
    if v_from is null or v_to is null or v_batch.tables is null then
        raise exception 'could not construct sql for batch %: one of its ticks is gone, or they are out of order', i_batch_id
            using errcode = 'PQ011', hint = 'move the consumer to a tick that exists: pgq.register_consumer_at()';
    end if;

    v_low := txid_snapshot_xmax(v_from);
    for v_txid in
        select x from txid_snapshot_xip(v_from) x
         where txid_visible_in_snapshot(x, v_to)
         order by x desc
    loop
        if v_txid >= v_low - 100 then
            v_low := v_txid;
        else
            v_listed := v_listed || v_txid;
        end if;
    end loop;

    v_range := format('ev.ev_txid >= %s and ev.ev_txid < %s', v_low, txid_snapshot_xmax(v_to));
    if exists (select from txid_snapshot_xip(v_to) x where x >= v_low) then
        v_range := v_range || format(' and txid_visible_in_snapshot(ev.ev_txid, %L)', v_to);
    end if;
    if v_low < txid_snapshot_xmax(v_from) then
        v_range := v_range || format(' and not txid_visible_in_snapshot(ev.ev_txid, %L)', v_from);
    end if;
    v_owner := format(' and (ev.ev_owner is null or ev.ev_owner = %s)', v_batch.sub_id);
    -- An old transaction that is open in both snapshots holds xmin down, but none of its events is in the batch.
    if cardinality(v_batch.tables) > 1 and least(v_low, v_listed[cardinality(v_listed)]) > v_batch.sealed_txid then
        v_batch.tables := v_batch.tables[2:];
    end if;
    foreach v_table in array v_batch.tables loop
        v_parts := v_parts || format('%s from %s ev where %s%s%s', v_columns, v_table, v_range, v_owner, i_where);
        if v_listed <> '{}' then
            v_parts := v_parts || format('%s from %s ev where ev.ev_txid = any (%L::bigint[])%s%s',
                                         v_columns, v_table, v_listed, v_owner, i_where);
        end if;
    end loop;
    return array_to_string(v_parts, e'\nunion all ');
end $$;

-- pgq.batch_event_sql(x_batch_id) -> text
-- The query that gives the events of an open batch, in the order of their ids.
-- returns    SQL text; it stays right as long as the batch is open
-- raises     PQ003  no such open batch
-- raises     PQ011  a tick of the batch is gone
-- runs as    caller
create or replace function pgq.batch_event_sql(x_batch_id bigint) returns text
language sql as $$
    select pgq._batch_query(x_batch_id, '') || ' order by 1'
$$;
