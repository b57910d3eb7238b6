import { describe, expect, it } from 'vitest'
import { databases } from '../support/databases.ts'
import { one } from '../support/queues.ts'

/** A schema with another meaning for each operator, common function and type of Postgres: all of them raise. */
const hostile = `
do $do$
declare
    v_operator record;
    v_name text;
begin
    for v_operator in
        select o.oid::int as id, o.oprname, o.oprleft::regtype as l, o.oprright::regtype as r, o.oprresult::regtype as result
          from pg_operator o
         where o.oprkind = 'b' and o.oprname = any ('{=,<>,~,!~,||,<,<=,>,>=,+,-,*,/,#>,->,->>,?,?|,@>,<@,&&}')
    loop
        begin
            execute format('create function hostile.operator_%s(%s, %s) returns %s language plpgsql as %L', v_operator.id, v_operator.l,
                           v_operator.r, v_operator.result, format('begin raise exception ''hijacked: %s''; end', v_operator.oprname));
            execute format('create operator hostile.%s (leftarg = %s, rightarg = %s, function = hostile.operator_%s)', v_operator.oprname,
                           v_operator.l, v_operator.r, v_operator.id);
        exception when others then
            null; -- pseudo-types that PL/pgSQL takes no arguments of
        end;
    end loop;
    for v_name in
        select format('%I(%s) returns %s%s', p.proname, pg_get_function_identity_arguments(p.oid), case when p.proretset then 'setof ' else '' end,
                      p.prorettype::regtype)
          from pg_proc p
         where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f'
           and p.proname = any ('{now,to_json,row_to_json,concat,concat_ws,replace,left,quote_literal,quote_ident,format,encode,convert_to,
                                  regexp_replace,regexp_matches,getdatabaseencoding,pg_notify,pg_sequence_last_value,current_setting,set_config,nextval,txid_current,
                                  unnest,array_to_string,cardinality,text,int4,numeric}')
    loop
        begin
            execute format('create function hostile.%s language plpgsql as %L', v_name, 'begin raise exception ''hijacked: a function''; end');
        exception when others then
            null;
        end;
    end loop;
    foreach v_name in array '{text,int4,int8,bool,float8,numeric,json,regclass,oid,name,timestamptz}'::text[] loop
        execute format('create domain hostile.%I as pg_catalog.text check (false)', v_name);
    end loop;
end $do$`

