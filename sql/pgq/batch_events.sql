-- pgq.get_batch_events(x_batch_id) -> setof record
-- The events of an open batch, in the order of their ids. The same rows each time, as long as the batch is open.
-- returns    no rows for an empty batch, which must be finished like any other
-- raises     PQ003  no such open batch
-- raises     PQ011  a tick of the batch is gone
-- runs as    caller, who needs SELECT on the event tables (pgq_reader)
create or replace function pgq.get_batch_events(
    x_batch_id bigint, out ev_id bigint, out ev_time timestamptz, out ev_txid bigint, out ev_retry int4, out ev_type text,
    out ev_data text, out ev_extra1 text, out ev_extra2 text, out ev_extra3 text, out ev_extra4 text)
returns setof record
language plpgsql as $$
begin
    return query execute pgq.batch_event_sql(x_batch_id);
end $$;

-- pgq.get_batch_cursor(i_batch_id, i_cursor_name, i_quick_limit, i_extra_where) -> setof record
-- Declare a cursor over a batch's events and fetch the first of them; FETCH from the cursor gives the rest.
-- i_cursor_name cursor to declare; it lives to the end of the transaction
-- i_quick_limit how many events to return at once; 0 or less: none
-- i_extra_where SQL condition over the columns of the events, pasted in as it is: never give it untrusted text; null: none
-- returns    the first events; no rows, and no cursor, when the batch, the name or the limit is null
-- raises     PQ003  no such open batch
-- raises     42P03  there is a cursor of that name
-- runs as    caller, who needs SELECT on the event tables (pgq_reader)
create or replace function pgq.get_batch_cursor(
    i_batch_id bigint, i_cursor_name text, i_quick_limit int4, i_extra_where text,
    out ev_id bigint, out ev_time timestamptz, out ev_txid bigint, out ev_retry int4, out ev_type text,
    out ev_data text, out ev_extra1 text, out ev_extra2 text, out ev_extra3 text, out ev_extra4 text)
returns setof record
language plpgsql as $$
declare
    v_sql text;
begin
    if i_batch_id is null or i_cursor_name is null or i_quick_limit is null then
        return;
    end if;
    if i_extra_where is null then
        v_sql := pgq.batch_event_sql(i_batch_id);
    else
        v_sql := pg_catalog.format(e'select * from (%s) ev where %s\norder by 1', pgq._batch_query(i_batch_id, ''), i_extra_where);
    end if;
    execute pg_catalog.format('declare %I no scroll cursor for %s', i_cursor_name, v_sql);
    if i_quick_limit > 0 then
        return query execute pg_catalog.format('fetch %s from %I', i_quick_limit, i_cursor_name);
    end if;
end $$;

-- pgq.get_batch_cursor(i_batch_id, i_cursor_name, i_quick_limit) -> setof record
-- Declare a cursor over a batch's events and fetch the first of them.
-- returns    as the long form
-- raises     PQ003, 42P03  as the long form
-- runs as    caller
create or replace function pgq.get_batch_cursor(
    i_batch_id bigint, i_cursor_name text, i_quick_limit int4,
    out ev_id bigint, out ev_time timestamptz, out ev_txid bigint, out ev_retry int4, out ev_type text,
    out ev_data text, out ev_extra1 text, out ev_extra2 text, out ev_extra3 text, out ev_extra4 text)
returns setof record
language sql strict as $$
    select * from pgq.get_batch_cursor(i_batch_id, i_cursor_name, i_quick_limit, null)
$$;

-- pgq.get_batch_info(x_batch_id) -> record
-- Queue, consumer and ticks of an open batch.
-- returns    one row; all null for a batch that is not open. lag is now less the time of the batch's last tick
-- runs as    owner
create or replace function pgq.get_batch_info(
    x_batch_id bigint, out queue_name text, out consumer_name text, out batch_start timestamptz, out batch_end timestamptz,
    out prev_tick_id bigint, out tick_id bigint, out lag interval, out seq_start bigint, out seq_end bigint)
returns record
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_batch record := pgq._find_batch(x_batch_id);
begin
    select q.queue_name, c.co_name, f.tick_time, t.tick_time, f.tick_id, t.tick_id,
           current_timestamp - t.tick_time, f.tick_event_seq, t.tick_event_seq
      into queue_name, consumer_name, batch_start, batch_end, prev_tick_id, tick_id, lag, seq_start, seq_end
      from pgq.queue q, pgq.consumer c, pgq.tick f, pgq.tick t
     where q.queue_id = v_batch.queue_id and c.co_id = v_batch.consumer_id
       and f.tick_queue = v_batch.queue_id and f.tick_id = v_batch.last_tick
       and t.tick_queue = v_batch.queue_id and t.tick_id = v_batch.next_tick;
end $$;
