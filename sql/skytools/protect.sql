-- What an operator has set for the whole database.
create table skytools.setting (
    name   text not null,
    value  text not null,
    constraint setting_pkey primary key (name)
);
comment on table skytools.setting is 'Settings of this database';

-- skytools.protect(i_reason) -> void
-- Mark this database, so that whatever destroys queues (wipe, reset, uninstall ...) refuses it unless it is named.
-- i_reason   shown in each refusal, e.g. 'production'
-- raises     PQ020  the reason is null or empty
-- runs as    owner: an operator needs EXECUTE (pgq_admin), no table right
create or replace function skytools.protect(i_reason text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if coalesce(i_reason, '') = '' then
        raise exception 'database %: a reason is needed', quote_ident(current_database())
            using errcode = 'PQ020', hint = 'try: select skytools.protect(''production'')';
    end if;
    insert into skytools.setting (name, value) values ('protected', i_reason)
    on conflict (name) do update set value = excluded.value;
end $$;

-- skytools.unprotect() -> boolean
-- Take the mark of skytools.protect() away.
-- returns    false when there was none
-- runs as    owner
create or replace function skytools.unprotect() returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    delete from skytools.setting s where s.name = 'protected';
    return found;
end $$;

-- skytools.protection() -> text
-- Why this database is protected.
-- returns    the reason; null when it is not
-- runs as    owner: everybody may ask
create or replace function skytools.protection() returns text
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select s.value from skytools.setting s where s.name = 'protected'
$$;

-- skytools.refuse_protected(i_action, i_database) -> void
-- Refuse to destroy anything in a protected database.
-- i_action   what shall be done, for the message: 'wipe'
-- i_database the name of this database, given to insist; null: not insisting
-- raises     PQ021  the database is protected, and i_database is not its name
-- raises     PQ023  i_database is the name of another database
-- runs as    caller
create or replace function skytools.refuse_protected(i_action text, i_database text) returns void
language plpgsql as $$
begin
    if i_database is not null and i_database <> pg_catalog.current_database() then
        raise exception 'this is database %, not %', pg_catalog.quote_ident(pg_catalog.current_database()), pg_catalog.quote_ident(i_database)
            using errcode = 'PQ023', hint = 'look where you are connected: nothing was changed';
    end if;
    if i_database is null and skytools.protection() is not null then
        raise exception 'database % is protected (%): no %', pg_catalog.quote_ident(pg_catalog.current_database()),
            skytools.protection(), i_action
            using errcode = 'PQ021',
                  hint = pg_catalog.format('to do it all the same, name it: --force %1$s, or in SQL %1$L as argument', pg_catalog.current_database());
    end if;
end $$;
