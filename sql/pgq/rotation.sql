-- Rotation: events leave by TRUNCATE. Of a queue's data tables the current one takes events, the previous one still may
-- hold events that a consumer needs, and the next one is empty of use. Step 1 empties the next one and makes it current.
-- Step 2, in a later transaction, seals the table that was current before.
--
-- Sealed means: nobody is writing to it, nobody can (pgq._sealed()), and queue_switch_step2 is above the txid of every
-- event in it. So a consumer whose position was taken after step 2 needs nothing from it, which is what step 1 asks of all
-- consumers before it empties the table's successor. It holds for producers under REPEATABLE READ and SERIALIZABLE, and
-- for statements that were under way during both steps, as for all others.

-- pgq.maint_rotate_tables_step1(i_queue_name) -> integer
-- Switch a queue to its next data table, if that is due and no consumer is in the way; ticks that no consumer can need any
-- more are dropped.
-- returns    0, whether it rotated or not: no such queue, not due, a consumer still needs the table, or somebody reads it
-- raises     PQ011  transaction ids have gone back, or a consumer's tick is missing
-- locks      the queue's row; the next data table ACCESS EXCLUSIVE, NOWAIT
-- runs as    owner; under REPEATABLE READ and SERIALIZABLE it does nothing, as it would act on old positions
create or replace function pgq.maint_rotate_tables_step1(i_queue_name text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
    v_next integer;
    v_table text;
    v_lowest bigint;
    v_lowest_xmin bigint;
begin
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        return 0;
    end if;
    select * into v_queue from pgq.queue q
     where q.queue_name = i_queue_name
       and q.queue_switch_step2 is not null
       and q.queue_switch_time + q.queue_rotation_period < current_timestamp
       for update;
    if not found then
        return 0;
    end if;
    if txid_current() < v_queue.queue_switch_step1 then
        raise exception 'queue % maint failure: step1=%, current=%', i_queue_name, v_queue.queue_switch_step1, txid_current()
            using errcode = 'PQ011', hint = 'was the database restored into a younger cluster? drop the queue and create it again';
    end if;

    select min(s.sub_last_tick) into v_lowest from pgq.subscription s where s.sub_queue = v_queue.queue_id;
    if v_lowest is not null then
        select txid_snapshot_xmin(t.tick_snapshot) into v_lowest_xmin
          from pgq.tick t where t.tick_queue = v_queue.queue_id and t.tick_id = v_lowest;
        if not found then
            raise exception 'queue % maint failure: tick % not found', i_queue_name, v_lowest
                using errcode = 'PQ011', hint = 'move the consumer that stands there: see pgq.get_consumer_info(), pgq.register_consumer_at()';
        end if;
        if v_lowest_xmin <= v_queue.queue_switch_step2 then
            return 0;
        end if;
    end if;

    v_next := (v_queue.queue_cur_table + 1) % v_queue.queue_ntables;
    v_table := pgq._event_table(v_queue.queue_id, v_next);
    begin
        execute format('lock table %s in access exclusive mode nowait', v_table);
        execute format('truncate table %s', v_table);
        if exists (select from pg_trigger t where t.tgrelid = v_table::regclass and t.tgname = 'sealed') then
            execute format('drop trigger sealed on %s', v_table);
        end if;
    exception
        when lock_not_available then
            return 0;
    end;
    update pgq.queue q
       set queue_cur_table = v_next, queue_switch_time = current_timestamp,
           queue_switch_step1 = txid_current(), queue_switch_step2 = null
     where q.queue_id = v_queue.queue_id;
    -- The newest stays in any case: without consumers, and with an old transaction about, it too may be from before step 2,
    -- and who registers now begins there.
    delete from pgq.tick t
     where t.tick_queue = v_queue.queue_id and txid_snapshot_xmin(t.tick_snapshot) < v_queue.queue_switch_step2
       and t.tick_id < (select max(m.tick_id) from pgq.tick m where m.tick_queue = v_queue.queue_id);
    return 0;
end $$;

-- pgq.maint_rotate_tables_step2() -> integer
-- Complete the rotation of every queue that has gone through step 1: seal the table that was current before.
-- returns    0; a queue whose old table somebody is still writing to is left for the next call
-- locks      the table that was current SHARE ROW EXCLUSIVE, NOWAIT: readers are not held up
-- runs as    owner; under REPEATABLE READ and SERIALIZABLE it does nothing
create or replace function pgq.maint_rotate_tables_step2() returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_queue pgq.queue;
    v_table text;
begin
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        return 0;
    end if;
    for v_queue in
        select * from pgq.queue q where q.queue_switch_step2 is null order by q.queue_name for update skip locked
    loop
        v_table := pgq._event_table(v_queue.queue_id,
                                    (v_queue.queue_cur_table - 1 + v_queue.queue_ntables) % v_queue.queue_ntables);
        begin
            execute format('lock table %s in share row exclusive mode nowait', v_table);
        exception
            when lock_not_available then
                continue;
        end;
        perform 1 from pg_trigger t where t.tgrelid = v_table::regclass and t.tgname = 'sealed';
        if not found then
            execute format('create trigger sealed before insert on %s for each row execute function pgq._sealed(%s)',
                           v_table, v_queue.queue_id);
        end if;
        -- Whoever wrote to the table has ended, so its txid is below the end of a snapshot taken now.
        update pgq.queue q
           set queue_switch_step2 = greatest(txid_current(), txid_snapshot_xmax(txid_current_snapshot()))
         where q.queue_id = v_queue.queue_id;
    end loop;
    return 0;
end $$;
