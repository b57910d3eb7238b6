-- pgq.captured: which tables are captured into which queues. A regclass, so that a dump names the table.
create table pgq.captured (
    cap_id       integer generated always as identity,
    cap_table    regclass not null,
    cap_queue    integer not null,
    cap_options  jsonb not null,
    cap_level    text not null,
    cap_shape    text,
    constraint captured_pkey primary key (cap_id),
    constraint captured_table_key unique (cap_table, cap_queue),
    constraint captured_queue_fkey foreign key (cap_queue) references pgq.queue (queue_id)
);
comment on table pgq.captured is 'Tables whose changes become events: see the view pgq.captured_table';
