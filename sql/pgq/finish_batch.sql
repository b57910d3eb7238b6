-- pgq.finish_batch(x_batch_id) -> integer
-- Close a batch: the consumer's position moves on to the batch's last tick.
-- returns    1; 0, with a warning, when the batch is not open: finished before, or the consumer was moved or unregistered
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
            raise warning 'finish_batch: batch % not found', coalesce(x_batch_id::text, 'NULL')
                using errcode = 'PQ003', hint = 'it was finished before, or its consumer was moved or unregistered';
            return 0;
        end if;
        if pgq._move(v_batch.sub_key, v_batch.slot, v_batch.seq, v_batch.next_tick, null, null, now()) then
            return 1;
        end if;
    end loop;
end $$;
