import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { batchDelete, batchMerge, batchUpdate, batchUpsert } from '../../src/batch/batch.ts'
import type { BatchCounts } from '../../src/batch/statement.ts'
import type { Db } from '../../src/db/db.ts'
import { databases, servers } from '../support/databases.ts'

// SKYTOOLS_SEED=… repeats a run, SKYTOOLS_SCHEDULES=… asks for more of them.
const seed = Number(process.env.SKYTOOLS_SEED ?? Math.floor(Math.random() * 2 ** 31))
const runs = Math.ceil(Number(process.env.SKYTOOLS_SCHEDULES ?? 60) / 3)

interface Item {
  a: number | null
  b: string | null
  n: number | null
  text: string | null
}
type Kind = 'update' | 'upsert' | 'delete' | 'merge'
interface Batch {
  readonly kind: Kind
  readonly rows: readonly Item[]
  readonly fold: 'last' | 'first'
  readonly add: boolean
  readonly copyAbove: number
}

const maybe = <T>(values: fc.Arbitrary<T>) => fc.option(values, { freq: 8 })
const item: fc.Arbitrary<Item> = fc.record({
  a: maybe(fc.integer({ min: 1, max: 5 })),
  b: maybe(fc.constantFrom('', 'x', `'"\\,{}`)),
  n: maybe(fc.integer({ min: 0, max: 3 })),
  text: maybe(fc.constantFrom('', 'NULL', 'null', '\\N', 'a\tb\nc', `"q"`, '{x,y}', 'õ€')),
})
const batches = (...kinds: Kind[]): fc.Arbitrary<Batch> =>
  fc.record({
    kind: fc.constantFrom(...kinds),
    rows: fc.array(item, { minLength: 1, maxLength: 12 }),
    fold: fc.constantFrom('last', 'first'),
    add: fc.boolean(),
    copyAbove: fc.constantFrom(0, 2000),
  })

type Counts = { -readonly [name in keyof BatchCounts]: number }
const sum = (x: number | null, y: number | null) => (x === null || y === null ? null : x + y)
const keyOf = ({ a, b }: Item) => (a === null || b === null ? undefined : JSON.stringify([a, b]))

/** What a batch makes of a table, as one would write it down. A null in the key equals nothing. */
function apply(table: readonly Item[], { kind, rows, fold, add }: Batch): { table: Item[]; counts: Counts } {
  const counts: Counts = { inserted: 0, updated: 0, unchanged: 0, deleted: 0, missing: 0 }
  const source = new Map<string, Item>()
  // Rows with a null are one key when rows are folded, as GROUP BY has it.
  for (const row of rows) {
    const key = JSON.stringify([row.a, row.b])
    if (fold === 'last' || !source.has(key)) source.set(key, row)
  }
  const left = [...table]
  const result: Item[] = []
  for (const row of source.values()) {
    const place = left.findIndex((other) => keyOf(row) !== undefined && keyOf(other) === keyOf(row))
    const [found] = place < 0 ? [] : left.splice(place, 1)
    if (!found) {
      if (kind === 'update' || kind === 'delete') counts.missing += 1
      else {
        counts.inserted += 1
        result.push(row)
      }
    } else if (kind === 'delete') counts.deleted += 1
    else {
      const changed = { ...row, n: add ? sum(found.n, row.n) : row.n }
      counts[changed.n === found.n && changed.text === found.text ? 'unchanged' : 'updated'] += 1
      result.push(changed)
    }
  }
  if (kind === 'merge') counts.deleted += left.length
  else result.push(...left)
  return { table: result, counts }
}

async function send(
  db: Db,
  { kind, rows, fold, add, copyAbove }: Batch,
  concurrency: 'on conflict' | 'lock' | 'retry' = 'on conflict',
): Promise<BatchCounts> {
  const common = { table: 'item', key: ['a', 'b'] as const, rows, fold, copyAbove, concurrency }
  if (kind === 'delete') return batchDelete(db, common)
  const change = { update: batchUpdate, upsert: batchUpsert, merge: batchMerge }[kind]
  return change(db, { ...common, ...(add && { set: { n: 't.n + s.n' } }) })
}

const write = (rows: readonly Item[]) => rows.map(({ a, b, n, text }) => JSON.stringify([a, b, n, text])).sort()
const content = async (db: Db) =>
  write(await db.query<Item & Record<string, unknown>>('select a, b, n, text from item'))

async function fill(db: Db, rows: readonly Item[]): Promise<Item[]> {
  await db.exec('truncate item')
  const { table } = apply([], { kind: 'upsert', rows, fold: 'last', add: false, copyAbove: 0 })
  if (table.length > 0) await batchUpsert(db, { table: 'item', key: ['a', 'b'], rows: table })
  return table
}

const create = 'create table item (a int, b text, n int, text text, unique (b, a))'

describe.each(databases)('batches on $name', ({ open }) => {
  it(`do to any table what their model does, and count it (seed ${seed}, ${runs} runs)`, async () => {
    await using db = await open()
    await db.exec(create)
    const check = async (before: Item[], list: Batch[]) => {
      let table = await fill(db, before)
      for (const batch of list) {
        const expected = apply(table, batch)
        const counts = await send(db, batch)
        expect(Object.fromEntries(Object.entries(counts).map(([name, n]) => [name, Number(n)]))).toEqual(
          expected.counts,
        )
        table = expected.table
        expect(await content(db)).toEqual(write(table))
      }
    }
    const list = fc.array(batches('update', 'upsert', 'delete', 'merge'), { minLength: 1, maxLength: 4 })
    await fc.assert(fc.asyncProperty(fc.array(item, { maxLength: 8 }), list, check), { seed, numRuns: runs })
  })
})

describe.each(servers)('batches beside each other on $name', ({ open }) => {
  const cases: readonly [concurrency: 'on conflict' | 'lock' | 'retry', kinds: readonly Kind[]][] = [
    ['on conflict', ['update']],
    ['on conflict', ['upsert']],
    ['on conflict', ['delete']],
    ['retry', ['upsert']],
    ['lock', ['update', 'upsert', 'delete', 'merge']],
  ]
  it.each(cases)(`by %s, of %j, end as in one order or another (seed ${seed})`, async (concurrency, kinds) => {
    await using db = await open()
    await db.exec(create)
    const connections = await Promise.all([0, 1, 2].map(() => db.connect()))
    const group = fc.tuple(batches(...kinds), batches(...kinds), batches(...kinds))
    const check = async (before: Item[], list: [Batch, Batch, Batch]) => {
      const table = await fill(db, before)
      await Promise.all(list.map((batch, n) => send(connections[n] ?? db, batch, concurrency)))
      const orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
      ]
      const possible = orders.map((order) =>
        write(order.reduce((state, n) => apply(state, list[n] as Batch).table, table)).join(),
      )
      expect(possible).toContain((await content(db)).join())
    }
    await fc.assert(fc.asyncProperty(fc.array(item, { maxLength: 8 }), group, check), { seed, numRuns: runs })
  })
})
