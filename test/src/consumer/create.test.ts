import * as v from 'valibot'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import {
  type ConsumerListeners,
  type ConsumerOptions,
  createConsumer,
  type Db,
  deadLetters,
  insertEvent,
  on,
  openDb,
  registerConsumer,
  returnRetries,
} from '../../../src/index.ts'
import { databases, servers, type TestDb } from '../../support/databases.ts'
import { busyQueue, one, tick } from '../../support/queues.ts'

type Rest = Omit<ConsumerOptions, 'db' | 'queue' | 'consumer'> & ConsumerListeners

const consumerOf = (db: Db, rest: Rest) => createConsumer({ db, queue: 'q', consumer: 'c', ...rest })

/** A queue with one batch of these events, and a table to write into. */
async function prepared(db: Db, ...events: { type?: string; data: string }[]): Promise<void> {
  await busyQueue(db, 'q', ['c'])
  await db.exec('create table done (data text)')
  for (const event of events) await insertEvent(db, 'q', event)
  await tick(db, 'q')
}

const done = async (db: Db): Promise<string[]> =>
  (await db.query<{ data: string }>('select data from done order by data')).map(({ data }) => data)

const write = (tx: Db, data: string | null) => tx.query('insert into done values ($1)', [data])

/** Retries come back at once, and are handled. */
async function again(db: Db): Promise<void> {
  await db.exec('update pgq.retry_queue set ev_retry_after = now()')
  await returnRetries(db)
  await tick(db, 'q')
}

const failures = (db: Db) =>
  db.query<{ attempts: number; error: string }>('select attempts, error from pgq.consumer_failure')

