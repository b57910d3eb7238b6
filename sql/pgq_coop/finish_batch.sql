-- pgq_coop.finish_batch(i_batch_id) -> integer
-- Close a worker's batch.
-- returns    1; 0, with a warning, when the batch is not open
-- raises     PQ019  the batch was this session's, and another worker has taken it over
-- raises     40001  under REPEATABLE READ and SERIALIZABLE, when another transaction finished it since the snapshot
-- locks      none; when another transaction is just finishing it, or taking it over, waits for it to end
-- runs as    owner
create or replace function pgq_coop.finish_batch(i_batch_id bigint) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_batch record := pgq._find_batch(i_batch_id);
begin
    if v_batch.sub_key is null then
        perform pgq._refuse_lost_batch(i_batch_id, null, null);
        raise warning 'coop_finish_batch: batch % not found', coalesce(i_batch_id::text, 'NULL')
            using errcode = 'PQ003', hint = 'it was finished before, or its worker was unregistered';
        return 0;
    end if;
    return pgq.finish_batch(i_batch_id);
end $$;

-- pgq_coop._held(i_batch_id, i_worker_name) -> record
-- A batch that a worker has open.
-- i_worker_name the subconsumer, or the worker of a partitioned consumer
-- returns    as pgq._find_batch(); sub_key is null when the batch is not open at all
-- raises     PQ019  another worker has it
-- runs as    caller, within a security definer function
create or replace function pgq_coop._held(
    i_batch_id bigint, i_worker_name text, out sub_key integer, out slot integer, out seq bigint, out last_tick bigint, out next_tick bigint,
    out holder text, out main_key integer)
returns record
language plpgsql as $$
declare
    v_worker text;
begin
    select b.sub_key, b.slot, b.seq, b.last_tick, b.next_tick, b.holder, b.main_key
      into sub_key, slot, seq, last_tick, next_tick, holder, main_key from pgq._find_batch(i_batch_id) b;
    if sub_key is null then
        return;
    end if;
    if main_key is null then
        v_worker := holder;
    else
        select substr(c.co_name, length(m.co_name) + 2) into v_worker
          from pgq.subscriber s join pgq.consumer c on c.co_id = s.sub_consumer,
               pgq.subscriber ms join pgq.consumer m on m.co_id = ms.sub_consumer
         where s.sub_key = _held.sub_key and ms.sub_key = _held.main_key;
    end if;
    if v_worker is distinct from i_worker_name then
        raise exception 'batch % was taken over: worker % has it, not %', i_batch_id, v_worker, coalesce(i_worker_name, 'NULL')
            using errcode = 'PQ019',
                  hint = 'roll back what was done with its events; a worker that is slow but alive calls pgq_coop.touch() in time';
    end if;
end $$;

-- pgq_coop.finish_batch(i_batch_id, i_worker_name) -> integer
-- Close a batch as the worker that got it: for workers that share connections, whom the session does not tell apart.
-- i_worker_name the subconsumer, or the worker of a partitioned consumer
-- returns    1; 0, with a warning, when the batch is not open
-- raises     PQ019  another worker has taken it over
-- raises     40001  as the form with the batch alone
-- runs as    owner
create or replace function pgq_coop.finish_batch(i_batch_id bigint, i_worker_name text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_batch record;
begin
    loop
        v_batch := pgq_coop._held(i_batch_id, i_worker_name);
        if v_batch.sub_key is null then
            raise warning 'coop_finish_batch: batch % not found', coalesce(i_batch_id::text, 'NULL')
                using errcode = 'PQ003', hint = 'it was finished before, or its worker was unregistered';
            return 0;
        end if;
        if pgq._move(v_batch.sub_key, v_batch.slot, v_batch.seq,
                     case when v_batch.main_key is null then v_batch.next_tick end, null, null, now(), i_worker_name) then
            return 1;
        end if;
    end loop;
end $$;

-- pgq_coop.touch(i_batch_id) -> integer
-- Give a sign of life: the worker that has this batch open is slow, not dead.
-- returns    1; 0, with a warning, when the batch is not open
-- raises     PQ019  the batch was this session's, and another worker has taken it over
-- runs as    owner
create or replace function pgq_coop.touch(i_batch_id bigint) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_batch record;
begin
    loop
        v_batch := pgq._find_batch(i_batch_id);
        perform pgq._refuse_lost_batch(i_batch_id, v_batch.sub_key, v_batch.holder);
        if v_batch.sub_key is null then
            raise warning 'coop touch: batch % not found', coalesce(i_batch_id::text, 'NULL')
                using errcode = 'PQ003', hint = 'it was finished before, or its worker was unregistered';
            return 0;
        end if;
        if pgq._move(v_batch.sub_key, v_batch.slot, v_batch.seq, v_batch.last_tick, i_batch_id, v_batch.next_tick,
                     clock_timestamp(), v_batch.holder) then
            return 1;
        end if;
    end loop;
end $$;

-- pgq_coop.touch(i_batch_id, i_worker_name) -> integer
-- Give a sign of life as the worker that got the batch.
-- returns    1; 0, with a warning, when the batch is not open
-- raises     PQ019  another worker has taken it over
-- runs as    owner
create or replace function pgq_coop.touch(i_batch_id bigint, i_worker_name text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_batch record;
begin
    loop
        v_batch := pgq_coop._held(i_batch_id, i_worker_name);
        if v_batch.sub_key is null then
            raise warning 'coop touch: batch % not found', coalesce(i_batch_id::text, 'NULL')
                using errcode = 'PQ003', hint = 'it was finished before, or its worker was unregistered';
            return 0;
        end if;
        if pgq._move(v_batch.sub_key, v_batch.slot, v_batch.seq, v_batch.last_tick, i_batch_id, v_batch.next_tick,
                     clock_timestamp(), v_batch.holder) then
            return 1;
        end if;
    end loop;
end $$;