describe.each(databases)('search_path on $name', ({ open }) => {
  it.each(['json', 'urlencode', 'sql'].flatMap((format) => ['statement', 'row'].map((level) => ({ format, level }))))(
    'of whoever changes a table is nothing to its capture: $format by $level',
    async ({ format, level }) => {
      await using db = await open()
      const types = `id int, part text, a text, b numeric, c timestamptz, d bool, e text[], f jsonb, g varchar(9), h uuid, i "char"`
      await db.query(`select pgq.create_queue('q')`)
      await db.query(`create table t (${types}, primary key (id, part))`)
      await db.query(`create table u (${types}, primary key (id))`)
      await db.query(`create table v (${types}, primary key (id) deferrable)`)
      await db.query(`create table w (${types}, primary key (id))`)
      // What a queue may ask for, so that all of its checks are made.
      await db.query('update pgq.queue set queue_per_tx_limit = 100000')
      await db.query(`select pgq.set_wakeup('q', true)`)
      await db.query('create schema hostile')
      await db.query(hostile)
      const events = async (): Promise<unknown[]> => {
        const changes = ['t', 'u', 'v', 'w'].flatMap((name) => [
          `insert into ${name} values (1, 'p', 'a b/c@d', 1.50, '2026-01-01', true, '{x,"y z"}', '{"k": [1]}', 'ü', null, 'z')`,
          `insert into ${name} select n, 'q', pg_catalog.concat('x=', n), n::pg_catalog.numeric operator(pg_catalog./) 3.0 from pg_catalog.generate_series(2, 4) n`,
          `update ${name} set a = 'changed', b = null where id operator(pg_catalog.=) 1`,
          `update ${name} set a = 'at @home' where id operator(pg_catalog.=) 2`,
          `update ${name} set a = 'all'`,
          `update ${name} set i = 'x'`,
          `update ${name} set id = 10 where id operator(pg_catalog.=) 4`,
          `update ${name} set id = id operator(pg_catalog.+) 100`,
          `update ${name} set a = 'none' where false`,
          `delete from ${name} where id operator(pg_catalog.=) 101`,
          `delete from ${name}`,
          `truncate ${name}`,
        ])
        for (const change of changes) await db.query(change)
        await db.query('alter table t add column added pg_catalog.text')
        await db.query(`insert into t (id, part, added) values (7, 'p', 'now')`)
        await db.query(`update t set added = 'then' where id operator(pg_catalog.=) 7`)
        await db.query(`delete from t`)
        const [path] = await db.query<{ search_path: string }>('show search_path')
        await db.query('reset search_path')
        const stored = await db.query('select ev_type, ev_data, ev_extra1, ev_extra2 from pgq.event_1 order by ev_id')
        await db.query('truncate pgq.event_1_0')
        await db.query('alter table t drop column added')
        await db.query('select pgq.refresh_capture()')
        return [path?.search_path, ...stored]
      }
      for (const [name, more] of Object.entries({ t: {}, u: { old_row: true }, v: {}, w: { ignore: ['i'] } }))
        await db.query(`select pgq.capture($1::regclass, 'q', $2::jsonb)`, [
          name,
          JSON.stringify({ format, level, ...more }),
        ])
      const path = 'hostile, pg_catalog, public'
      await db.query(`set search_path = ${path}`)
      const [shown, ...stored] = await events()
      const [, ...expected] = await events()
      expect(shown).toBe(path)
      expect(stored).toEqual(expected)
      expect(expected.length).toBeGreaterThan(30)
    },
  )

  it('and jit are after a captured update what they were before, whatever it did', async () => {
    await using db = await open()
    await db.query(`select pgq.create_queue('q')`)
    await db.query('create table t (id int primary key, a text)')
    await db.query(`select pgq.capture('t', 'q')`)
    await db.query(`insert into t select n, 'a' from generate_series(1, 10) n`)
    const settings = async (): Promise<unknown> =>
      db.query(`select name, setting from pg_settings where name in ('search_path', 'jit') order by name`)
    await db.query('create schema app')
    await db.query(`set search_path = app, public`)
    await db.query(`set jit = on`)
    await db.query(`set jit_above_cost = 0`)
    const before = await settings()
    for (const change of ['', 'where id = 15', 'where false']) {
      await db.query(`update t set a = a || '.' ${change}`)
      await db.query(`update t set id = id + 10 ${change}`)
      expect(await settings()).toEqual(before)
    }
    await db.query('update pgq.queue set queue_per_tx_limit = 3')
    await expect(db.query(`update t set a = 'too many'`)).rejects.toMatchObject({ code: 'PQ007' })
    await db.transaction(async (tx) => {
      await tx.query(`update t set a = 'one' where id = 12`)
      await tx.query(`do $$ begin update t set a = 'too many'; exception when sqlstate 'PQ007' then null; end $$`)
    })
    expect(await settings()).toEqual(before)
    const { count } = await one<{ count: bigint }>(db, `select count(*) as count from pgq.event_1`)
    expect(count).toBe(33n)
  })

  it.each([
    { columns: 'id int primary key, a text, b numeric(9, 2)[], c app.mood, d app.label', own: false },
    { columns: 'id int primary key, a app.pair', own: true },
    { columns: 'id int primary key, a app.pair[]', own: true },
    { columns: 'id int primary key, a app.spans', own: true },
  ])(
    'is fixed for all of an update only where a type may have casts that somebody made: $columns',
    async ({ columns, own }) => {
      await using db = await open()
      await db.query(`select pgq.create_queue('q')`)
      await db.query('create schema app')
      await db.query(`create type app.mood as enum ('good', 'bad')`)
      await db.query('create domain app.label as text')
      await db.query('create type app.pair as (a int, b int)')
      await db.query('create type app.spans as range (subtype = int4)')
      await db.query(`create table t (${columns})`)
      await db.query(`select pgq.capture('t', 'q')`)
      const { settings } = await one<{ settings: string[] | null }>(
        db,
        `select proconfig as settings from pg_proc where oid = 'pgq.capture_1_update'::regproc`,
      )
      expect(settings).toEqual(own ? ['search_path=pg_catalog, pg_temp', 'jit=off'] : null)
    },
  )
})