describe.each(databases)('a consumer on $name', ({ open }) => {
  it('handles each event once, in order, and its writes commit with the batch', async () => {
    await using db = await open()
    await prepared(db, { data: '1' }, { data: '2' }, { data: '3' })
    const seen: unknown[] = []
    const consumer = consumerOf(db, {
      chunk: 2,
      handler: async (event, { tx, attempt }) => {
        seen.push([event.data, attempt])
        await write(tx, event.data)
      },
    })
    expect(await consumer.once()).toEqual({ batches: 1, events: 3, retries: 0, dead: 0, failures: 0 })
    expect(seen).toEqual([
      ['1', 1],
      ['2', 1],
      ['3', 1],
    ])
    expect(await done(db)).toEqual(['1', '2', '3'])
    expect((await consumer.once()).batches).toBe(1)
  })

  it('undoes what a failing handler wrote, retries that event alone, and buries it in the end', async () => {
    await using db = await open()
    await prepared(db, { data: 'bad' }, { data: 'good' })
    const pauses: number[] = []
    const consumer = consumerOf(db, {
      retry: { limit: 3, base: 10 },
      onRetry: (_event, _error, after) => pauses.push(after),
      handler: async (event, { tx }) => {
        await write(tx, event.data)
        if (event.data === 'bad') throw new TypeError('cannot be')
      },
    })
    expect(await consumer.once()).toMatchObject({ events: 2, retries: 1 })
    expect(await done(db)).toEqual(['good'])
    await again(db)
    expect(await consumer.once()).toMatchObject({ events: 3, retries: 2, dead: 0 })
    await again(db)
    expect(await consumer.once()).toMatchObject({ events: 4, retries: 2, dead: 1 })
    expect(await done(db)).toEqual(['good'])
    expect(await deadLetters(db, 'q')).toMatchObject([{ data: 'bad', tries: 3, error: 'TypeError: cannot be' }])
    expect(pauses[0]).toBeGreaterThanOrEqual(5)
    expect(pauses[0]).toBeLessThanOrEqual(10)
    expect(pauses[1]).toBeGreaterThanOrEqual(10)
  })

  it('goes on after a statement of a handler has failed', async () => {
    await using db = await open()
    await prepared(db, { data: 'x' }, { data: 'y' })
    const consumer = consumerOf(db, {
      handler: async (event, { tx }) => {
        await write(tx, event.data)
        if (event.data === 'x') await tx.query('select 1 / 0')
      },
    })
    expect(await consumer.once()).toMatchObject({ events: 2, retries: 1, dead: 0 })
    expect(await done(db)).toEqual(['y'])
  })

  it('retries and buries what its handler asks to', async () => {
    await using db = await open()
    await prepared(db, { data: 'later' }, { data: 'never' }, { data: 'now' })
    const consumer = consumerOf(db, {
      handler: async (event, { tx, retry, bury }) => {
        await write(tx, event.data)
        if (event.data === 'later') retry(60)
        if (event.data === 'never') bury('not wanted')
      },
    })
    expect(await consumer.once()).toMatchObject({ events: 3, retries: 1, dead: 1 })
    expect(await done(db)).toEqual(['later', 'never', 'now'])
    expect(await deadLetters(db)).toMatchObject([{ data: 'never', error: 'not wanted' }])
    expect(await db.query(`select ev_data from pgq.retry_queue where ev_retry_after > now() + '50 s'`)).toHaveLength(1)
  })

  it('has handlers by type, whose data a schema has checked', async () => {
    await using db = await open()
    await prepared(
      db,
      { type: 'sum', data: '{"a": 1, "b": 2}' },
      { type: 'sum', data: '{"a": 1, "b": "2"}' },
      { type: 'name', data: '{"name": "Ada"}' },
      { type: 'name', data: 'Ada' },
      { type: 'other', data: 'x' },
    )
    const consumer = consumerOf(db, {
      handlers: {
        sum: on(z.object({ a: z.number(), b: z.number() }), ({ a, b }, { tx }) => write(tx, `${a + b}`)),
        name: on(v.object({ name: v.string() }), ({ name }, { tx }) => write(tx, name.toUpperCase())),
      },
    })
    expect(await consumer.once()).toMatchObject({ events: 5, dead: 3, retries: 0 })
    expect(await done(db)).toEqual(['3', 'ADA'])
    const [sum, name, other] = await deadLetters(db)
    expect(sum?.error).toMatch(/^EventInvalidError: ev_data is invalid: b: .*number/)
    expect(name?.error).toMatch(/no JSON/)
    expect(other?.error).toBe('EventTypeUnknownError: no handler for events of type other')
  })

  it('has one for all other types', async () => {
    await using db = await open()
    await prepared(db, { type: 'a', data: '1' }, { type: 'b', data: '2' })
    const seen: unknown[] = []
    const consumer = consumerOf(db, { handlers: { '*': (event) => seen.push(event.type) } })
    await consumer.once()
    expect(seen).toEqual(['a', 'b'])
  })

  it('gives a batch in parts to a handler of many events, and all of it again when one part fails', async () => {
    await using db = await open()
    await prepared(db, ...['1', '2', '3', '4', '5'].map((data) => ({ data })))
    let failing = true
    const sizes: number[] = []
    const consumer = consumerOf(db, {
      chunk: 2,
      batchHandler: async (events, { tx }) => {
        sizes.push(events.length)
        for (const event of events) await write(tx, event.data)
        if (failing && sizes.length === 3) throw new Error('not yet')
      },
    })
    await expect(consumer.once()).rejects.toThrow('not yet')
    expect(await done(db)).toEqual([])
    expect(await failures(db)).toEqual([{ attempts: 1, error: 'Error: not yet' }])
    failing = false
    expect(await consumer.once()).toMatchObject({ batches: 1, events: 5, failures: 0 })
    expect(sizes).toEqual([2, 2, 1, 2, 2, 1])
    expect(await done(db)).toEqual(['1', '2', '3', '4', '5'])
    expect(await failures(db)).toEqual([])
  })

  it('isolates the event that makes a batch fail again and again', async () => {
    await using db = await open()
    await prepared(db, { data: 'good' }, { data: 'poison' }, { data: 'fine' })
    const stop = new AbortController()
    const errors: unknown[] = []
    const consumer = consumerOf(db, {
      backoff: { base: 0.01 },
      batchAttempts: 2,
      batchHandler: async (events, { tx }) => {
        for (const event of events) {
          await write(tx, event.data)
          if (event.data === 'poison') throw new Error('poisoned')
        }
      },
      onError: (error) => errors.push(error),
      onBatch: () => stop.abort(),
    })
    await consumer.run(stop.signal)
    expect(errors).toHaveLength(2)
    expect(consumer.stats()).toMatchObject({ batches: 1, events: 3, retries: 1 })
    expect(await done(db)).toEqual(['fine', 'good'])
    expect(await db.query('select ev_data from pgq.retry_queue')).toEqual([{ ev_data: 'poison' }])
  })

  it('handles several events at a time outside of transactions, and retries what fails', async () => {
    await using db = await open()
    await prepared(db, ...['1', '2', '3', '4', '5'].map((data) => ({ data })))
    let running = 0
    let most = 0
    const consumer = consumerOf(db, {
      transactional: false,
      concurrency: 3,
      handler: async (event) => {
        most = Math.max(most, ++running)
        await new Promise((resolve) => setTimeout(resolve, 5))
        running -= 1
        if (event.data === '3') throw new Error('three')
      },
    })
    expect(await consumer.once()).toMatchObject({ batches: 1, events: 5, retries: 1 })
    expect(most).toBe(3)
  })

  it('ends a handler that takes too long, and keeps it from writing later', async () => {
    await using db = await open()
    await prepared(db, { data: 'slow' }, { data: 'quick' })
    let told = false
    let wake = (): void => undefined
    let late: Promise<unknown> = Promise.resolve()
    const consumer = consumerOf(db, {
      timeout: 0.05,
      retry: { limit: 1 },
      handler: (event, { tx, signal }) => {
        if (event.data === 'quick') return write(tx, 'quick')
        signal.addEventListener('abort', () => {
          told = true
        })
        late = new Promise<void>((resolve) => {
          wake = resolve
        }).then(() => write(tx, 'too late'))
        return late
      },
    })
    expect(await consumer.once()).toMatchObject({ events: 2, dead: 1 })
    expect(told).toBe(true)
    wake()
    await expect(late).rejects.toMatchObject({ code: 'PQ073' })
    expect(await done(db)).toEqual(['quick'])
    expect(await deadLetters(db)).toMatchObject([
      { data: 'slow', error: expect.stringMatching(/^HandlerTimeoutError/) },
    ])
  })

  it('ends the batch in hand when it is told to stop', async () => {
    await using db = await open()
    await prepared(db, { data: '1' }, { data: '2' })
    const stop = new AbortController()
    const consumer = consumerOf(db, {
      handler: async (event, { tx }) => {
        stop.abort()
        await write(tx, event.data)
      },
    })
    await consumer.run(stop.signal)
    expect(await done(db)).toEqual(['1', '2'])
    expect(consumer.stats()).toMatchObject({ batches: 1 })
  })

  it('gives the batch up when that takes longer than it may, and it comes again', async () => {
    await using db = await open()
    await prepared(db, { data: '1' })
    const stop = new AbortController()
    const consumer = consumerOf(db, {
      drain: 0.05,
      handler: async (event, { tx }) => {
        await write(tx, event.data)
        stop.abort()
        await new Promise(() => undefined)
      },
    })
    await consumer.run(stop.signal)
    expect(consumer.stats()).toMatchObject({ batches: 0 })
    expect(await done(db)).toEqual([])
    await consumerOf(db, { handler: (event, { tx }) => write(tx, event.data) }).once()
    expect(await done(db)).toEqual(['1'])
  })

  it('waits for batches of the size that it wants', async () => {
    await using db = await open()
    await prepared(db, { data: '1' })
    const consumer = consumerOf(db, { minCount: 2, handler: () => undefined })
    expect(await consumer.once()).toMatchObject({ batches: 0 })
    for (const data of ['2', '3']) await insertEvent(db, 'q', { data })
    await tick(db, 'q')
    expect(await consumer.once()).toMatchObject({ batches: 1, events: 3 })
  })

  it('takes the batches of many ticks as one when it lags behind, and each event once', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    for (let n = 0; n < 60; n += 1) {
      await insertEvent(db, 'q', { data: String(2 * n) })
      await insertEvent(db, 'q', { data: String(2 * n + 1) })
      await tick(db, 'q')
    }
    const seen: number[] = []
    const consumer = consumerOf(db, { batchHandler: (events) => seen.push(...events.map(({ data }) => Number(data))) })
    const { batches, events } = await consumer.once()
    expect(events).toBe(120)
    expect(batches).toBeLessThan(15)
    expect(seen).toEqual(Array.from({ length: 120 }, (_, n) => n))
  })

  it('subscribes itself, unless it shall not', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    const rest: Rest = { handler: () => undefined }
    await expect(consumerOf(db, { ...rest, register: false }).once()).rejects.toMatchObject({ code: 'PQ002' })
    await expect(consumerOf(db, { ...rest, register: false }).run(AbortSignal.timeout(5000))).rejects.toMatchObject({
      code: 'PQ002',
    })
    await consumerOf(db, rest).once()
    expect(await registerConsumer(db, 'q', 'c')).toBe(false)
  })

  it('works as one of several, with no batch left to its name at the end', async () => {
    await using db = await open()
    await prepared(db)
    await db.query(`select pgq.unregister_consumer('q', 'c')`)
    const stop = new AbortController()
    const consumer = consumerOf(db, {
      coop: { worker: 'w' },
      poll: 0.01,
      handler: async (event, { tx }) => {
        await write(tx, event.data)
        stop.abort()
      },
    })
    const running = consumer.run(stop.signal)
    while ((await db.query(`select from pgq.get_consumer_info('q', 'c.w')`)).length === 0);
    await insertEvent(db, 'q', { data: '1' })
    await tick(db, 'q')
    await running
    expect(await done(db)).toEqual(['1'])
    expect(await db.query(`select consumer_name from pgq.get_consumer_info('q')`)).toEqual([{ consumer_name: 'c' }])
  })

  it('refuses options that contradict each other, and names them', async () => {
    await using db = await open()
    const handler = () => undefined
    const refused: [Rest, RegExp][] = [
      [{}, /exactly one of/],
      [{ handler, batchHandler: handler }, /exactly one of/],
      [{ handler, concurrency: 4 }, /transactional: false/],
      [{ handler, chunk: 0 }, /chunk is 0/],
      [{ handler, timeout: -1 }, /timeout is -1/],
      [{ handler, retry: { limit: 1.5 } }, /retry.limit is 1.5/],
      [{ handler, coop: { worker: '' } }, /worker is missing/],
    ]
    for (const [rest, message] of refused) expect(() => consumerOf(db, rest)).toThrow(message)
  })
})

