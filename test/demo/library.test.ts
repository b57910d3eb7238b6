import { describe, expect, it } from 'vitest'
import {
  batchEvents,
  consumeBatch,
  consumerInfo,
  createQueue,
  type Db,
  dropQueue,
  finishBatch,
  insertEvent,
  insertEvents,
  maintain,
  nextBatch,
  queueInfo,
  registerConsumer,
  retryEvent,
  returnRetries,
  runTicker,
  setQueueConfig,
  status,
  tick,
  tickQueue,
  unregisterConsumer,
} from '../../src/index.ts'
import { databases, servers } from '../support/databases.ts'

/** A queue that ticks whenever it is asked to and there are events, with a consumer. */
async function prepared(db: Db): Promise<void> {
  await createQueue(db, 'q')
  await setQueueConfig(db, 'q', { tickerMaxLag: 0, tickerMaxCount: 1 })
  await registerConsumer(db, 'q', 'c')
}

describe.each(databases)('queues and events on $name', ({ open }) => {
  it('creates a queue once, shows and changes its settings, and drops it only without consumers or with force', async () => {
    await using db = await open()
    const name = `it's a "queue", $1`
    expect(await createQueue(db, name)).toBe(true)
    expect(await createQueue(db, name)).toBe(false)
    await setQueueConfig(db, name, {
      tickerMaxCount: 7,
      tickerMaxLag: 1.5,
      rotationPeriod: '1 day',
      tickerPaused: true,
      disableInsert: true,
      perTransactionLimit: 3,
    })
    const [info] = await queueInfo(db, name)
    expect(info).toMatchObject({
      queue: name,
      tables: 3,
      currentTable: 0,
      lastTick: 1n,
      config: {
        tickerMaxCount: 7,
        tickerMaxLag: 1.5,
        tickerIdlePeriod: 60,
        rotationPeriod: 86_400,
        tickerPaused: true,
        externalTicker: false,
        disableInsert: true,
        perTransactionLimit: 3,
      },
    })
    await setQueueConfig(db, name, { perTransactionLimit: null })
    expect((await queueInfo(db, name))[0]?.config).toMatchObject({ perTransactionLimit: null, disableInsert: true })
    await registerConsumer(db, name, 'c')
    await expect(dropQueue(db, name)).rejects.toMatchObject({ code: 'PQ009', name: 'ConsumersAttachedError' })
    await dropQueue(db, name, { force: true })
    expect(await queueInfo(db)).toEqual([])
  })

  it('changes all of the settings given, or none', async () => {
    await using db = await open()
    await createQueue(db, 'q')
    await expect(setQueueConfig(db, 'q', { tickerMaxCount: 7, rotationPeriod: 'often' })).rejects.toMatchObject({
      code: '22007',
    })
    expect((await queueInfo(db, 'q'))[0]?.config.tickerMaxCount).toBe(500)
    await expect(setQueueConfig(db, 'none', { disableInsert: true })).rejects.toMatchObject({ code: 'PQ001' })
    await expect(setQueueConfig(db, 'none', { tickerPaused: true })).rejects.toMatchObject({ code: 'PQ001' })
  })

  it('inserts one event, none, and more than go into one statement, in order and with all fields', async () => {
    await using db = await open()
    await prepared(db)
    await insertEvent(db, 'q', { type: 'one', data: { a: [1, 'ü'] }, extra1: 'e1', extra4: `e4 {",'\\` })
    expect(await insertEvents(db, 'q', [])).toEqual([])
    const many = Array.from({ length: 10_001 }, (_, n) => ({
      type: 't',
      data: String(n),
      extra2: n === 10_000 ? 'last' : null,
    }))
    const ids = await insertEvents(db, 'q', many)
    expect(ids).toHaveLength(10_001)
    expect(ids).toEqual(ids.toSorted((a, b) => Number(a - b)))
    await tickQueue(db, 'q')
    const batch = await nextBatch(db, 'q', 'c')
    const events = await batchEvents(db, batch?.id ?? 0n)
    expect(events[0]).toMatchObject({
      id: 1n,
      type: 'one',
      data: '{"a":[1,"ü"]}',
      extra1: 'e1',
      extra2: null,
      extra4: `e4 {",'\\`,
      retry: 0,
    })
    expect(events[0]?.time).toBeInstanceOf(Date)
    expect(events.slice(1).map(({ data }) => data)).toEqual(many.map(({ data }) => data))
    expect(events.at(-1)?.extra2).toBe('last')
  })

  it('tells errors apart by code and name, with a hint', async () => {
    await using db = await open()
    await createQueue(db, 'q')
    const refused = (code: string, name: string) => ({ code, name, hint: expect.any(String) })
    await expect(insertEvent(db, 'none', {})).rejects.toMatchObject(refused('PQ001', 'QueueNotFoundError'))
    await expect(nextBatch(db, 'q', 'none')).rejects.toMatchObject(refused('PQ002', 'NotSubscribedError'))
    await expect(batchEvents(db, 99n)).rejects.toMatchObject(refused('PQ003', 'BatchNotFoundError'))
    await expect(finishBatch(db, 99n)).rejects.toMatchObject(refused('PQ003', 'BatchNotFoundError'))
    await expect(registerConsumer(db, 'q', 'c', { at: 99n })).rejects.toMatchObject(
      refused('PQ005', 'TickNotFoundError'),
    )
    await setQueueConfig(db, 'q', { disableInsert: true })
    await expect(insertEvents(db, 'q', [{}])).rejects.toMatchObject(refused('PQ006', 'InsertDisabledError'))
    await setQueueConfig(db, 'q', { disableInsert: false, perTransactionLimit: 1 })
    await expect(insertEvents(db, 'q', [{}, {}])).rejects.toMatchObject(refused('PQ007', 'TransactionLimitError'))
    await setQueueConfig(db, 'q', { tickerPaused: true })
    await expect(tickQueue(db, 'q')).rejects.toMatchObject(refused('PQ010', 'ExternalTickerError'))
  })
})

