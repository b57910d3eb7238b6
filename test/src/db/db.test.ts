import { describe, expect, it } from 'vitest'
import type { Db } from '../../../src/index.ts'
import { databases, servers } from '../../support/databases.ts'

describe.each(databases)('a Db on $name', ({ openEmpty }) => {
  it('gives int8 as bigint, and json, arrays, dates and null alike on both drivers', async () => {
    await using db = await openEmpty()
    const rows = await db.query(
      `select 1::int8 as big, 2::int4 as small, array[1, null, 3]::int8[] as bigs, '{}'::int8[] as none,
              '{"a": [1]}'::jsonb as json, null::int8 as nothing, date '2026-01-02' as day,
              interval '1 day 2 seconds' as span, array['a', 'b'] as texts, 1.50::numeric as number,
              timestamptz '2026-01-02 03:04:05+00' as moment`,
    )
    expect(rows).toEqual([
      {
        big: 1n,
        small: 2,
        bigs: [1n, null, 3n],
        none: [],
        json: { a: [1] },
        nothing: null,
        day: '2026-01-02',
        span: '1 day 00:00:02',
        texts: ['a', 'b'],
        number: '1.50',
        moment: new Date('2026-01-02T03:04:05Z'),
      },
    ])
  })
  it('takes bigint, text array and json parameters', async () => {
    await using db = await openEmpty()
    const rows = await db.query('select $1::int8 as big, $2::text[] as texts, $3::jsonb as json', [
      9007199254740993n,
      ['a', null, 'it\'s "b", {c}'],
      { a: 1 },
    ])
    expect(rows).toEqual([{ big: 9007199254740993n, texts: ['a', null, 'it\'s "b", {c}'], json: { a: 1 } }])
  })
  it('commits what a transaction did, and undoes a failed one and a failed inner one alone', async () => {
    await using db = await openEmpty()
    await db.exec('create table t (n int); create table u (n int)')
    await db.transaction(async (tx) => {
      await tx.query('insert into t values (1)')
      await expect(
        tx.transaction(async (inner) => {
          await inner.query('insert into t values (2)')
          await inner.query('select 1/0')
        }),
      ).rejects.toThrow('division by zero')
      await tx.transaction((inner) => inner.query('insert into t values (3)'))
    })
    await expect(
      db.transaction(async (tx) => {
        await tx.query('insert into t values (4)')
        throw new Error('no')
      }),
    ).rejects.toThrow('no')
    expect(await db.query('select n from t order by n')).toEqual([{ n: 1 }, { n: 3 }])
  })
  it('refuses what is left of the work of a transaction that is over', async () => {
    await using db = await openEmpty()
    await db.exec('create table noted (text text)')
    let outer: Db = db
    let inner: Db = db
    await db.transaction(async (tx) => {
      outer = tx
      await tx.transaction(async (deeper) => {
        inner = deeper
      })
      if (db.kind === 'pg') await expect(inner.exec(`insert into noted values ('inner')`)).rejects.toThrow('over')
    })
    for (const late of [outer, inner]) {
      await expect(late.query(`insert into noted values ('late')`)).rejects.toThrow(/over|closed/)
      await expect(late.exec(`insert into noted values ('late')`)).rejects.toThrow(/over|closed/)
      await expect(late.transaction((tx) => tx.query('select 1'))).rejects.toThrow(/over|closed/)
    }
    expect(await db.query('select text from noted')).toEqual([])
  })

  it('runs transactions that start at once one after the other', async () => {
    await using db = await openEmpty()
    await db.exec('create table t (n int)')
    const work = (n: number) => db.transaction((tx) => tx.query('insert into t values ($1)', [n]))
    await Promise.all([1, 2, 3].map(work))
    expect(await db.query('select n from t order by n')).toEqual([{ n: 1 }, { n: 2 }, { n: 3 }])
  })
  it('passes notices on', async () => {
    await using db = await openEmpty()
    const heard: string[] = []
    await db.exec("do $$ begin raise warning 'look'; end $$", { onNotice: (notice) => heard.push(notice.message) })
    expect(heard).toEqual(['look'])
  })
})

describe.each(servers)('connections of $name', ({ open, openEmpty }) => {
  it('are separate sessions of one database', async () => {
    await using db = await openEmpty()
    await using other = await db.connect()
    await db.exec('create table t (n int)')
    expect(await other.query('select count(*) as n from t')).toEqual([{ n: 0n }])
    const pids = await Promise.all([db, other].map((each) => each.query('select pg_backend_pid() as pid')))
    expect(pids[0]).not.toEqual(pids[1])
  })
  it('finds the bundle in a fresh database', async () => {
    await using db = await open()
    expect(await db.query("select 1 as found from pg_namespace where nspname = 'pgq'")).toEqual([{ found: 1 }])
  })
})
