import { describe, expect, it } from 'vitest'
import type { Db } from '../../src/db/db.ts'
import { databases, servers } from '../support/databases.ts'
import { backend, busyQueue, consume, insert, one, tick, waiting } from '../support/queues.ts'

interface Delivered {
  readonly batch: bigint
  readonly id: bigint
  readonly txid: bigint
}

/** Every event of every batch there is, each batch finished. */
async function batches(db: Db, queue: string, consumer: string): Promise<Delivered[][]> {
  const found: Delivered[][] = []
  for (;;) {
    const { batch } = await one<{ batch: bigint | null }>(db, 'select pgq.next_batch($1, $2) as batch', [
      queue,
      consumer,
    ])
    if (batch === null) return found
    const events = await db.query<{ id: bigint; txid: bigint }>(
      'select ev_id as id, ev_txid as txid from pgq.get_batch_events($1)',
      [batch],
    )
    if (events.length > 0) found.push(events.map(({ id, txid }) => ({ batch, id, txid })))
    await db.query('select pgq.finish_batch($1)', [batch])
  }
}

const split = (db: Db, queue: string, most: number) =>
  one<{ n: number }>(db, 'select pgq.split_ticks($1, $2) as n', [queue, most])

async function insertMany(db: Db, queue: string, count: number): Promise<void> {
  await db.query(
    `select pgq.insert_events($1, array_fill('t'::text, array[$2::int]), array_fill('d'::text, array[$2::int]))`,
    [queue, count],
  )
}

describe.each(databases)('split_ticks on $name', ({ open }) => {
  it('cuts what waits into batches of bounded size, loses and repeats nothing, and splits no transaction', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['a', 'b'])
    for (let n = 0; n < 30; n++) await insertMany(db, 'q', 1 + (n % 4))
    await insertMany(db, 'q', 50)
    for (let n = 0; n < 30; n++) await insertMany(db, 'q', 2)
    const { n: added } = await split(db, 'q', 20)
    expect(added).toBeGreaterThan(6)
    const all = await batches(db, 'q', 'a')
    expect(all.map(({ length }) => length).filter((length) => length > 20)).toEqual([50])
    expect(all).toHaveLength(added + 1)
    const ids = all.flat().map(({ id }) => id)
    expect(ids).toEqual([...ids].sort((a, b) => Number(a - b)))
    expect(new Set(ids).size).toBe(73 + 50 + 60)
    const transactions = all.map((events) => new Set(events.map(({ txid }) => txid)))
    expect(transactions.reduce((sum, { size }) => sum + size, 0)).toBe(new Set(all.flat().map(({ txid }) => txid)).size)
    expect((await batches(db, 'q', 'b')).map(({ length }) => length)).toEqual(all.map(({ length }) => length))
  })

  it('goes on as ever after it: new events come once, the queue ticks and rotates', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['a'])
    for (let n = 0; n < 10; n++) await insert(db, 'q', `old ${n}`)
    await tick(db, 'q')
    expect((await split(db, 'q', 3)).n).toBe(3)
    await insert(db, 'q', 'new')
    await tick(db, 'q')
    expect(await consume(db, 'q', 'a')).toEqual([...Array.from({ length: 10 }, (_, n) => `old ${n}`), 'new'])
    expect((await split(db, 'q', 3)).n).toBe(0)
  })

  it('leaves small batches, queues without consumers and empty queues as they are', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    await insertMany(db, 'q', 10)
    expect(await split(db, 'q', 3)).toEqual({ n: 0 })
    await db.query(`select pgq.register_consumer('q', 'a')`)
    expect(await split(db, 'q', 3)).toEqual({ n: 0 })
    await insertMany(db, 'q', 3)
    await tick(db, 'q')
    const before = await db.query('select * from pgq.tick order by tick_id')
    expect(await split(db, 'q', 3)).toEqual({ n: 0 })
    expect(await db.query('select * from pgq.tick order by tick_id')).toEqual(before)
  })

  it('refuses when a consumer has the batch open, and names it', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['a', 'slow one'])
    for (let n = 0; n < 6; n++) await insert(db, 'q', 'x')
    await tick(db, 'q')
    await db.query(`select pgq.next_batch('q', 'slow one')`)
    await expect(split(db, 'q', 2)).rejects.toMatchObject({
      code: 'PQ058',
      message: expect.stringContaining('"slow one"'),
      hint: expect.stringContaining('register_consumer_at'),
    })
    await db.query(
      `select pgq.register_consumer_at('q', 'slow one', last_tick) from pgq.get_consumer_info('q', 'slow one')`,
    )
    expect((await split(db, 'q', 2)).n).toBe(2)
    expect((await batches(db, 'q', 'slow one')).map(({ length }) => length)).toEqual([2, 2, 2])
  })

  it('names what it was called wrong with', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    await expect(split(db, 'none', 2)).rejects.toMatchObject({
      code: 'PQ001',
      message: expect.stringContaining('none'),
    })
    await expect(split(db, 'q', 0)).rejects.toMatchObject({ code: 'PQ008', message: expect.stringContaining('not 0') })
    await db.query(`select pgq.set_queue_config('q', 'external_ticker', 'true')`)
    await expect(split(db, 'q', 2)).rejects.toMatchObject({ code: 'PQ010' })
    await expect(
      db.transaction(async (tx) => {
        await tx.query('set transaction isolation level repeatable read')
        await split(tx, 'q', 2)
      }),
    ).rejects.toMatchObject({ code: '40001' })
  })
})

describe.each(servers)('split_ticks with transactions side by side on $name', ({ open }) => {
  it('takes them in the order of their last events, and leaves an open one for later', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['a'])
    await using reader = await db.connect()
    await using open_ = await db.connect()
    await reader.exec('begin')
    await insert(reader, 'q', 'reader begins')
    await open_.exec('begin')
    await insert(open_, 'q', 'not yet')
    await insert(db, 'q', 'what the reader sees')
    await insert(reader, 'q', 'reader answers')
    await reader.exec('commit')
    await insert(db, 'q', 'after both')
    expect((await split(db, 'q', 1)).n).toBe(2)
    const found = (await batches(db, 'q', 'a')).map((events) => events.map(({ id }) => id))
    expect(found).toEqual([[3n], [1n, 4n], [5n]])
    await open_.exec('commit')
    await tick(db, 'q')
    expect((await batches(db, 'q', 'a')).flat().map(({ id }) => id)).toEqual([2n])
  })

  it('waits for a consumer that is just opening a batch, then sees it', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['a'])
    for (let n = 0; n < 4; n++) await insert(db, 'q', 'x')
    await tick(db, 'q')
    await using worker = await db.connect()
    await worker.exec('begin')
    await worker.query(`select pgq.next_batch('q', 'a')`)
    await using operator = await db.connect()
    const pid = await backend(operator)
    const { result } = await waiting(
      db,
      pid,
      split(operator, 'q', 1).catch((error: unknown) => error),
    )
    await worker.exec('commit')
    expect(await result).toMatchObject({ code: 'PQ058' })
    expect(await consume(db, 'q', 'a')).toHaveLength(4)
  })
})
