import { describe, expect, it } from 'vitest'
import type { Db } from '../../src/db/db.ts'
import { databases } from '../support/databases.ts'
import { busyQueue, consume, insert, one, tick } from '../support/queues.ts'

/** A queue with the settings of a new one; its ticks are made as old as said. */
async function quietQueue(db: Db, queue: string, ages: readonly string[]): Promise<void> {
  await db.query('select pgq.create_queue($1)', [queue])
  for (const [index, age] of ages.entries()) {
    if (index > 0)
      await db.query(
        `insert into pgq.tick (tick_queue, tick_id, tick_event_seq)
         select queue_id, nextval(queue_tick_seq::regclass), pgq.seq_getval(queue_event_seq) from pgq.queue where queue_name = $1`,
        [queue],
      )
    await db.query(
      `update pgq.tick t set tick_time = now() - $2::interval from pgq.queue q
        where q.queue_name = $1 and t.tick_queue = q.queue_id and tick_id = $3`,
      [queue, age, index + 1],
    )
  }
}

describe.each(databases)('the ticker on $name', ({ open }) => {
  const rules: { what: string; ages: string[]; events: number; ticks: boolean }[] = [
    {
      what: 'events, but few, and the last tick is young: none',
      ages: ['1 hour', '2 seconds'],
      events: 5,
      ticks: false,
    },
    {
      what: 'events, and the last tick is older than max_lag: one',
      ages: ['1 hour', '4 seconds'],
      events: 2,
      ticks: true,
    },
    {
      what: 'as many events as max_count, though the last tick is young: one',
      ages: ['1 hour', '1 second'],
      events: 501,
      ticks: true,
    },
    // The sequence reads 1 before the first event of a queue and after it.
    {
      what: 'the first event, and the last tick is young: none',
      ages: ['1 hour', '2 seconds'],
      events: 1,
      ticks: false,
    },
    {
      what: 'the first event, and the last tick is older than max_lag: one',
      ages: ['1 hour', '4 seconds'],
      events: 1,
      ticks: true,
    },
    { what: 'no events, and only one tick so far: one', ages: ['1 second'], events: 0, ticks: true },
    { what: 'no events, and less than half max_lag: none', ages: ['2 seconds', '1 second'], events: 0, ticks: false },
    {
      what: 'no events, less than twice the last spacing: none',
      ages: ['30 seconds', '16 seconds'],
      events: 0,
      ticks: false,
    },
    { what: 'no events, twice the last spacing: one', ages: ['30 seconds', '21 seconds'], events: 0, ticks: true },
    {
      what: 'no events, spacing is long, but idle_period has passed: one',
      ages: ['1 hour', '61 seconds'],
      events: 0,
      ticks: true,
    },
    {
      what: 'no events, spacing is long, idle_period has not passed: none',
      ages: ['1 hour', '50 seconds'],
      events: 0,
      ticks: false,
    },
  ]
  it.each(rules)('$what', async ({ ages, events, ticks }) => {
    await using db = await open()
    await quietQueue(db, 'q', ages)
    if (events > 0)
      await db.query(
        `select pgq.insert_events('q', array_fill('t'::text, array[$1::int]), array_fill('d'::text, array[$1::int]))`,
        [events],
      )
    const id = await tick(db, 'q')
    expect(id).toBe(ticks ? BigInt(ages.length + 1) : null)
  })

  it('ticks once for the first event of a queue, and not for one that was rolled back', async () => {
    await using db = await open()
    await quietQueue(db, 'q', ['1 hour', '30 seconds'])
    await expect(
      db.transaction(async (tx) => {
        await tx.query(`select pgq.insert_event('q', 't', 'd')`)
        throw new Error('changed my mind')
      }),
    ).rejects.toThrow('changed my mind')
    expect(await tick(db, 'q')).toBeNull()
    await db.query(`select setval('pgq.event_1_id_seq', 1, false)`)
    await insert(db, 'q', 'first')
    expect(await tick(db, 'q')).toBe(3n)
    await db.query(`update pgq.tick set tick_time = tick_time - interval '20 seconds'`)
    expect(await tick(db, 'q')).toBeNull()
  })

  it('ticker() counts the queues that got a tick, and passes over paused and external ones', async () => {
    await using db = await open()
    for (const name of ['a', 'b', 'paused', 'external']) await busyQueue(db, name)
    await db.query(`select pgq.set_queue_config('paused', 'ticker_paused', 'true')`)
    await db.query(`select pgq.set_queue_config('external', 'external_ticker', 'true')`)
    expect(await one(db, 'select pgq.ticker() as n')).toEqual({ n: 2n })
    await expect(tick(db, 'paused')).rejects.toMatchObject({
      code: 'PQ010',
      message: expect.stringContaining('Ticker has been paused for this queue'),
    })
    await expect(tick(db, 'external')).rejects.toMatchObject({
      code: 'PQ010',
      message: expect.stringContaining('This queue has external tick source.'),
    })
    await expect(tick(db, 'none')).rejects.toMatchObject({
      code: 'PQ001',
      message: expect.stringContaining('no such queue'),
    })
    await expect(db.query('select pgq.ticker(null)')).rejects.toMatchObject({ code: 'PQ001' })
  })

  it('an external tick takes id, time and event sequence as given, and moves the sequences forward only', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    const external = `select pgq.ticker($1, $2, $3, $4) as id`
    const time = '2020-01-01 00:00:00+00'
    const refusal = { code: 'PQ010', message: expect.stringContaining('queue not found or ticker disabled: ') }
    await expect(db.query(external, ['q', 10, time, 100])).rejects.toMatchObject(refusal)
    await expect(db.query(external, ['none', 10, time, 100])).rejects.toMatchObject(refusal)
    await db.query(`select pgq.set_queue_config('q', 'external_ticker', 'true')`)
    expect(await one(db, external, ['q', 10, time, 100])).toEqual({ id: 10n })
    expect(await db.query('select tick_id, tick_event_seq, tick_time from pgq.tick where tick_id = 10')).toEqual([
      { tick_id: 10n, tick_event_seq: 100n, tick_time: new Date('2020-01-01T00:00:00Z') },
    ])
    expect(await insert(db, 'q', 'x')).toBe(101n)
    await expect(db.query(external, ['q', 10, time, 100])).rejects.toMatchObject({ code: '23505' })
    expect(await one(db, external, ['q', 9, time, 50])).toEqual({ id: 9n })
    expect(await insert(db, 'q', 'y')).toBe(102n)
    await db.query(`select pgq.set_queue_config('q', 'ticker_paused', 'true')`)
    await expect(db.query(external, ['q', 11, time, 200])).rejects.toMatchObject(refusal)
  })

  it('force_tick makes the next ticker call tick, and returns the newest tick', async () => {
    await using db = await open()
    await quietQueue(db, 'q', ['1 hour', '1 second'])
    expect(await tick(db, 'q')).toBeNull()
    expect(await one(db, `select pgq.force_tick('q') as id`)).toEqual({ id: 2n })
    expect(await tick(db, 'q')).toBe(3n)
    expect(await one(db, `select pgq.force_tick('none') as id`)).toEqual({ id: null })
    expect(await one(db, 'select pgq.force_tick(null) as id')).toEqual({ id: null })
    const { before } = await one<{ before: bigint }>(
      db,
      `select pgq.seq_getval(queue_event_seq) as before from pgq.queue`,
    )
    await db.query(`select pgq.set_queue_config('q', 'ticker_paused', 'true')`)
    await db.query(`select pgq.force_tick('q')`)
    expect(await one(db, `select pgq.seq_getval(queue_event_seq) as before from pgq.queue`)).toEqual({ before })
  })

  it('refuses to tick when transaction ids have gone back', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    await db.query(`update pgq.tick set tick_snapshot = '999999999:999999999:'`)
    await expect(tick(db, 'q')).rejects.toMatchObject({
      code: 'PQ011',
      message: expect.stringContaining('Invalid PgQ state: old xmin='),
    })
  })

  it('what a transaction writes after its own tick comes in a later batch, with all else it wrote', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await db.transaction(async (tx) => {
      await insert(tx, 'q', '1')
      await tick(tx, 'q')
      expect(await consume(tx, 'q', 'c')).toEqual([])
      await insert(tx, 'q', '2')
    })
    await tick(db, 'q')
    expect(await consume(db, 'q', 'c')).toEqual(['1', '2'])
  })
})
