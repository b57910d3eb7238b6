import { describe, expect, it } from 'vitest'
import { batchDelete, batchMerge, batchUpdate, batchUpsert } from '../../../src/batch/batch.ts'
import type { Db } from '../../../src/db/db.ts'
import { databases, servers } from '../../support/databases.ts'
import { one } from '../../support/queues.ts'

interface Item {
  id: number
  name: string | null
  n: number
}

async function table(db: Db): Promise<void> {
  await db.exec(`create schema app; create table app.t (id int primary key, name varchar(20), n bigint not null);
    insert into app.t select g, 'n' || g, g from generate_series(1, 5) g`)
}
const items = (count: number): Item[] =>
  Array.from({ length: count }, (_, i) => ({ id: i + 1, name: `x${i + 1}`, n: i }))

/** The same database; what it is asked, and what is copied into, inside its transactions too. */
function listening(db: Db): { heard: Db; asked: string[]; copied: string[] } {
  const asked: string[] = []
  const copied: string[] = []
  const hear = (inner: Db): Db => ({
    ...inner,
    query(sql, params, options) {
      asked.push(sql)
      return inner.query(sql, params, options)
    },
    copyIn(target, chunks) {
      copied.push(target)
      return inner.copyIn(target, chunks)
    },
    transaction: (work) => inner.transaction((tx) => work(hear(tx))),
  })
  return { heard: hear(db), asked, copied }
}
const content = (db: Db) => db.query('select * from app.t order by id')

