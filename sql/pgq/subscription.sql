-- pgq.subscription under its old name and columns: subscriptions with their newest positions. It can be written to, too.
create view pgq.subscription as
select s.sub_id, s.sub_queue, s.sub_consumer, p.last_tick as sub_last_tick, p.active as sub_active,
       p.batch as sub_batch, p.next_tick as sub_next_tick
  from pgq.subscriber s
 cross join lateral pgq._position(s.sub_key) p
 where p.seq is not null;
comment on view pgq.subscription is 'Subscriptions: who reads which queue, and where each stands';

-- pgq._write_subscription() -> trigger
-- INSERT, UPDATE and DELETE on the view pgq.subscription.
-- runs as    owner; the view's privileges decide who may
create or replace function pgq._write_subscription() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_sub integer;
begin
    if tg_op = 'INSERT' then
        new.sub_id := coalesce(new.sub_id, nextval('pgq.subscription_sub_id_seq'));
        new.sub_active := coalesce(new.sub_active, now());
        insert into pgq.subscriber (sub_id, sub_queue, sub_consumer)
        values (new.sub_id, new.sub_queue, new.sub_consumer)
        returning sub_key into v_sub;
        perform pgq._move(v_sub, null, 0, new.sub_last_tick, new.sub_batch, new.sub_next_tick, new.sub_active);
        return new;
    end if;
    select s.sub_key into v_sub from pgq.subscriber s
     where s.sub_queue = old.sub_queue and s.sub_consumer = old.sub_consumer;
    if not found then
        return null;
    end if;
    if tg_op = 'DELETE' then
        delete from pgq.subscriber s where s.sub_key = v_sub;
        return old;
    end if;
    if (new.sub_id, new.sub_queue, new.sub_consumer) is distinct from (old.sub_id, old.sub_queue, old.sub_consumer) then
        update pgq.subscriber s
           set sub_id = new.sub_id, sub_queue = new.sub_queue, sub_consumer = new.sub_consumer
         where s.sub_key = v_sub;
    end if;
    perform pgq._set_position(v_sub, new.sub_last_tick, new.sub_batch, new.sub_next_tick, new.sub_active);
    return new;
end $$;

create trigger write_subscription instead of insert or update or delete on pgq.subscription
    for each row execute function pgq._write_subscription();
