import { describe, expect, it } from 'vitest'
import type { Db, Row } from '../../src/db/db.ts'
import { databases, servers } from '../support/databases.ts'
import { backend, one, waiting } from '../support/queues.ts'

type Outcome = Record<'inserted' | 'updated' | 'unchanged' | 'deleted' | 'missing', bigint> & {
  readonly rows: { action: string; row: Row }[] | null
}

const call = (db: Db, kind: string, args: string) => one<Outcome>(db, `select * from skytools.batch_${kind}(${args})`)
const counts = ({ inserted, updated, unchanged, deleted, missing }: Outcome) =>
  [inserted, updated, unchanged, deleted, missing].map(Number)
const content = async (db: Db, table = 't') =>
  (await db.query<{ row: string }>(`select t::text as row from ${table} t order by t::text collate "C"`)).map(
    ({ row }) => row,
  )

async function table(db: Db): Promise<void> {
  await db.exec(`create schema app; set search_path = app;
    create table t (id int primary key, a text, n bigint default 7);
    insert into t select g, 'a' || g, g from generate_series(1, 4) g;
    create temp table s (id int, a text, n int);
    insert into s values (1, 'a1', 1), (2, 'x', 20), (9, 'new', 90)`)
}

describe.each(databases)('batches on $name', ({ open }) => {
  it('update writes only what changes, and tells how many rows were changed, alike and missing', async () => {
    await using db = await open()
    await table(db)
    const before = await db.query('select id, ctid::text from t where id <> 2 order by id')
    const done = await call(db, 'update', `'t', 's', return_rows => true`)
    expect(counts(done)).toEqual([0, 1, 1, 0, 1])
    expect(done.rows).toEqual([{ action: 'update', row: { id: 2, a: 'x', n: 20 } }])
    expect(await content(db)).toEqual(['(1,a1,1)', '(2,x,20)', '(3,a3,3)', '(4,a4,4)'])
    expect(await db.query('select id, ctid::text from t where id <> 2 order by id')).toEqual(before)
    expect(counts(await call(db, 'update', `'t', 's', rewrite => true`))).toEqual([0, 2, 0, 0, 1])
  })

  it('a missing row is left out, refused or inserted, as asked', async () => {
    await using db = await open()
    await table(db)
    await expect(call(db, 'update', `'t', 's', on_missing => 'error'`)).rejects.toMatchObject({ code: 'PQ026' })
    expect(await content(db)).toContain('(2,a2,2)')
    expect(counts(await call(db, 'update', `'t', 's', on_missing => 'insert'`))).toEqual([1, 1, 1, 0, 0])
    expect(counts(await call(db, 'delete', `'t', 'select 9 as id union select 10'`))).toEqual([0, 0, 0, 1, 1])
    await expect(call(db, 'delete', `'t', 'select 9 as id', on_missing => 'error'`)).rejects.toMatchObject({
      code: 'PQ026',
    })
  })

  it.each(['on conflict', 'lock', 'retry'])('upsert, merge and delete reach the same state by %s', async (way) => {
    await using db = await open()
    await table(db)
    const by = `concurrency => '${way}'`
    expect(counts(await call(db, 'upsert', `'t', 's', set => '{"n": "t.n + s.n"}', ${by}`))).toEqual([1, 2, 0, 0, 0])
    expect(await content(db)).toEqual(['(1,a1,2)', '(2,x,22)', '(3,a3,3)', '(4,a4,4)', '(9,new,90)'])
    const merged = await call(db, 'merge', `'t', 's', within => 't.id <> 4', return_rows => true, ${by}`)
    expect(counts(merged)).toEqual([0, 2, 1, 1, 0])
    expect(merged.rows?.map(({ action, row }) => `${action} ${row.id}`).sort()).toEqual([
      'delete 3',
      'update 1',
      'update 2',
    ])
    expect(await content(db)).toEqual(['(1,a1,1)', '(2,x,20)', '(4,a4,4)', '(9,new,90)'])
    expect(counts(await call(db, 'upsert', `'t', 'select 11 as id', ${by}`))).toEqual([1, 0, 0, 0, 0])
    expect(await content(db)).toContain('(11,,7)')
    expect(counts(await call(db, 'delete', `'t'::regclass, 's'::regclass, ${by}`))).toEqual([0, 0, 0, 3, 0])
    expect(await content(db)).toEqual(['(11,,7)', '(4,a4,4)'])
  })

  it('a key that the source repeats is refused, folded by aggregates, or the first or last row is taken', async () => {
    await using db = await open()
    await table(db)
    await db.exec(`insert into s values (2, 'later', 5)`)
    for (const kind of ['update', 'upsert', 'merge', 'delete']) {
      await expect(call(db, kind, `'t', 's'`)).rejects.toMatchObject({
        code: 'PQ025',
        message: expect.stringContaining('{"id": 2}'),
      })
    }
    await call(db, 'update', `'t', 's', fold => 'last'`)
    expect(await content(db)).toContain('(2,later,5)')
    await call(db, 'update', `'t', 's', fold => 'first'`)
    expect(await content(db)).toContain('(2,x,20)')
    await call(db, 'update', `'t', 's', fold => 'last', order_by => 'n'`)
    expect(await content(db)).toContain('(2,x,20)')
    await call(db, 'upsert', `'t', 's', aggregates => '{"n": "sum", "a": "string_agg(s.a, ''+'' order by s.n)"}'`)
    expect(await content(db)).toContain('(2,later+x,25)')
  })

  it('a null in the key equals nothing', async () => {
    await using db = await open()
    await db.exec(`create schema app; set search_path = app; create table t (k int unique, v int);
      insert into t values (null, 1), (1, 1)`)
    const named = `'select * from (values (null::int, 2), (null, 3), (1, 5)) v (k, v)', key => '{k}'`
    expect(counts(await call(db, 'update', `'t', ${named}`))).toEqual([0, 1, 0, 0, 2])
    expect(counts(await call(db, 'upsert', `'t', ${named}`))).toEqual([2, 0, 1, 0, 0])
    expect(await content(db)).toEqual(['(,1)', '(,2)', '(,3)', '(1,5)'])
    expect(counts(await call(db, 'delete', `'t', ${named}`))).toEqual([0, 0, 0, 1, 2])
  })

  it('generated, identity and default columns, partitions and triggers behave as with a plain statement', async () => {
    await using db = await open()
    await db.exec(`create schema app; set search_path = app;
      create table t (id int generated always as identity, region int, v text default 'none', twice int generated always as (region * 2) stored,
        primary key (id, region)) partition by list (region);
      create table t1 partition of t for values in (1); create table t2 partition of t for values in (2);
      create table fired (what text, v text);
      create function note() returns trigger language plpgsql as
        $$ begin insert into app.fired values (tg_op, new.v); return new; end $$;
      create trigger note after insert or update on t for each row execute function note();
      create table s (id int, region int, v text, twice int);
      insert into s values (1, 1, 'one', 0), (2, 2, 'two', 0)`)
    expect(counts(await call(db, 'upsert', `'t', 's'`))).toEqual([2, 0, 0, 0, 0])
    expect(counts(await call(db, 'upsert', `'t', 'select id, region, ''same'' as v from app.s'`))).toEqual([
      0, 2, 0, 0, 0,
    ])
    expect(counts(await call(db, 'upsert', `'t', 'select id, region, ''same'' as v from app.s'`))).toEqual([
      0, 0, 2, 0, 0,
    ])
    expect(counts(await call(db, 'upsert', `'t', 'select 3 as id, 1 as region'`))).toEqual([1, 0, 0, 0, 0])
    expect(await content(db)).toEqual(['(1,1,same,2)', '(2,2,same,4)', '(3,1,none,2)'])
    expect(await content(db, 'fired')).toEqual([
      '(INSERT,none)',
      '(INSERT,one)',
      '(INSERT,two)',
      '(UPDATE,same)',
      '(UPDATE,same)',
    ])
    await expect(call(db, 'update', `'t', 's', columns => '{twice}'`)).rejects.toMatchObject({ code: 'PQ024' })
  })

  it('values of any type are compared as they are stored, and names are never taken for SQL', async () => {
    await using db = await open()
    await db.exec(`create schema "s p"; set search_path = "s p";
      create table "t""; drop" ("k'1" text primary key, j json, p point, c char(5), d numeric(6, 2), "#" int, "a b" varchar(3));
      create table l (like "t""; drop");
      insert into l values ('x', '{"a":1}', '(1,2)', 'ab', 1.5, 1, 'abc')`)
    const target = `'"t""; drop"', 'l'`
    expect(counts(await call(db, 'upsert', target))).toEqual([1, 0, 0, 0, 0])
    for (const way of ['on conflict', 'lock']) {
      expect(counts(await call(db, 'upsert', `${target}, concurrency => '${way}'`))).toEqual([0, 0, 1, 0, 0])
    }
    await db.exec(`update l set j = '{"a": 1}'`)
    expect(counts(await call(db, 'update', target))).toEqual([0, 1, 0, 0, 0])
    const long = `'"t""; drop"', 'select ''x''::text as "k''1", ''abcd''::text as "a b"'`
    await expect(call(db, 'update', long)).rejects.toMatchObject({ code: '22001' })
  })

  it('a string that is too long for its column is refused, whatever the source calls its type', async () => {
    await using db = await open()
    await db.exec(`create table c (id int primary key, c char(4), b bit(3), v varchar(3));
      insert into c values (1, 'ab', '101', 'xyz')`)
    for (const [source, expected] of [
      [`'ab'::text as c, b'101' as b, 'xyz'::text as v`, [0, 0, 1, 0, 0]],
      [`'ab  '::char(9) as c, b'110' as b, 'xy'::text as v`, [0, 1, 0, 0, 0]],
    ] as const)
      expect(counts(await call(db, 'update', `'c', '(select 1 as id, ${source.replaceAll("'", "''")})'`))).toEqual(
        expected,
      )
    for (const wrong of [`'ab  x'::text as c`, `b'1100' as b`, `'xyz!'::text as v`])
      await expect(
        call(db, 'update', `'c', '(select 1 as id, ${wrong.replaceAll("'", "''")})'`),
        wrong,
      ).rejects.toMatchObject({ code: expect.stringMatching(/^220(01|26)$/) })
    expect(await content(db, 'c')).toEqual(['(1,"ab  ",110,xy)'])
  })

  it('refuses what cannot be done, and says what to type', async () => {
    await using db = await open()
    await table(db)
    await db.exec('create table nokey (id int, a text)')
    for (const [kind, args, code, hint] of [
      ['update', `'nokey', 's'`, 'PQ024', 'key =>'],
      ['update', `'t', 'nosuch'`, 'PQ024', 'a source is'],
      ['update', `'t', 's', columns => '{nosuch}'`, 'PQ024', 'the source has'],
      ['update', `'t', 's', set => '{"zz": "1"}'`, 'PQ024', 'the source has'],
      ['update', `'t', 's', fold => 'middle'`, 'PQ024', 'fold:'],
      ['update', `'t', 's', on_missing => 'x'`, 'PQ024', 'on_missing:'],
      ['upsert', `'nokey', 's', key => '{id}'`, 'PQ027', 'create unique index'],
    ] as const) {
      await expect(call(db, kind, args)).rejects.toMatchObject({ code, hint: expect.stringContaining(hint) })
    }
    expect(counts(await call(db, 'upsert', `'nokey', 's', key => '{id}', concurrency => 'lock'`))).toEqual([
      3, 0, 0, 0, 0,
    ])
  })
})

