import { describe, expect, it } from 'vitest'
import type { Db } from '../../src/db/db.ts'
import { databases, servers } from '../support/databases.ts'
import { backend, busyQueue, consume, insert, one, tick, waiting } from '../support/queues.ts'

/** A queue with so many batches of one event each, for the consumer c. */
async function batchesWaiting(db: Db, count: number): Promise<void> {
  await busyQueue(db, 'q', ['c'])
  for (let n = 1; n <= count; n++) {
    await insert(db, 'q', `${n}`)
    await tick(db, 'q')
  }
}

async function next(db: Db, worker: string, dead?: string): Promise<bigint | null> {
  const { batch } = await one<{ batch: bigint | null }>(db, `select pgq_coop.next_batch('q', 'c', $1, $2) as batch`, [
    worker,
    dead ?? null,
  ])
  return batch
}
const events = async (db: Db, batch: bigint | null) =>
  (await db.query<{ data: string }>('select ev_data as data from pgq.get_batch_events($1)', [batch])).map(
    ({ data }) => data,
  )
const finish = async (db: Db, batch: bigint | null) =>
  (await one<{ n: number }>(db, 'select pgq_coop.finish_batch($1) as n', [batch])).n
const finishAs = async (db: Db, batch: bigint | null, worker: string) =>
  (await one<{ n: number }>(db, 'select pgq_coop.finish_batch($1, $2) as n', [batch, worker])).n
const age = (db: Db, batch: bigint | null) =>
  db.query(`update pgq.subscription set sub_active = now() - interval '1 hour' where sub_batch = $1`, [batch])

/** All that the workers get, in the order of their batches. */
async function drain(db: Db, workers: readonly string[]): Promise<string[]> {
  const found: string[] = []
  for (;;) {
    const open = []
    for (const worker of workers) open.push(await next(db, worker))
    if (open.every((batch) => batch === null)) return found
    for (const batch of open) {
      if (batch === null) continue
      found.push(...(await events(db, batch)))
      await finish(db, batch)
    }
  }
}

