-- Where each subscription stands: an append-only log, so that moving a position leaves no dead row behind.
--
-- A move inserts a row with the next pos_seq of its subscription; the newest row counts. The primary key makes two moves
-- from one position collide, whatever snapshots they work with: the second waits for the first to end, then looks again
-- (READ COMMITTED) or fails with 40001 (REPEATABLE READ, SERIALIZABLE). No row is locked, none is updated.
--
-- The log has three slots. Those of this epoch and of the one before are in use; the third is empty, nobody looks at it,
-- so TRUNCATE never waits for a reader. A subscription leaves the old slot by a row marked pos_moved in it (so that the
-- chain of pos_seq is never forked over two slots) and goes on in the new one; maint_rotate_positions() takes along those
-- that did not move by themselves.
create table pgq.position_epoch (
    epoch  bigint not null
);
insert into pgq.position_epoch (epoch) values (0);
comment on table pgq.position_epoch is 'One row: the current slot of the position log is epoch modulo 3';

create table pgq.position_0 (
    pos_sub        integer not null,
    pos_seq        bigint not null,
    pos_moved      boolean not null default false,
    pos_last_tick  bigint,
    pos_active     timestamptz,
    pos_batch      bigint,
    pos_next_tick  bigint,
    pos_holder     text default pg_backend_pid(),
    constraint position_0_pkey primary key (pos_sub, pos_seq)
);
create index position_0_batch_idx on pgq.position_0 (pos_batch) where pos_batch is not null;
create table pgq.position_1 (like pgq.position_0 including defaults, constraint position_1_pkey primary key (pos_sub, pos_seq));
create index position_1_batch_idx on pgq.position_1 (pos_batch) where pos_batch is not null;
create table pgq.position_2 (like pgq.position_0 including defaults, constraint position_2_pkey primary key (pos_sub, pos_seq));
create index position_2_batch_idx on pgq.position_2 (pos_batch) where pos_batch is not null;
comment on column pgq.position_0.pos_holder is 'Who moved there: the worker that was named, or the backend';
comment on column pgq.position_1.pos_holder is 'Who moved there: the worker that was named, or the backend';
comment on column pgq.position_2.pos_holder is 'Who moved there: the worker that was named, or the backend';
comment on table pgq.position_0 is 'Position log, slot 0';
comment on table pgq.position_1 is 'Position log, slot 1';
comment on table pgq.position_2 is 'Position log, slot 2';

-- pgq._position(i_sub) -> record
-- The newest position of a subscription.
-- i_sub      pgq.subscriber.sub_key
-- returns    slot and seq of the row, and what it says; seq is null when the subscription has no position (any more)
-- raises     40001  the position is newer than this transaction's snapshot
-- runs as    owner: pgq.subscription calls it for whoever reads the view
create or replace function pgq._position(
    i_sub integer, out slot integer, out seq bigint,
    out last_tick bigint, out active timestamptz, out batch bigint, out next_tick bigint, out holder text)
returns record
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_pos pgq.position_0;
begin
    -- A rotation between two of these statements can hide a position for a moment: then look once more.
    for v_try in 1..5 loop
        select e.epoch % 3 into slot from pgq.position_epoch e;
        for v_age in 0..1 loop
            if slot = 0 then
                select * into v_pos from pgq.position_0 p where p.pos_sub = i_sub order by p.pos_seq desc limit 1;
            elsif slot = 1 then
                select * into v_pos from pgq.position_1 p where p.pos_sub = i_sub order by p.pos_seq desc limit 1;
            else
                select * into v_pos from pgq.position_2 p where p.pos_sub = i_sub order by p.pos_seq desc limit 1;
            end if;
            exit when found;
            slot := (slot + 2) % 3;
        end loop;
        if v_pos.pos_seq is not null and not v_pos.pos_moved then
            seq := v_pos.pos_seq;
            last_tick := v_pos.pos_last_tick;
            active := v_pos.pos_active;
            batch := v_pos.pos_batch;
            next_tick := v_pos.pos_next_tick;
            holder := v_pos.pos_holder;
            return;
        end if;
    end loop;
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        raise exception 'could not serialize access: the position of this subscription is newer than the snapshot'
            using errcode = '40001', hint = 'run the transaction again';
    end if;
    slot := null;
