import { PGlite } from '@electric-sql/pglite'
import { drizzle } from 'drizzle-orm/node-postgres'
import { drizzle as drizzlePglite } from 'drizzle-orm/pglite'
import knex from 'knex'
import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import * as v from 'valibot'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import {
  type Connectable,
  createProducer,
  createQueue,
  type Db,
  insertEvent,
  insertEventAt,
  insertEventOnce,
  insertEvents,
  install,
  type PrismaLike,
} from '../../../src/index.ts'
import { databases, servers } from '../../support/databases.ts'

const stored = async (db: Db) =>
  (await db.query<{ data: string }>(`select ev_data as data from pgq.event_1 order by ev_id`)).map(({ data }) => data)

/** Commits one transaction with events by every way, and rolls another back. */
async function produce(db: Db, transaction: (work: (tx: Connectable) => Promise<void>) => Promise<unknown>) {
  await createQueue(db, "it's a queue")
  const queue = "it's a queue"
  await transaction(async (tx) => {
    expect(await insertEvent(tx, queue, { type: 't', data: { what: '$1 ?' }, extra1: 'x' })).toBe(1n)
    expect(await insertEvents(tx, queue, [{ data: 'a' }, { data: 'b', extra2: null }])).toEqual([2n, 3n])
    expect(await insertEventOnce(tx, queue, 'key', '1 hour', { data: 'once' })).toBe(4n)
    expect(await insertEventOnce(tx, queue, 'key', '1 hour', { data: 'twice' })).toBeNull()
    expect(typeof (await insertEventAt(tx, queue, new Date(), { data: 'later' }))).toBe('bigint')
  })
  await transaction(async (tx) => {
    await insertEvent(tx, queue, { data: 'never' })
    throw new Error('rolled back')
  }).catch((error: Error) => expect(error.message).toBe('rolled back'))
  expect(await stored(db)).toEqual(['{"what":"$1 ?"}', 'a', 'b', 'once'])
}

describe.each(servers)('events in the transaction of an application on $name', ({ open }) => {
  it('of pg, by a client and by a pool', async () => {
    await using db = await open()
    const pool = new pg.Pool({ connectionString: db.url })
    await produce(db, async (work) => {
      const client = await pool.connect()
      try {
        await client.query('begin')
        await work(client)
        await client.query('commit')
      } catch (error) {
        await client.query('rollback')
        throw error
      } finally {
        client.release()
      }
    })
    await insertEvent(pool, "it's a queue", { data: 'by the pool' })
    expect(await stored(db)).toContain('by the pool')
    await pool.end()
  })

  it('of Kysely', async () => {
    await using db = await open()
    const kysely = new Kysely<object>({
      dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: db.url }) }),
    })
    await produce(db, (work) => kysely.transaction().execute((tx) => work(tx)))
    await kysely.destroy()
  })

  it('of Drizzle', async () => {
    await using db = await open()
    const pool = new pg.Pool({ connectionString: db.url })
    await produce(db, (work) => drizzle(pool).transaction((tx) => work(tx)))
    await pool.end()
  })

  it('of Knex', async () => {
    await using db = await open()
    const builder = knex({ client: 'pg', connection: db.url ?? '' })
    await produce(db, (work) => builder.transaction((tx) => work(tx)))
    await builder.destroy()
  })

  it('of Prisma, by what its transactions offer', async () => {
    await using db = await open()
    await produce(db, (work) =>
      db.transaction((tx) => {
        const prisma: PrismaLike = { $queryRawUnsafe: (sql, ...values) => tx.query(sql, values) }
        return work(prisma)
      }),
    )
  })
})

describe('events in the transaction of an application on PGlite', () => {
  it('of PGlite itself, and of Drizzle over it', async () => {
    await using pglite = new PGlite()
    await install(pglite)
    const [db] = [await import('../../../src/db/open.ts')].map(({ toDb }) => toDb(pglite))
    if (!db) throw new Error('unreachable')
    await produce(db, (work) => pglite.transaction((tx) => work(tx)))
    await drizzlePglite(pglite).transaction(async (tx) => {
      await insertEvent(tx, "it's a queue", { data: 'by Drizzle' })
    })
    expect(await stored(db)).toContain('by Drizzle')
  })
})

describe.each(databases)('a producer on $name', ({ open }) => {
  it('checks its events before they are stored', async () => {
    await using db = await open()
    await createQueue(db, 'q')
    const producer = createProducer({
      queue: 'q',
      schemas: { paid: z.object({ cents: z.number() }), named: v.object({ name: v.string() }) },
    })
    await producer.insert(db, { type: 'paid', data: { cents: 5 } })
    await producer.insertMany(db, [{ type: 'named', data: { name: 'Ada' } }])
    // @ts-expect-error wrong data does not compile
    await expect(producer.insert(db, { type: 'paid', data: { cents: '5' } })).rejects.toMatchObject({ code: 'PQ070' })
    // @ts-expect-error nor does an unknown type
    await expect(producer.insert(db, { type: 'other', data: {} })).rejects.toMatchObject({ code: 'PQ071' })
    expect(await stored(db)).toEqual(['{"cents":5}', '{"name":"Ada"}'])
  })

  it('takes any event without schemas', async () => {
    await using db = await open()
    await createQueue(db, 'q')
    const producer = createProducer({ queue: 'q' })
    expect(await producer.insert(db, { data: 'x' })).toBe(1n)
    expect(await producer.insertOnce(db, 'k', 60, { data: 'y' })).toBe(2n)
    expect(await producer.insertOnce(db, 'k', 60, { data: 'y' })).toBeNull()
    await producer.insertAt(db, new Date(), { data: 'z' })
    expect(await stored(db)).toEqual(['x', 'y'])
  })
})
