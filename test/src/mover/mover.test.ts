import { describe, expect, it } from 'vitest'
import {
  createMover,
  createQueue,
  type Db,
  insertEvents,
  type MoverOptions,
  registerConsumer,
} from '../../../src/index.ts'
import { servers, type TestDb } from '../../support/databases.ts'
import { busyQueue, one, tick } from '../../support/queues.ts'

type Options = Omit<MoverOptions, 'sources' | 'target' | 'routes'> & Partial<MoverOptions>

function options(
  sources: Readonly<Record<string, TestDb>>,
  target: TestDb | undefined,
  rest: Options = {},
): MoverOptions {
  return {
    sources: Object.entries(sources).map(([name, { url = '' }]) => ({ name, url })),
    ...(target && { target: target.url ?? '' }),
    routes: [{ to: 'all' }],
    poll: 0.02,
    retry: { min: 0.05, max: 0.2 },
    start: 'oldest',
    ...rest,
  }
}

/** Type, data and extras of every event that a queue holds, in the order of insertion. */
async function content(db: Db, queue: string): Promise<Record<string, unknown>[]> {
  const { id } = await one<{ id: number }>(db, 'select queue_id as id from pgq.queue where queue_name = $1', [queue])
  return db.query(
    `select ev_type as type, ev_data as data, ev_extra1 as extra1, ev_extra4 as extra4 from pgq.event_${id} order by ev_id`,
  )
}

async function fill(db: Db, queue: string, count: number): Promise<void> {
  await insertEvents(
    db,
    queue,
    Array.from({ length: count }, (_, n) => ({ type: 't', data: `${queue} ${n}`, extra1: `x${n}` })),
  )
  await tick(db, queue)
}