describe.each(databases)('cooperative consumers on $name', ({ open }) => {
  it('share the batches: each worker has one of its own, and each event comes once', async () => {
    await using db = await open()
    await batchesWaiting(db, 5)
    const [one_, two] = [await next(db, 'one'), await next(db, 'two')]
    expect(await next(db, 'one')).toBe(one_)
    expect([await events(db, one_), await events(db, two)]).toEqual([['1'], ['2']])
    expect([await finish(db, two), await finish(db, one_)]).toEqual([1, 1])
    expect(await drain(db, ['one', 'two', 'three'])).toEqual(['3', '4', '5'])
    expect(await next(db, 'one')).toBeNull()
  })

  it('register with their consumer, and show under its name and their own', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    const register = (worker: string | null) =>
      one(db, `select pgq_coop.register_subconsumer('q', 'c', $1) as n`, [worker])
    expect([await register('w'), await register('w')]).toEqual([{ n: 1 }, { n: 0 }])
    await expect(register(null)).rejects.toMatchObject({ code: 'PQ008' })
    await expect(db.query(`select pgq_coop.register_subconsumer('none', 'c', 'w')`)).rejects.toMatchObject({
      code: 'PQ001',
      message: expect.stringContaining('Event queue not created yet'),
    })
    await insert(db, 'q', 'x')
    await tick(db, 'q')
    const batch = await next(db, 'w')
    expect(
      await db.query(
        'select consumer_name, last_tick, current_batch, next_tick, pending_events from pgq.get_consumer_info()',
      ),
    ).toEqual([
      { consumer_name: 'c', last_tick: 2n, current_batch: null, next_tick: null, pending_events: 0n },
      { consumer_name: 'c.w', last_tick: 1n, current_batch: batch, next_tick: 2n, pending_events: expect.any(BigInt) },
    ])
    expect(await db.query('select count(distinct sub_id) as ids from pgq.subscription')).toEqual([{ ids: 1n }])
    expect(await one(db, 'select queue_name, consumer_name from pgq.get_batch_info($1)', [batch])).toEqual({
      queue_name: 'q',
      consumer_name: 'c.w',
    })
  })

  it('of another consumer keep their names', async () => {
    await using db = await open()
    await batchesWaiting(db, 1)
    await db.query(`select pgq.register_consumer('q', 'c.w')`)
    await expect(next(db, 'w')).rejects.toMatchObject({ code: 'PQ042', message: expect.stringContaining('c.w') })
  })

  it('take over the batch of a dead worker once, under the same id; the dead one is refused by its name', async () => {
    await using db = await open()
    await batchesWaiting(db, 1)
    const batch = await next(db, 'slow')
    expect(await next(db, 'quick', '10 minutes')).toBeNull()
    await age(db, batch)
    expect(await next(db, 'quick')).toBeNull()
    expect(await next(db, 'quick', '10 minutes')).toBe(batch)
    expect(await next(db, 'third', '10 minutes')).toBeNull()
    await expect(finishAs(db, batch, 'slow')).rejects.toMatchObject({
      code: 'PQ019',
      message: expect.stringContaining('quick'),
      hint: expect.stringContaining('touch'),
    })
    expect(await events(db, batch)).toEqual(['1'])
    expect([await finishAs(db, batch, 'quick'), await finishAs(db, batch, 'quick')]).toEqual([1, 0])
    expect(await drain(db, ['slow', 'quick'])).toEqual([])
  })

  it('are not dead as long as they give a sign of life', async () => {
    await using db = await open()
    await batchesWaiting(db, 1)
    const batch = await next(db, 'slow')
    for (const touch of ['select pgq_coop.touch($1) as n', `select pgq_coop.touch($1, 'slow') as n`]) {
      await age(db, batch)
      expect(await one(db, touch, [batch])).toEqual({ n: 1 })
      expect(await next(db, 'quick', '10 minutes')).toBeNull()
    }
    await expect(db.query(`select pgq_coop.touch($1, 'quick')`, [batch])).rejects.toMatchObject({ code: 'PQ019' })
    expect(await finish(db, batch)).toBe(1)
    expect(await one(db, 'select pgq_coop.touch($1) as n', [batch])).toEqual({ n: 0 })
  })

  it('that are idle and dead are unregistered, and come back when they call', async () => {
    await using db = await open()
    await batchesWaiting(db, 1)
    await db.query(`select pgq_coop.register_subconsumer('q', 'c', 'idle')`)
    await db.query(`update pgq.subscription set sub_active = now() - interval '1 hour'`)
    expect(await finish(db, await next(db, 'w', '1 minute'))).toBe(1)
    expect(await db.query('select consumer_name from pgq.get_consumer_info()')).toEqual([
      { consumer_name: 'c' },
      { consumer_name: 'c.w' },
    ])
    expect(await next(db, 'idle')).toBeNull()
  })

  it('leave no name behind, whether they are ended or die, unless it is used elsewhere', async () => {
    await using db = await open()
    await batchesWaiting(db, 3)
    const names = async () =>
      (await db.query<{ name: string }>('select co_name as name from pgq.consumer order by 1')).map(({ name }) => name)
    await db.query(`select pgq.create_queue('other')`)
    for (const worker of ['ended', 'dead', 'idle', 'here'])
      await db.query(`select pgq_coop.register_subconsumer('q', 'c', $1)`, [worker])
    await db.query(`select pgq_coop.register_subconsumer('other', 'c', 'idle')`)
    await next(db, 'dead')
    await db.query(`update pgq.subscription set sub_active = now() - interval '1 hour' where sub_id = 1`)
    await db.query(`select pgq_coop.unregister_subconsumer('q', 'c', 'ended', 0)`)
    expect(await names()).toEqual(['c', 'c.dead', 'c.here', 'c.idle'])
    await finish(db, await next(db, 'here', '1 minute'))
    await finish(db, await next(db, 'here', '1 minute'))
    expect(await names()).toEqual(['c', 'c.here', 'c.idle'])
    await db.query(`select pgq.unregister_consumer('q', 'c.here')`)
    expect(await names()).toEqual(['c', 'c.idle'])
  })

  it('respect min_lag, min_count and min_interval', async () => {
    await using db = await open()
    await batchesWaiting(db, 4)
    const custom = (lag: string | null, count: number | null) =>
      one<{ batch: bigint | null }>(db, `select pgq_coop.next_batch_custom('q', 'c', 'w', $1, $2, null) as batch`, [
        lag,
        count,
      ])
    expect(await custom('1 hour', null)).toEqual({ batch: null })
    const { batch } = await custom(null, 3)
    expect(await events(db, batch)).toHaveLength(4)
  })

  it('are ended one by one; an open batch is in the way unless it is given up', async () => {
    await using db = await open()
    await batchesWaiting(db, 2)
    const batch = await next(db, 'w')
    const unregister = (worker: string, handling: number) =>
      one(db, `select pgq_coop.unregister_subconsumer('q', 'c', $1, $2) as n`, [worker, handling])
    await expect(unregister('w', 0)).rejects.toMatchObject({
      code: 'PQ042',
      message: expect.stringContaining('subconsumer has active batch'),
    })
    expect(await unregister('w', 1)).toEqual({ n: 1 })
    expect(await unregister('w', 1)).toEqual({ n: 0 })
    expect(await finish(db, batch)).toBe(0)
    expect(await drain(db, ['x'])).toEqual(['2'])
  })

  it('get events that failed in any of them again, in any of them', async () => {
    await using db = await open()
    await batchesWaiting(db, 1)
    const batch = await next(db, 'one')
    await db.query('select pgq.event_retry($1, 1, 0)', [batch])
    await finish(db, batch)
    await db.query('select pgq.maint_retry_events()')
    await tick(db, 'q')
    expect(await drain(db, ['two'])).toEqual(['1'])
  })

  it('come and go on a live queue: nothing is lost or repeated when a plain consumer becomes cooperative, and back', async () => {
    await using db = await open()
    await batchesWaiting(db, 6)
    const plain = async () => (await one<{ batch: bigint }>(db, `select pgq.next_batch('q', 'c') as batch`)).batch
    const first = await plain()
    await expect(next(db, 'w')).rejects.toMatchObject({
      code: 'PQ042',
      message: expect.stringContaining('main consumer has batch open?'),
    })
    expect(await events(db, first)).toEqual(['1'])
    await db.query('select pgq.finish_batch($1)', [first])
    const [one_, two] = [await next(db, 'one'), await next(db, 'two')]
    expect([await events(db, one_), await events(db, two)]).toEqual([['2'], ['3']])
    await finish(db, one_)
    const back = await plain()
    expect(await events(db, back)).toEqual(['4'])
    await finish(db, two)
    await db.query('select pgq.finish_batch($1)', [back])
    expect(await consume(db, 'q', 'c')).toEqual(['5', '6'])
  })

  it('take the batch of a plain worker that is dead', async () => {
    await using db = await open()
    await batchesWaiting(db, 2)
    const { batch } = await one<{ batch: bigint }>(db, `select pgq.next_batch('q', 'c') as batch`)
    await age(db, batch)
    expect(await next(db, 'w', '1 minute')).toBe(batch)
    expect(await finish(db, batch)).toBe(1)
    expect(await drain(db, ['w'])).toEqual(['2'])
  })

  it('can finish by pgq.finish_batch too', async () => {
    await using db = await open()
    await batchesWaiting(db, 2)
    await db.query('select pgq.finish_batch($1)', [await next(db, 'w')])
    expect(await drain(db, ['w'])).toEqual(['2'])
  })

  it('hold the events of their open batches: the queue rotates only when they are done', async () => {
    await using db = await open()
    await batchesWaiting(db, 1)
    const batch = await next(db, 'w')
    for (let n = 0; n < 4; n++) {
      await tick(db, 'q')
      await db.query(`select pgq.maint_rotate_tables_step1('q')`)
      await db.query('select pgq.maint_rotate_tables_step2()')
    }
    expect(await events(db, batch)).toEqual(['1'])
  })

  it('leave nothing behind after the classic cleaning script, though batches are active', async () => {
    await using db = await open()
    for (const queue of ['q', 'other.queue']) {
      await busyQueue(db, queue, ['plain', 'c'])
      for (const worker of ['one', 'two.three']) {
        await insert(db, queue, 'x')
        await tick(db, queue)
        await db.query('select pgq_coop.next_batch($1, $2, $3)', [queue, 'c', worker])
      }
      await db.query(`select pgq.next_batch($1, 'plain')`, [queue])
    }
    await db.exec(`do $$
      declare
        r record;
      begin
        for r in select queue_name, split_part(consumer_name, '.', 1) as consumer,
                        substr(consumer_name, strpos(consumer_name, '.') + 1) as subconsumer
                   from pgq.get_consumer_info() where consumer_name like '%.%' loop
          perform pgq_coop.unregister_subconsumer(r.queue_name, r.consumer, r.subconsumer, 1);
        end loop;
        for r in select * from pgq.get_consumer_info() loop
          perform pgq.unregister_consumer(r.queue_name, r.consumer_name);
        end loop;
        for r in select * from pgq.queue loop
          perform pgq.drop_queue(r.queue_name);
        end loop;
      end $$`)
    for (const table of ['queue', 'subscription', 'event_template', 'retry_queue', 'tick', 'consumer'])
      expect(await db.query(`select * from pgq.${table}`)).toEqual([])
  })
})