describe.each(databases)('consuming on $name', ({ open }) => {
  it('commits what the handler wrote together with the batch', async () => {
    await using db = await open()
    await prepared(db)
    await db.exec('create table seen (id bigint)')
    await insertEvents(db, 'q', [{ data: 'a' }, { data: 'b' }])
    await tick(db)
    const done = await consumeBatch(db, 'q', 'c', async (events, { tx }) => {
      await tx.query('insert into seen select unnest($1::bigint[])', [events.map(({ id }) => id)])
    })
    expect(done).toMatchObject({ events: 2, retries: 0 })
    expect(await db.query('select count(*) as seen from seen')).toEqual([{ seen: 2n }])
    expect(await consumerInfo(db, 'q', 'c')).toMatchObject([{ batch: null, pendingEvents: 0n }])
    expect(await consumeBatch(db, 'q', 'c', () => Promise.reject(new Error('no batch, no call')))).toBeUndefined()
  })

  it('rolls everything back when the handler throws, and gives the same events again', async () => {
    await using db = await open()
    await prepared(db)
    await db.exec('create table seen (id bigint)')
    const id = await insertEvent(db, 'q', { data: 'a' })
    await tick(db)
    const failing = consumeBatch(db, 'q', 'c', async (_events, { tx }) => {
      await tx.query('insert into seen values (1)')
      throw new Error('out of paper')
    })
    await expect(failing).rejects.toThrow('out of paper')
    expect(await db.query('select * from seen')).toEqual([])
    const again: bigint[] = []
    await consumeBatch(db, 'q', 'c', async (events) => {
      again.push(...events.map((event) => event.id))
    })
    expect(again).toEqual([id])
  })

  it('takes a batch that is not open any more for an error, so that its effects roll back', async () => {
    await using db = await open()
    await prepared(db)
    await db.exec('create table seen (id bigint)')
    await insertEvent(db, 'q', {})
    await tick(db)
    const moved = consumeBatch(db, 'q', 'c', async (_events, { tx }) => {
      await tx.query('insert into seen values (1)')
      await registerConsumer(tx, 'q', 'c', { at: 1n })
    })
    await expect(moved).rejects.toMatchObject({ code: 'PQ003' })
    expect(await db.query('select * from seen')).toEqual([])
  })

  it('delivers an event again to the consumer that asked, and to no other', async () => {
    await using db = await open()
    await prepared(db)
    await registerConsumer(db, 'q', 'other')
    const [first = 0n] = await insertEvents(db, 'q', [{ data: 'a' }, { data: 'b' }])
    await tick(db)
    const batch = await nextBatch(db, 'q', 'c')
    expect(await retryEvent(db, batch?.id ?? 0n, first, new Date(0))).toBe(true)
    expect(await retryEvent(db, batch?.id ?? 0n, first, 0)).toBe(false)
    await finishBatch(db, batch?.id ?? 0n)
    expect((await status(db)).retries).toMatchObject([{ queue: 'q', waiting: 1n }])
    expect(await returnRetries(db)).toBe(1)
    await setQueueConfig(db, 'q', { tickerIdlePeriod: 0 })
    await insertEvent(db, 'q', { data: 'c' })
    await tick(db)
    const drain = async (consumer: string) => {
      const found: [string | null, number][] = []
      const collect = () =>
        consumeBatch(db, 'q', consumer, async (events) => {
          found.push(...events.map(({ data, retry }): [string | null, number] => [data, retry]))
        })
      while (await collect());
      return found
    }
    expect(await drain('c')).toEqual([
      ['a', 1],
      ['c', 0],
    ])
    expect(await drain('other')).toEqual([
      ['a', 0],
      ['b', 0],
      ['c', 0],
    ])
    expect(await unregisterConsumer(db, 'q', 'other')).toBe(1)
    expect(await unregisterConsumer(db, 'q', 'other')).toBe(0)
  })
})

