-- One row a queue. Operators may UPDATE the settings in it; a trigger (event_code.sql) then makes the queue's code anew.
create table pgq.queue (
    queue_id                  serial,
    queue_name                text not null,
    queue_ntables             integer not null default 3,
    queue_cur_table           integer not null default 0,
    queue_rotation_period     interval not null default '2 hours',
    queue_switch_step1        bigint not null default txid_current(),
    queue_switch_step2        bigint default txid_current(),
    queue_switch_time         timestamptz not null default now(),
    queue_external_ticker     boolean not null default false,
    queue_disable_insert      boolean not null default false,
    queue_ticker_paused       boolean not null default false,
    queue_ticker_max_count    integer not null default 500,
    queue_ticker_max_lag      interval not null default '3 seconds',
    queue_ticker_idle_period  interval not null default '1 minute',
    queue_per_tx_limit        integer,
    queue_data_pfx            text not null,
    queue_event_seq           text not null,
    queue_tick_seq            text not null,
    queue_extra_maint         text[],
    constraint queue_pkey primary key (queue_id),
    constraint queue_name_uq unique (queue_name)
);
comment on table pgq.queue is 'One row a queue: settings and rotation state';

create table pgq.consumer (
    co_id    serial,
    co_name  text not null,
    constraint consumer_pkey primary key (co_id),
    constraint consumer_name_uq unique (co_name)
);
comment on table pgq.consumer is 'Consumer names; one name may subscribe to many queues';

create table pgq.tick (
    tick_queue      integer not null,
    tick_id         bigint not null,
    tick_time       timestamptz not null default now(),
    tick_snapshot   txid_snapshot not null default txid_current_snapshot(),
    tick_event_seq  bigint not null,
    constraint tick_pkey primary key (tick_queue, tick_id),
    constraint tick_queue_fkey foreign key (tick_queue) references pgq.queue (queue_id)
);
comment on table pgq.tick is 'Snapshots: a batch is what became visible between two of them';

-- Who subscribes to what. A row never changes while the subscription lives: its position is in the position log.
create sequence pgq.subscription_sub_id_seq as integer;
create table pgq.subscriber (
    sub_key       integer generated always as identity,
    sub_id        integer not null default nextval('pgq.subscription_sub_id_seq'),
    sub_queue     integer not null,
    sub_consumer  integer not null,
    constraint subscriber_pkey primary key (sub_key),
    constraint subscription_pkey unique (sub_queue, sub_consumer),
    constraint sub_queue_fkey foreign key (sub_queue) references pgq.queue (queue_id),
    constraint sub_consumer_fkey foreign key (sub_consumer) references pgq.consumer (co_id)
);
alter sequence pgq.subscription_sub_id_seq owned by pgq.subscriber.sub_id;
create index subscriber_sub_id_idx on pgq.subscriber (sub_id);
create index subscriber_consumer_idx on pgq.subscriber (sub_consumer);
comment on table pgq.subscriber is 'Subscriptions; read them with their positions in pgq.subscription';

-- The parent of every event table.
create table pgq.event_template (
    ev_id      bigint not null,
    ev_time    timestamptz not null,
    ev_txid    bigint not null default txid_current(),
    ev_owner   integer,
    ev_retry   integer,
    ev_type    text,
    ev_data    text,
    ev_extra1  text,
    ev_extra2  text,
    ev_extra3  text,
    ev_extra4  text
);
comment on table pgq.event_template is 'The shape, and the privileges, of every event table';

create table pgq.retry_queue (
    ev_retry_after  timestamptz not null,
    ev_queue        integer not null,
    like pgq.event_template,
    constraint rq_pkey primary key (ev_owner, ev_id),
    constraint rq_queue_id_fkey foreign key (ev_queue) references pgq.queue (queue_id)
);
alter table pgq.retry_queue alter column ev_owner set not null, alter column ev_txid drop not null;
create index rq_retry_idx on pgq.retry_queue (ev_retry_after);
create index rq_queue_idx on pgq.retry_queue (ev_queue);
comment on table pgq.retry_queue is 'Events that wait to be delivered again to one subscription';

create sequence pgq.batch_id_seq;
comment on sequence pgq.batch_id_seq is 'Batch ids of all queues';
create sequence pgq.maint_round_seq;
comment on sequence pgq.maint_round_seq is 'Counts maintenance rounds that have extra hooks, see pgq.maint_operations()';