describe.each(servers)('a mover on $name', ({ open }) => {
  it('moves the events of several queues of several databases, in order, with type, data, extras and origin', async () => {
    await using one_ = await open()
    await using two = await open()
    await using target = await open()
    for (const db of [one_, two]) for (const queue of ['a', 'b', 'left alone']) await busyQueue(db, queue)
    await createQueue(target, 'all of a')
    await createQueue(target, 'b')
    const mover = createMover(
      options({ one: one_, two }, target, {
        routes: [
          { queue: 'a', to: 'all of {queue}' },
          { queue: 'b', to: 'b' },
        ],
        chunk: 3,
      }),
    )
    await mover.once()
    for (const db of [one_, two]) for (const queue of ['a', 'b', 'left alone']) await fill(db, queue, 10)
    expect(await mover.once()).toMatchObject({ events: 40, failing: 0 })
    const moved = await content(target, 'all of a')
    for (const source of ['one', 'two']) {
      const from = moved.filter(({ extra4 }) => JSON.parse(String(extra4)).source === source)
      expect(from.map(({ data }) => data)).toEqual(Array.from({ length: 10 }, (_, n) => `a ${n}`))
      expect(from[3]).toMatchObject({ type: 't', extra1: 'x3' })
      expect(JSON.parse(String(from[3]?.extra4))).toMatchObject({ source, queue: 'a', id: 4 })
    }
    expect(await content(target, 'b')).toHaveLength(20)
    expect(await one_.query(`select consumer_name from pgq.get_consumer_info('left alone')`)).toEqual([])
    expect(await mover.once()).toMatchObject({ events: 40 })
  })

  it('leaves an extra field that the event uses itself as it is', async () => {
    await using source = await open()
    await using target = await open()
    await busyQueue(source, 'q')
    await createQueue(target, 'all')
    await insertEvents(source, 'q', [{ extra4: 'mine' }, {}])
    await tick(source, 'q')
    await createMover(options({ s: source }, target)).once()
    expect((await content(target, 'all')).map(({ extra4 }) => extra4)).toEqual([
      'mine',
      expect.stringContaining('"source":"s"'),
    ])
  })

  it('does not move again what it committed at the target before it could finish the batch at the source', async () => {
    await using source = await open()
    await using target = await open()
    await busyQueue(source, 'q')
    await createQueue(target, 'all')
    await fill(source, 'q', 5)
    await createMover(options({ s: source }, target)).once()
    await fill(source, 'q', 5)
    // The state after such a crash: the batch is open at the source, and noted as done at the target.
    const { batch } = await one<{ batch: bigint }>(source, `select pgq.next_batch('q', 'mover') as batch`)
    await target.query('update pgq_ext.completed_batch set last_batch_id = $1', [batch])
    expect(await createMover(options({ s: source }, target)).once()).toMatchObject({ batches: 1, events: 0 })
    expect(await content(target, 'all')).toHaveLength(5)
    await fill(source, 'q', 1)
    await createMover(options({ s: source }, target)).once()
    expect(await content(target, 'all')).toHaveLength(6)
  })

  it('two of the same name beside each other move each event once', async () => {
    await using source = await open()
    await using target = await open()
    await busyQueue(source, 'q')
    await registerConsumer(source, 'q', 'mover')
    await createQueue(target, 'all')
    for (let n = 0; n < 15; n++) await fill(source, 'q', 4)
    const stop = new AbortController()
    const runs = [0, 1].map(() => createMover(options({ s: source }, target)).run(stop.signal))
    const waiting = `select pending_events as n from pgq.get_consumer_info('q', 'mover') where current_batch is null`
    while ((await source.query<{ n: bigint }>(waiting))[0]?.n !== 0n)
      await new Promise((resolve) => setTimeout(resolve, 20))
    stop.abort()
    await Promise.all(runs)
    expect(await content(target, 'all')).toHaveLength(60)
  })

  it('goes on with the others while one source is down, reports it, and takes it up when it is back', async () => {
    await using good = await open()
    await using bad = await open()
    await using target = await open()
    for (const db of [good, bad]) await busyQueue(db, 'q')
    await createQueue(target, 'all')
    await fill(good, 'q', 3)
    await fill(bad, 'q', 3)
    await bad.exec('alter table pgq.tick rename to hidden')
    const errors = new Set<string>()
    const stop = new AbortController()
    const mover = createMover({ ...options({ good, bad }, target), onError: (_error, source) => errors.add(source) })
    const run = mover.run(stop.signal)
    // What is counted is told a moment after it is there.
    const stats = () => expect.poll(() => mover.stats())
    await stats().toMatchObject({ failing: 1, events: 3 })
    expect([...errors]).toEqual(['bad'])
    expect(await content(target, 'all')).toHaveLength(3)
    await bad.exec('alter table pgq.hidden rename to tick')
    await stats().toMatchObject({ events: 6 })
    expect(await content(target, 'all')).toHaveLength(6)
    stop.abort()
    await run
  })

  it('stops at an event without a route, says which, and loses nothing', async () => {
    await using source = await open()
    await busyQueue(source, 'q')
    await createQueue(source, 'orders')
    await registerConsumer(source, 'q', 'mover')
    await insertEvents(source, 'q', [{ type: 'order' }, { type: 'strange' }])
    await tick(source, 'q')
    const split = (rest: Options) => createMover(options({ s: source }, undefined, { origin: 'none', ...rest })).once()
    const orders = { queue: 'q', type: 'order', to: 'orders' }
    await expect(split({ routes: [orders] })).rejects.toThrow(/no route for an event of type strange from queue q of s/)
    expect(await content(source, 'orders')).toEqual([])
    await split({ routes: [orders, { queue: 'q', to: 'kept: {type}' }], createQueues: true })
    expect(await content(source, 'orders')).toHaveLength(1)
    expect(await content(source, 'kept: strange')).toMatchObject([{ type: 'strange', extra4: null }])
  })

  it('finds the databases of a server by pattern', async () => {
    await using source = await open()
    await using target = await open()
    await busyQueue(source, 'q')
    await createQueue(target, 'all')
    await fill(source, 'q', 2)
    const url = new URL(source.url ?? '')
    const database = url.pathname.slice(1)
    url.pathname = '/postgres'
    const sources = [{ server: url.href, databases: `${database.slice(0, -1)}?` }]
    await createMover({ ...options({}, target), sources }).once()
    expect((await content(target, 'all')).map(({ extra4 }) => JSON.parse(String(extra4)).source)).toEqual([
      database,
      database,
    ])
  })
})
