create schema pgq_ext;
comment on schema pgq_ext is 'skytools: what a target database has applied of a queue in another one';
grant usage on schema pgq_ext to public;

-- How far each consumer has come, by tick, by batch or by event, whichever it works with.
create table pgq_ext.completed_tick (
    consumer_id     text not null,
    subconsumer_id  text not null default '',
    last_tick_id    bigint not null,
    constraint completed_tick_pkey primary key (consumer_id, subconsumer_id)
);
comment on table pgq_ext.completed_tick is 'The last tick that a consumer has applied here';

create table pgq_ext.completed_batch (
    consumer_id     text not null,
    subconsumer_id  text not null default '',
    last_batch_id   bigint not null,
    constraint completed_batch_pkey primary key (consumer_id, subconsumer_id)
);
comment on table pgq_ext.completed_batch is 'The last batch that a consumer has applied here';

create table pgq_ext.completed_event (
    consumer_id     text not null,
    subconsumer_id  text not null default '',
    batch_id        bigint not null,
    event_id        bigint not null,
    constraint completed_event_pkey primary key (consumer_id, subconsumer_id, batch_id, event_id)
);
comment on table pgq_ext.completed_event is 'The events of its current batch that a consumer has applied here';

create table pgq_ext.partial_batch (
    consumer_id     text not null,
    subconsumer_id  text not null default '',
    cur_batch_id    bigint not null,
    constraint partial_batch_pkey primary key (consumer_id, subconsumer_id)
);
comment on table pgq_ext.partial_batch is 'The batch to which the events in completed_event belong';
