-- pgq._refuse_lost_batch(i_batch_id, i_sub, i_holder) -> void
-- Tell a session that a batch which it had opened was taken over by another worker. The position log tells who had it: as
-- far as it goes back, and as far as one worker is one session; workers that share connections give their names instead.
-- i_sub      the subscription that has the batch open, null: none any more
-- i_holder   who holds it there
-- raises     PQ019  this session had the batch, and not last
-- runs as    caller, within a security definer function
create or replace function pgq._refuse_lost_batch(i_batch_id bigint, i_sub integer, i_holder text) returns void
language plpgsql as $$
declare
    v_own text := pg_backend_pid();
    v_slot integer;
    v_had boolean;
    v_has boolean;
begin
    if i_holder = v_own then
        return;
    end if;
    select e.epoch % 3 into v_slot from pgq.position_epoch e;
    execute format($sql$
        with log as (
            select pos_sub, pos_holder, pos_active from pgq.position_%s where pos_batch = $1
            union all
            select pos_sub, pos_holder, pos_active from pgq.position_%s where pos_batch = $1
        ), last as (
            select coalesce($2, (select pos_sub from log order by pos_active desc limit 1)) as sub
        )
        select exists (select from log where pos_holder = $3 and pos_sub <> last.sub) as had,
               exists (select from log where pos_holder = $3 and pos_sub = last.sub) as has
          from last
        $sql$, v_slot, (v_slot + 2) % 3)
       into v_had, v_has using i_batch_id, i_sub, v_own;
    if v_had and not v_has then
        raise exception 'batch % was taken over by another worker', i_batch_id
            using errcode = 'PQ019',
                  hint = 'roll back what was done with its events; a worker that is slow but alive calls pgq_coop.touch() in time';
    end if;
end $$;

-- pgq.finish_batch(x_batch_id) -> integer
-- Close a batch: the consumer's position moves on to the batch's last tick.
-- returns    1; 0, with a warning, when the batch is not open: finished before, or the consumer was moved or unregistered
-- raises     PQ019  the batch was this session's, and another worker has taken it over
-- raises     40001  under REPEATABLE READ and SERIALIZABLE, when another transaction finished it since the snapshot
-- locks      none; when another transaction is just finishing the batch, waits for it to end
-- runs as    owner
create or replace function pgq.finish_batch(x_batch_id bigint) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_batch record;
begin
    loop
        v_batch := pgq._find_batch(x_batch_id);
        if v_batch.sub_key is null then
            perform pgq._refuse_lost_batch(x_batch_id, null, null);
            raise warning 'finish_batch: batch % not found', coalesce(x_batch_id::text, 'NULL')
                using errcode = 'PQ003', hint = 'it was finished before, or its consumer was moved or unregistered';
            return 0;
        end if;
        perform pgq._refuse_lost_batch(x_batch_id, v_batch.sub_key, v_batch.holder);
        -- A subconsumer stands nowhere between its batches.
        if pgq._move(v_batch.sub_key, v_batch.slot, v_batch.seq,
                     case when v_batch.main_key is null then v_batch.next_tick end, null, null, now()) then
            return 1;
        end if;
    end loop;
end $$;