describe.each(databases)('batches from the library on $name', ({ open }) => {
  it.each([2000, 0])(
    'count the same in a large table: changed, alike, missing, null and repeated (COPY above %s rows)',
    async (copyAbove) => {
      await using db = await open()
      await db.exec(`create table big (a int, "b c" timestamptz, v text, filler text, primary key (a, "b c"));
      insert into big select g, '2026-01-01 10:00:00.123456+00', 'x', repeat('f', 200) from generate_series(1, 12000) g;
      analyze big; set datestyle = 'German'; set timezone = 'Asia/Kathmandu'`)
      const row = (a: number | null, v: string, micros = '123456') => ({
        a,
        'b c': `2026-01-01 10:00:00.${micros}+00`,
        v,
      })
      const common = { table: 'big', copyAbove }
      expect(await batchUpdate(db, { ...common, rows: [row(1, 'y'), row(2, 'z')] })).toMatchObject({
        updated: 2n,
        missing: 0n,
      })
      expect(
        await batchUpdate(db, {
          ...common,
          rows: [row(1, 'y'), row(2, 'new'), row(3, 'x'), row(4, 'q', '123457'), row(null, 'q'), row(12_001, 'q')],
        }),
      ).toEqual({ inserted: 0n, updated: 1n, unchanged: 2n, deleted: 0n, missing: 3n })
      await expect(batchUpdate(db, { ...common, rows: [row(5, 'p'), row(6, 'q'), row(5, 'r')] })).rejects.toMatchObject(
        { code: 'PQ025', message: expect.stringMatching(/public\.big.*"a": 5/) },
      )
      expect(
        await batchUpdate(db, { ...common, fold: 'last', rows: [row(5, 'p'), row(6, 'x'), row(5, 'r'), row(5, 's')] }),
      ).toEqual({
        inserted: 0n,
        updated: 1n,
        unchanged: 1n,
        deleted: 0n,
        missing: 0n,
      })
      expect(await db.query(`select a, v from big where v <> 'x' order by a`)).toEqual([
        { a: 1, v: 'y' },
        { a: 2, v: 'new' },
        { a: 5, v: 's' },
      ])
    },
  )

  it.each([2000, 0])(
    'keep strings as long as their columns are, and refuse longer ones (COPY above %s rows)',
    async (copyAbove) => {
      await using db = await open()
      await db.exec(`create table c (k char(4) primary key, b bit(3), vb varbit(4), v varchar(3), d char, a varchar(3)[]);
      insert into c values ('ab', '000', '0', 'x', 'd', '{x}'), ('ac', '111', '1', 'y', 'd', null)`)
      const common = { table: 'c', copyAbove }
      const ab = { k: 'ab', b: '101', vb: '0101', v: 'xyz', d: 'e', a: ['abc'] }
      const ac = { k: 'ac', b: '110', vb: '1', v: 'y', d: 'd', a: null }
      expect(await batchUpdate(db, { ...common, rows: [ab, ac] })).toMatchObject({ updated: 2n })
      expect(await batchUpdate(db, { ...common, rows: [ab, ac] })).toMatchObject({ unchanged: 2n })
      expect(await batchUpsert(db, { ...common, rows: [ab, { ...ac, k: 'abcd' }] })).toMatchObject({
        inserted: 1n,
        unchanged: 1n,
      })
      expect(await db.query('select k, b::text, vb::text, v, d, a from c order by k')).toEqual([
        { ...ab, k: 'ab  ' },
        { ...ac, k: 'abcd' },
        { ...ac, k: 'ac  ' },
      ])
      for (const wrong of [{ b: '1010' }, { vb: '01010' }, { v: 'xyz!' }, { d: 'ef' }, { a: ['abcd'] }]) {
        const row = { ...ab, ...wrong }
        for (const change of [batchUpdate<typeof row>, batchUpsert<typeof row>])
          await expect(change(db, { ...common, rows: [row] }), JSON.stringify(wrong)).rejects.toMatchObject({
            code: 'PQ065',
          })
      }
      expect(await batchDelete(db, { ...common, rows: [{ k: 'abcd' }] })).toMatchObject({ deleted: 1n })
    },
  )

  it.each([2000, 0])('give the same from arrays and by COPY (above %s rows)', async (copyAbove) => {
    await using db = await open()
    await table(db)
    const rows: Item[] = [
      { id: 1, name: 'a\tb\\N\n"é', n: 10 },
      { id: 2, name: null, n: 20 },
      { id: 9, name: '\\N', n: 90 },
    ]
    const common = { table: 'app.t', copyAbove }
    expect(await batchUpdate(db, { ...common, rows, key: 'id' })).toEqual({
      inserted: 0n,
      updated: 2n,
      unchanged: 0n,
      deleted: 0n,
      missing: 1n,
    })
    expect(await batchUpsert(db, { ...common, rows, set: { n: 't.n + s.n' } })).toMatchObject({
      inserted: 1n,
      updated: 2n,
    })
    expect(await content(db)).toMatchObject([
      { id: 1, name: 'a\tb\\N\n"é', n: 20n },
      { id: 2, name: null, n: 40n },
      { id: 3 },
      { id: 4 },
      { id: 5 },
      { id: 9, name: '\\N', n: 90n },
    ])
    expect(await batchMerge(db, { ...common, rows, within: 't.id <> 5' })).toMatchObject({
      updated: 2n,
      unchanged: 1n,
      deleted: 2n,
    })
    expect(await batchDelete(db, { ...common, rows: [{ id: 1 }, { id: 77 }] })).toMatchObject({
      deleted: 1n,
      missing: 1n,
    })
    await expect(batchUpdate(db, { ...common, rows, onMissing: 'error' })).rejects.toMatchObject({ code: 'PQ026' })
    expect((await content(db)).map(({ id }) => id)).toEqual([2, 5, 9])
    expect(await batchUpsert<Item>(db, { ...common, rows: [] })).toMatchObject({ inserted: 0n })
  })

  it('rows come from a generator, many more than one chunk, and progress is told', async () => {
    await using db = await open()
    await table(db)
    const told: number[] = []
    const source = async function* () {
      yield* items(5500)
    }
    const done = await batchUpsert(db, { table: ['app', 't'], rows: source(), onProgress: (rows) => told.push(rows) })
    expect(done).toMatchObject({ inserted: 5495n, updated: 5n })
    expect(told.at(-1)).toBe(5500)
    expect(await one(db, 'select count(*) as n, sum(n)::bigint as sum from app.t')).toEqual({
      n: 5500n,
      sum: 15122250n,
    })
  })

  it.each([2000, 0])(
    'a value that does not fit is named with its row and column, and nothing is changed (%s)',
    async (copyAbove) => {
      await using db = await open()
      await table(db)
      const before = await content(db)
      const rows: { id: number; n: string | number }[] = items(3).map(({ id, n }) => ({ id, n }))
      rows[2] = { id: 3, n: 'abc' }
      const failed = batchUpdate(db, { table: 'app.t', rows, copyAbove })
      await expect(failed).rejects.toMatchObject({
        code: 'PQ065',
        message: expect.stringMatching(/row 3, column n, value "abc"/),
      })
      const long = [{ id: 2, name: 'x'.repeat(21) }]
      await expect(batchUpdate(db, { table: 'app.t', rows: long, copyAbove })).rejects.toMatchObject({
        code: 'PQ065',
        message: expect.stringMatching(/row 1, column name/),
      })
      expect(await content(db)).toEqual(before)
    },
  )

  it('joins the transaction of the caller, and a batch that fails leaves that usable', async () => {
    await using db = await open()
    await table(db)
    await db.transaction(async (tx) => {
      await batchUpsert(tx, { table: 'app.t', rows: [{ id: 50, n: 1 }] })
      await expect(batchUpsert(tx, { table: 'app.t', rows: [{ id: 51, n: 'no' }] })).rejects.toMatchObject({
        code: 'PQ065',
      })
      await batchUpsert(tx, { table: 'app.t', rows: [{ id: 52, n: 1 }], copyAbove: 0 })
      await batchUpsert(tx, { table: 'app.t', rows: [{ id: 53, n: 1 }], copyAbove: 0 })
    })
    expect((await content(db)).map(({ id }) => id)).toEqual([1, 2, 3, 4, 5, 50, 52, 53])
    await expect(
      db.transaction(async (tx) => {
        await batchDelete(tx, { table: 'app.t', rows: [{ id: 1 }] })
        throw new Error('the caller gives up')
      }),
    ).rejects.toThrow('gives up')
    expect(await content(db)).toHaveLength(8)
  })

  it('a statement that was written before is not used for the table of another schema, or one that has changed', async () => {
    await using db = await open()
    for (const schema of ['one', 'two'])
      await db.exec(`create schema ${schema}; create table ${schema}.t (id int primary key, n int)`)
    const add = (id: number, n: number) => batchUpsert(db, { table: 't', rows: [{ id, n }] })
    for (const schema of ['one', 'two', 'one']) {
      await db.exec(`set search_path = ${schema}`)
      await add(schema === 'one' ? 1 : 2, 1)
      await db.transaction((tx) => batchUpsert(tx, { table: 't', rows: [{ id: 3, n: 1 }] }))
    }
    expect(await db.query('select array_agg(id order by id) as ids from one.t')).toEqual([{ ids: [1, 3] }])
    expect(await db.query('select array_agg(id order by id) as ids from two.t')).toEqual([{ ids: [2, 3] }])
    await db.exec('alter table one.t alter column n type text using n || $$!$$')
    await add(4, 4)
    await db.exec('alter table one.t rename to old; create table one.t (n int, id int primary key)')
    await add(5, 5)
    expect(await db.query('select * from one.t')).toEqual([{ n: 5, id: 5 }])
    expect(await db.query('select n from one.old order by id')).toEqual([{ n: '1!' }, { n: '1!' }, { n: '4' }])
  })

  it('takes arrays, JSON, bytes, dates and names that need quotes', async () => {
    await using db = await open()
    await db.exec(
      `create schema "a b"; create table "a b"."t;""x" ("i d" int primary key, l int[], w text[], j jsonb, b bytea, d timestamptz)`,
    )
    const row = { 'i d': 1, l: [1, 2], w: ['a,"b', null], j: { a: [1] }, b: Uint8Array.of(1, 255), d: new Date(0) }
    for (const copyAbove of [0, 10]) {
      await batchUpsert(db, { table: ['a b', 't;"x'], rows: [row], copyAbove })
      expect(await one(db, `select l, w, j, b = '\\x01ff' as b, d from "a b"."t;""x"`)).toEqual({
        l: [1, 2],
        w: ['a,"b', null],
        j: { a: [1] },
        b: true,
        d: new Date(0),
      })
    }
  })

  it.each([0, 1000])('takes any text as it is (above %s rows)', async (copyAbove) => {
    await using db = await open()
    await db.exec('create table t (id int primary key, v text)')
    const texts = [
      '',
      ' ',
      'null',
      'NULL',
      '"',
      '\\',
      '\\"',
      'a"b\\c',
      '\\\\',
      '{x}',
      'a,b',
      "it's",
      'x\ty\n',
      'é',
      '-1.5e+3',
      null,
    ]
    const rows = texts.map((v, id) => ({ id, v }))
    await batchUpsert(db, { table: 't', rows, copyAbove })
    expect(await db.query('select id, v from t order by id')).toEqual(rows)
  })

  it('rows that differ in their columns are refused, and wrong columns do not compile', async () => {
    await using db = await open()
    await table(db)
    const sparse: Partial<Item>[] = [{ id: 1, n: 1 }, { id: 2 }]
    await expect(batchUpdate(db, { table: 'app.t', rows: sparse })).rejects.toMatchObject({
      code: 'PQ066',
      message: 'row 2 has no column n',
    })
    const wide: object[] = [
      { id: 1, n: 1 },
      { id: 2, n: 2, name: 'x' },
    ]
    await expect(batchUpdate(db, { table: 'app.t', rows: wide })).rejects.toMatchObject({ code: 'PQ066' })
    // @ts-expect-error: no such column
    await expect(batchUpdate(db, { table: 'app.t', rows: items(1), key: 'nosuch' })).rejects.toMatchObject({
      code: 'PQ024',
    })
    await expect(batchUpdate(db, { table: 'app.nosuch', rows: items(1) })).rejects.toMatchObject({ code: 'PQ024' })
  })

  it('writes the statement for a table once for a connection and its transactions', async () => {
    await using db = await open()
    await table(db)
    const { heard, asked } = listening(db)
    for (const n of [1, 2, 3]) {
      await heard.transaction((tx) => batchUpsert(tx, { table: 'app.t', rows: items(n) }))
      await batchUpsert(heard, { table: 'app.t', rows: items(n) })
    }
    const written = asked.filter((sql) => sql.includes('_batch_sql'))
    // A pool's transactions are over one of its connections.
    expect(written.length).toBeLessThanOrEqual(db.pooled ? 4 : 1)
    expect(asked.filter((sql) => sql.startsWith('with '))).toHaveLength(6)
  })

  it('sends few rows by COPY too where they are large', async () => {
    await using db = await open()
    await table(db)
    await db.exec('create table app.wide (id int primary key, v text)')
    const rows = Array.from({ length: 10 }, (_, id) => ({ id, v: String(id).repeat(1_000_000) }))
    const { heard, copied } = listening(db)
    expect(await batchUpsert(heard, { table: 'app.wide', rows })).toMatchObject({ inserted: 10n })
    expect(copied).toEqual(['pg_temp.skytools_batch'])
    expect(await one(db, 'select sum(length(v))::int as n from app.wide')).toEqual({ n: 10_000_000 })
  })

  it('stops when it is told to, and changes nothing', async () => {
    await using db = await open()
    await table(db)
    const stop = new AbortController()
    const rows = function* () {
      for (const item of items(10000)) {
        if (item.id === 5000) stop.abort()
        yield item
      }
    }
    await expect(batchUpsert(db, { table: 'app.t', rows: rows(), signal: stop.signal })).rejects.toMatchObject({
      name: 'AbortError',
    })
    expect(await content(db)).toHaveLength(5)
  })
})

describe.each(servers)('batches over a connection on $name', ({ open }) => {
  it('keeps at most a hundred statements prepared, whatever expressions come', async () => {
    await using db = await open()
    await table(db)
    await using session = await db.connect()
    const before = items(1).map((item) => ({ ...item, n: 1 }))
    for (let n = 0; n < 120; n += 1)
      await batchUpsert(session, { table: 'app.t', rows: before, set: { n: `t.n + ${n}` } })
    expect(await one(session, 'select n::int as n from app.t where id = 1')).toEqual({ n: 1 + (119 * 120) / 2 })
    expect(await one(session, 'select count(*) <= 101 as few from pg_prepared_statements')).toEqual({ few: true })
  })
})
