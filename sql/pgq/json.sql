-- pgq.insert_json(queue, ev_type, payload, ev_extra1, ev_extra2, ev_extra3, ev_extra4) -> bigint
-- Put an event with a JSON payload into a queue; pgq.get_batch_json() reads it back as jsonb.
-- queue      the queue
-- payload    any JSON; stored as its text in ev_data; null as null
-- returns    the event's id
-- raises     PQ001, PQ006, PQ007, PQ008  as pgq.insert_event()
-- runs as    caller; see pgq.insert_event()
create or replace function pgq.insert_json(
    queue text, ev_type text, payload jsonb,
    ev_extra1 text default null, ev_extra2 text default null, ev_extra3 text default null, ev_extra4 text default null)
returns bigint
language sql as $$
    select pgq.insert_event(queue, ev_type, payload::text, ev_extra1, ev_extra2, ev_extra3, ev_extra4)
$$;

-- pgq.get_batch_json(x_batch_id) -> setof record
-- The events of an open batch, with ev_data as jsonb.
-- returns    as pgq.get_batch_events(), but payload jsonb in place of ev_data
-- raises     PQ003  no such open batch
-- raises     22P02  ev_data of an event is not JSON
-- runs as    caller; see pgq.get_batch_events()
create or replace function pgq.get_batch_json(
    x_batch_id bigint, out ev_id bigint, out ev_time timestamptz, out ev_txid bigint, out ev_retry int4, out ev_type text,
    out payload jsonb, out ev_extra1 text, out ev_extra2 text, out ev_extra3 text, out ev_extra4 text)
returns setof record
language plpgsql as $$
begin
    return query
    select e.ev_id, e.ev_time, e.ev_txid, e.ev_retry, e.ev_type, e.ev_data::jsonb,
           e.ev_extra1, e.ev_extra2, e.ev_extra3, e.ev_extra4
      from pgq.get_batch_events(x_batch_id) e;
end $$;