const pooled = async (db: TestDb) => {
  const pool = await openDb(db.url, { max: 4 })
  return { pool, [Symbol.asyncDispose]: () => pool.close() }
}

describe.each(servers)('a consumer with a pool on $name', ({ open }) => {
  it('handles a batch once although its backend is killed in the middle', async () => {
    await using db = await open()
    await using owner = await pooled(db)
    await prepared(db, { data: '1' }, { data: '2' })
    const stop = new AbortController()
    let kills = 0
    const errors: unknown[] = []
    const consumer = consumerOf(owner.pool, {
      poll: 0.01,
      backoff: { base: 0.01 },
      handler: async (event, { tx }) => {
        await write(tx, event.data)
        if (event.data === '2' && kills++ === 0) {
          const { pid } = await one<{ pid: number }>(tx, 'select pg_backend_pid() as pid')
          await db.query('select pg_terminate_backend($1)', [pid])
          await tx.query('select 1')
        }
      },
      onError: (error) => errors.push(error),
      onBatch: () => stop.abort(),
    })
    await consumer.run(stop.signal)
    expect(errors).toHaveLength(1)
    expect(await done(db)).toEqual(['1', '2'])
    expect(consumer.stats()).toMatchObject({ batches: 1, events: 2, retries: 0, dead: 0 })
  })

  it('keeps a handler that it has given up from writing, on a connection that others use by then', async () => {
    await using db = await open()
    await using owner = await pooled(db)
    await prepared(db, { data: '1' })
    const stop = new AbortController()
    let wake = (): void => undefined
    const woken = new Promise<void>((resolve) => {
      wake = resolve
    })
    const late: Promise<unknown>[] = []
    const consumer = consumerOf(owner.pool, {
      drain: 0,
      handler: async (_, { tx }) => {
        await write(tx, 'given up')
        late.push(
          woken.then(() => write(tx, 'late')),
          tx.transaction((inner) => woken.then(() => write(inner, 'late, in a savepoint'))),
        )
        stop.abort()
        await Promise.allSettled(late)
      },
    })
    await consumer.run(stop.signal)
    wake()
    for (const result of await Promise.allSettled(late))
      expect(result).toMatchObject({ status: 'rejected', reason: { code: 'PQ073' } })
    expect(await done(db)).toEqual([])
  })

  it('ends a statement that takes longer than its handler may', async () => {
    await using db = await open()
    await using owner = await pooled(db)
    await prepared(db, { data: 'sleeps' }, { data: 'quick' })
    const consumer = consumerOf(owner.pool, {
      timeout: 0.1,
      retry: { limit: 1 },
      handler: async (event, { tx }) => {
        if (event.data === 'sleeps') await tx.query('select pg_sleep(600)')
        await write(tx, event.data)
      },
    })
    expect(await consumer.once()).toMatchObject({ events: 2, dead: 1 })
    expect(await done(db)).toEqual(['quick'])
  })

  it('shows signs of life while it is slow, and gives up a batch that another worker has taken', async () => {
    await using db = await open()
    await using owner = await pooled(db)
    await prepared(db)
    await db.query(`select pgq.unregister_consumer('q', 'c')`)
    await db.query(`select pgq_coop.register_subconsumer('q', 'c', 'slow')`)
    await insertEvent(db, 'q', { data: '1' })
    await tick(db, 'q')
    const stop = new AbortController()
    let reached = (): void => undefined
    const started = new Promise<void>((resolve) => {
      reached = resolve
    })
    const errors: { code?: string }[] = []
    const slow = consumerOf(owner.pool, {
      coop: { worker: 'slow', deadInterval: 100, heartbeat: 0.02 },
      drain: 1,
      handler: async (event, { tx, signal }) => {
        await write(tx, event.data)
        reached()
        await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
      },
      onError: (error) => {
        errors.push(error as { code?: string })
        stop.abort()
      },
    })
    const running = slow.run(stop.signal)
    await started
    try {
      const signs = new Set<number>()
      while (signs.size < 4) {
        const { at } = await one<{ at: number }>(
          db,
          `select extract(epoch from now() - last_seen)::float8 as at from pgq.get_consumer_info('q', 'c.slow')`,
        )
        signs.add(Math.round(at * 1000))
      }
      // A sign of life that comes in between saves it once more.
      const takeOver = `select pgq_coop.next_batch('q', 'c', 'quick', '0 s'::interval) as batch`
      while ((await one<{ batch: bigint | null }>(db, takeOver)).batch === null);
    } catch (error) {
      stop.abort()
      throw error
    }
    await running
    expect(errors).toMatchObject([{ code: 'PQ019' }])
    expect(await done(db)).toEqual([])
    await consumerOf(owner.pool, { coop: { worker: 'quick' }, handler: (e, { tx }) => write(tx, e.data) }).once()
    expect(await done(db)).toEqual(['1'])
  })
})