end $$;

-- pgq._move(i_sub, i_slot, i_seq, i_last_tick, i_batch, i_next_tick, i_active, i_holder) -> boolean
-- Move a subscription on from the position that pgq._position() gave as slot and seq.
-- i_seq      0 for the first position of a new subscription (i_slot is then ignored)
-- i_holder   the worker that has the batch; null: this backend
-- returns    false when another transaction moved it first: look again
-- raises     40001  the same, under REPEATABLE READ and SERIALIZABLE
-- locks      waits for a transaction that has made the same move and is still open
-- runs as    caller, within a security definer function
create or replace function pgq._move(
    i_sub integer, i_slot integer, i_seq bigint,
    i_last_tick bigint, i_batch bigint, i_next_tick bigint, i_active timestamptz, i_holder text default null)
returns boolean
language plpgsql as $$
declare
    v_slot integer;
    v_seq bigint := i_seq + 1;
    v_holder text := coalesce(i_holder, pg_backend_pid()::text);
begin
    select e.epoch % 3 into v_slot from pgq.position_epoch e;
    if i_seq > 0 and v_slot <> i_slot then
        if i_slot = 0 then
            insert into pgq.position_0 (pos_sub, pos_seq, pos_moved) values (i_sub, v_seq, true) on conflict do nothing;
        elsif i_slot = 1 then
            insert into pgq.position_1 (pos_sub, pos_seq, pos_moved) values (i_sub, v_seq, true) on conflict do nothing;
        else
            insert into pgq.position_2 (pos_sub, pos_seq, pos_moved) values (i_sub, v_seq, true) on conflict do nothing;
        end if;
        if not found then
            return false;
        end if;
        v_seq := v_seq + 1;
    end if;
    if v_slot = 0 then
        insert into pgq.position_0 values (i_sub, v_seq, false, i_last_tick, i_active, i_batch, i_next_tick, v_holder)
        on conflict do nothing;
    elsif v_slot = 1 then
        insert into pgq.position_1 values (i_sub, v_seq, false, i_last_tick, i_active, i_batch, i_next_tick, v_holder)
        on conflict do nothing;
    else
        insert into pgq.position_2 values (i_sub, v_seq, false, i_last_tick, i_active, i_batch, i_next_tick, v_holder)
        on conflict do nothing;
    end if;
    return found;
end $$;

-- pgq._set_position(i_sub, i_last_tick, i_batch, i_next_tick, i_active) -> void
-- Put a subscription at a position, whatever it was before.
-- locks      waits for a transaction that moves the same subscription
-- runs as    caller, within a security definer function
create or replace function pgq._set_position(
    i_sub integer, i_last_tick bigint, i_batch bigint, i_next_tick bigint, i_active timestamptz)
returns void
language plpgsql as $$
declare
    v_pos record;
begin
    loop
        v_pos := pgq._position(i_sub);
        exit when pgq._move(i_sub, v_pos.slot, v_pos.seq, i_last_tick, i_batch, i_next_tick, i_active,
                            case when v_pos.batch = i_batch then v_pos.holder end);
    end loop;
end $$;

-- pgq._hold_position(i_sub) -> record
-- Keep a subscription where it is until the transaction ends.
-- returns    its ticks
-- locks      waits for a transaction that moves the subscription
-- runs as    caller, within a security definer function
create or replace function pgq._hold_position(i_sub integer, out last_tick bigint, out next_tick bigint) returns record
language plpgsql as $$
declare
    v_pos record;
begin
    loop
        v_pos := pgq._position(i_sub);
        exit when v_pos.seq is null
               or pgq._move(i_sub, v_pos.slot, v_pos.seq, v_pos.last_tick, v_pos.batch, v_pos.next_tick, v_pos.active, v_pos.holder);
    end loop;
    last_tick := v_pos.last_tick;
    next_tick := v_pos.next_tick;
end $$;