describe.each(databases)('ticker and maintenance on $name', ({ open }) => {
  it('rotates what is due', async () => {
    await using db = await open()
    await createQueue(db, 'q')
    await setQueueConfig(db, 'q', { rotationPeriod: 0 })
    const operations = await maintain(db)
    expect(operations.map(({ name, argument }) => [name, argument])).toEqual([
      ['pgq.maint_rotate_tables_step1', 'q'],
      ['pgq.maint_rotate_tables_step2', null],
    ])
    expect(await queueInfo(db, 'q')).toMatchObject([{ currentTable: 1, rotationComplete: true }])
  })

  it('runs every hook although one fails, calls again one that asks, and reports the failure at the end', async () => {
    await using db = await open()
    await createQueue(db, 'q')
    await db.exec(`create schema "Hooks"; create table "Hooks".calls (name text);
      create function "Hooks".broken(text) returns integer language plpgsql as $$ begin raise exception 'hook out of order'; end $$;
      create function "Hooks".thrice(i_queue text) returns integer language plpgsql as $$
      begin
          insert into "Hooks".calls values (i_queue);
          return 3 - (select count(*) from "Hooks".calls);
      end $$;
      update pgq.queue set queue_extra_maint = '{Hooks.broken,Hooks.thrice}'`)
    await expect(maintain(db)).rejects.toMatchObject({
      code: 'PQ013',
      message: expect.stringContaining('Hooks.broken(q): hook out of order'),
      cause: expect.any(AggregateError),
    })
    expect(await db.query('select name from "Hooks".calls')).toEqual([{ name: 'q' }, { name: 'q' }, { name: 'q' }])
  })

  it('ticks until the signal, and goes on after an error', async () => {
    await using db = await open()
    await createQueue(db, 'q')
    await setQueueConfig(db, 'q', { tickerMaxLag: 0, tickerMaxCount: 1 })
    await db.exec(`update pgq.queue set queue_extra_maint = '{no.such_hook}'`)
    await insertEvents(db, 'q', [{}, {}])
    const stop = new AbortController()
    const errors: unknown[] = []
    await runTicker(db, {
      signal: stop.signal,
      period: 0.01,
      maintenancePeriod: 0.01,
      onError: (error) => {
        if (errors.push(error) === 2) stop.abort()
      },
    })
    expect(errors).toMatchObject([{ code: 'PQ013' }, { code: 'PQ013' }])
    expect((await queueInfo(db, 'q'))[0]?.newEvents).toBe(0n)
  })
})

describe.each(databases)('status on $name', ({ open, openEmpty }) => {
  it('finds nothing wrong with a queue that ticks and has a consumer', async () => {
    await using db = await open()
    await prepared(db)
    const found = await status(db)
    expect(found.findings).toEqual([])
    expect(found.consumers).toMatchObject([{ queue: 'q', consumer: 'c' }])
  })

  it('says what is wrong and what to type', async () => {
    await using db = await open()
    await prepared(db)
    await createQueue(db, 'it is paused')
    await setQueueConfig(db, 'it is paused', { tickerPaused: true, disableInsert: true })
    await db.exec(`update pgq.queue set queue_switch_time = now() - interval '1 day' where queue_name = 'q';
      update pgq.tick set tick_time = now() - interval '2 hours';
      update pgq.subscription set sub_active = now() - interval '1 hour', sub_batch = 7, sub_next_tick = 1`)
    const { findings } = await status(db)
    expect(findings.map(({ subject, problem, remedy }) => `${subject}: ${problem} > ${remedy}`)).toEqual([
      "queue it is paused: its ticker is paused: consumers get nothing > skytools queue resume 'it is paused'",
      "queue it is paused: it takes no events > skytools queue config 'it is paused' disable_insert=false",
      "queue it is paused: it has no consumer: its events are for nobody > skytools consumer register 'it is paused' <consumer>",
      'queue q: no tick for 2 h: consumers get nothing > run a ticker: skytools ticker',
      expect.stringMatching(
        /^queue q: its tables should have rotated 22 h ago, and grow: \d+ kB > run a ticker: skytools ticker$/,
      ),
      'consumer c of q: batch 7 is open since 1 h > if its worker has died, start it again: it gets the same batch',
    ])
  })

  it('says how to install where nothing is installed', async () => {
    await using db = await openEmpty()
    await expect(status(db)).rejects.toMatchObject({ code: 'PQ035', hint: 'skytools install' })
  })
})

describe.each(servers)('two workers of one consumer on $name', ({ open }) => {
  it('take turns: each event is handled once', async () => {
    await using db = await open()
    await using second = await db.connect()
    await prepared(db)
    for (let n = 0; n < 10; n += 1) {
      await insertEvents(db, 'q', [{ data: `${n}a` }, { data: `${n}b` }])
      await tick(db)
    }
    const handled: (string | null)[] = []
    const work = async (connection: Db) => {
      const next = () =>
        consumeBatch(connection, 'q', 'c', async (events) => {
          handled.push(...events.map(({ data }) => data))
        })
      while (await next());
    }
    await Promise.all([work(db), work(second)])
    expect(handled.toSorted()).toEqual(Array.from({ length: 10 }, (_, n) => [`${n}a`, `${n}b`]).flat())
  })
})