describe.each(servers)('cooperative workers side by side on $name', ({ open }) => {
  it('wait for one another only while a batch is handed out, and each gets one of its own', async () => {
    await using db = await open()
    await using first = await db.connect()
    await using second = await db.connect()
    await batchesWaiting(db, 2)
    await first.exec('begin')
    const mine = await next(first, 'first')
    const { result } = await waiting(db, await backend(second), next(second, 'second'))
    await first.exec('rollback')
    expect(await result).not.toBe(mine)
    expect(await events(db, await result)).toEqual(['1'])
    expect(await events(db, await next(first, 'first'))).toEqual(['2'])
  })

  it('a worker that is taken for dead while it waits for its turn is registered again, and loses nothing', async () => {
    await using db = await open()
    await using idle = await db.connect()
    await using busy = await db.connect()
    await batchesWaiting(db, 2)
    await db.query(`select pgq_coop.register_subconsumer('q', 'c', 'idle')`)
    await db.query(`update pgq.subscription set sub_active = now() - interval '1 hour'`)
    await busy.exec('begin')
    expect(await events(busy, await next(busy, 'busy', '1 minute'))).toEqual(['1'])
    const { result } = await waiting(db, await backend(idle), next(idle, 'idle'))
    await busy.exec('commit')
    const batch = await result
    expect(await events(db, batch)).toEqual(['2'])
    expect(await finishAs(db, batch, 'idle')).toBe(1)
  })

  it('a worker that is unregistered while it is given a batch is so only when the batch is its own, or not at all', async () => {
    await using db = await open()
    await using worker = await db.connect()
    await using operator = await db.connect()
    await batchesWaiting(db, 1)
    await db.query(`select pgq_coop.register_subconsumer('q', 'c', 'w')`)
    await worker.exec('begin')
    const batch = await next(worker, 'w')
    const { result } = await waiting(
      db,
      await backend(operator),
      one(operator, `select pgq.unregister_consumer('q', 'c.w') as n`),
    )
    expect(await finishAs(worker, batch, 'w')).toBe(1)
    await worker.exec('commit')
    expect(await result).toEqual({ n: 1 })
    expect(await next(db, 'other')).toBeNull()
  })

  it('a dead worker that finishes late, from its own session, is told that its batch was taken over', async () => {
    await using db = await open()
    await using slow = await db.connect()
    await using quick = await db.connect()
    await batchesWaiting(db, 2)
    const batch = await next(slow, 'slow')
    await age(db, batch)
    expect(await next(quick, 'quick', '1 minute')).toBe(batch)
    const refusal = { code: 'PQ019', message: expect.stringContaining('taken over') }
    await expect(finish(slow, batch)).rejects.toMatchObject(refusal)
    await expect(slow.query('select pgq_coop.touch($1)', [batch])).rejects.toMatchObject(refusal)
    expect(await finish(quick, batch)).toBe(1)
    await expect(finish(slow, batch)).rejects.toMatchObject(refusal)
    expect(await finish(quick, batch)).toBe(0)
  })

  it('a worker that finishes while another takes its batch over either has it or is refused', async () => {
    await using db = await open()
    await using slow = await db.connect()
    await using quick = await db.connect()
    await batchesWaiting(db, 2)
    const batch = await next(slow, 'slow')
    await age(db, batch)
    await slow.exec('begin')
    expect(await finish(slow, batch)).toBe(1)
    const { result } = await waiting(db, await backend(quick), next(quick, 'quick', '1 minute'))
    await slow.exec('commit')
    expect(await events(db, await result)).toEqual(['2'])
  })
})