-- pgq._find_batch(i_batch_id) -> record
-- The subscription that has this batch open.
-- returns    its keys, its position (slot, seq), who holds the batch and its ticks, and for a subconsumer the sub_key of its
--            main consumer; sub_key is null when no subscription has it open
-- raises     40001  see pgq._position()
-- runs as    owner: batch functions that run as their caller need it
create or replace function pgq._find_batch(
    i_batch_id bigint, out sub_key integer, out sub_id integer, out queue_id integer, out consumer_id integer,
    out slot integer, out seq bigint, out last_tick bigint, out next_tick bigint, out holder text, out main_key integer)
returns record
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_slot integer;
    v_subs integer[];
    v_sub integer;
    v_pos record;
begin
    -- Only the two slots in use: see the top of this file.
    select e.epoch % 3 into v_slot from pgq.position_epoch e;
    if v_slot = 0 then
        v_subs := array(select p.pos_sub from pgq.position_0 p where p.pos_batch = i_batch_id
                        union all select p.pos_sub from pgq.position_2 p where p.pos_batch = i_batch_id);
    elsif v_slot = 1 then
        v_subs := array(select p.pos_sub from pgq.position_1 p where p.pos_batch = i_batch_id
                        union all select p.pos_sub from pgq.position_0 p where p.pos_batch = i_batch_id);
    else
        v_subs := array(select p.pos_sub from pgq.position_2 p where p.pos_batch = i_batch_id
                        union all select p.pos_sub from pgq.position_1 p where p.pos_batch = i_batch_id);
    end if;
    -- A batch that was carried along, or handed over, stands in the log more than once: the newest row of one decides.
    foreach v_sub in array v_subs loop
        v_pos := pgq._position(v_sub);
        if v_pos.batch = i_batch_id then
            select s.sub_key, s.sub_id, s.sub_queue, s.sub_consumer into sub_key, sub_id, queue_id, consumer_id
              from pgq.subscriber s where s.sub_key = v_sub;
            if found then
                slot := v_pos.slot;
                seq := v_pos.seq;
                last_tick := v_pos.last_tick;
                next_tick := v_pos.next_tick;
                holder := v_pos.holder;
                -- The main consumer is there before its subconsumers, which share its sub_id.
                select min(s.sub_key) into main_key from pgq.subscriber s where s.sub_id = _find_batch.sub_id and s.sub_key < v_sub;
                return;
            end if;
        end if;
    end loop;
end $$;

-- pgq.maint_rotate_positions() -> integer
-- Go over to the empty slot of the position log and take along the subscriptions that stayed in the oldest one.
-- Called by maintenance when the current slot has grown, see pgq.maint_operations(); harmless at any time.
-- returns    0, also when something was in the way (a transaction that still writes the oldest slot): the next round tries again
-- locks      the empty slot ACCESS EXCLUSIVE and the oldest one SHARE ROW EXCLUSIVE, both NOWAIT: readers are never held up
-- runs as    owner
create or replace function pgq.maint_rotate_positions() returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_epoch bigint;
    v_current text;
    v_oldest text;
    v_empty text;
begin
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        return 0;
    end if;
    select e.epoch into v_epoch from pgq.position_epoch e for update skip locked;
    if not found then
        return 0;
    end if;
    v_current := format('pgq.position_%s', v_epoch % 3);
    v_empty := format('pgq.position_%s', (v_epoch + 1) % 3);
    v_oldest := format('pgq.position_%s', (v_epoch + 2) % 3);
    begin
        execute format('lock table %s in access exclusive mode nowait', v_empty);
        execute format('lock table %s in share row exclusive mode nowait', v_oldest);
    exception
        when lock_not_available then
            return 0;
    end;
    execute format('truncate table %s', v_empty);
    execute format($sql$
        with stayed as (
            select p.* from pgq.subscriber s
             cross join lateral (select * from %1$s p where p.pos_sub = s.sub_key order by p.pos_seq desc limit 1) p
             where not p.pos_moved
        ), closed as (
            insert into %1$s (pos_sub, pos_seq, pos_moved)
            select pos_sub, pos_seq + 1, true from stayed
        )
        insert into %2$s
        select pos_sub, pos_seq + 2, false, pos_last_tick, pos_active, pos_batch, pos_next_tick, pos_holder from stayed
        $sql$, v_oldest, v_current);
    update pgq.position_epoch set epoch = epoch + 1;
    return 0;
end $$;