describe.each(servers)('batches beside each other on $name', ({ open }) => {
  it('an upsert waits for another that inserts the same key, and adds to what that one stored', async () => {
    await using db = await open()
    await table(db)
    await using other = await db.connect()
    const pid = await backend(other)
    await db.exec('begin')
    await call(db, 'upsert', `'app.t', 'select 50 as id, 1 as n', set => '{"n": "t.n + s.n"}'`)
    const second = call(other, 'upsert', `'app.t', 'select 50 as id, 2 as n', set => '{"n": "t.n + s.n"}'`)
    const { result } = await waiting(db, pid, second)
    await db.exec('commit')
    expect(counts(await result)).toEqual([0, 1, 0, 0, 0])
    expect(await content(db)).toContain('(50,,3)')
  })

  it('retry finds what another transaction inserted meanwhile', async () => {
    await using db = await open()
    await table(db)
    await using other = await db.connect()
    const pid = await backend(other)
    await db.exec(`begin; insert into app.t values (50, null, 1)`)
    const second = call(
      other,
      'upsert',
      `'app.t', 'select 50 as id, 2 as n', set => '{"n": "t.n + s.n"}', concurrency => 'retry'`,
    )
    const { result } = await waiting(db, pid, second)
    await db.exec('commit')
    expect(counts(await result)).toEqual([0, 1, 0, 0, 0])
    expect(await content(db)).toContain('(50,,3)')
  })

  it('the lock is given up after the timeout, and lock_timeout is as before', async () => {
    await using db = await open()
    await table(db)
    await using other = await db.connect()
    await db.exec(`begin; update app.t set n = 0 where id = 1`)
    await expect(
      call(other, 'upsert', `'app.t', 'select 1 as id', concurrency => 'lock', timeout => '50 ms'`),
    ).rejects.toMatchObject({ code: 'PQ028' })
    await db.exec('rollback')
    await call(other, 'upsert', `'app.t', 'select 1 as id', concurrency => 'lock', timeout => '50 ms'`)
    expect(await one(other, 'show lock_timeout')).toEqual({ lock_timeout: '0' })
  })

  it('1,000 batches that overlap in any order never deadlock, and every addition counts', async () => {
    await using db = await open()
    await db.exec('create schema app; create table app.t (id int primary key, n bigint not null)')
    const workers = await Promise.all([1, 2, 3, 4].map(() => db.connect()))
    const kinds = ['upsert', 'update'] as const
    let expected = 0n
    try {
      await Promise.all(
        workers.map(async (worker, w) => {
          for (let n = 0; n < 250; n++) {
            const source = `'select id, 1 as n from generate_series(1, 20) id where (id * ${n + 7 * w + 3}) % 3 > 0 order by random()'`
            const { inserted, updated } = await call(
              worker,
              kinds[(n + w) % 2] ?? 'upsert',
              `'app.t', ${source}, set => '{"n": "t.n + s.n"}'`,
            )
            expected += inserted + updated
          }
        }),
      )
    } finally {
      await Promise.all(workers.map((worker) => worker.close()))
    }
    expect(expected).toBeGreaterThan(5000n)
    expect(await one(db, 'select sum(n)::bigint as n from app.t')).toEqual({ n: expected })
  })

  it('row-level security and the rights of the caller hold', async () => {
    await using db = await open()
    await table(db)
    await db.exec(`do $$ begin create role batch_user; exception when duplicate_object then null; end $$;
      alter table t enable row level security; create policy p on t using (id < 3);
      grant usage on schema app to batch_user; grant select, delete on t to batch_user; set role batch_user`)
    await expect(call(db, 'update', `'t', 'select 1 as id, 5 as n'`)).rejects.toMatchObject({ code: '42501' })
    expect(counts(await call(db, 'delete', `'t', 'select generate_series(1, 4) as id'`))).toEqual([0, 0, 0, 2, 2])
    await db.exec('reset role')
    expect(await content(db)).toEqual(['(3,a3,3)', '(4,a4,4)'])
    await db.exec('drop owned by batch_user')
  })
})
