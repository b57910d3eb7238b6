import { describe, expect, it } from 'vitest'
import type { Db } from '../../src/db/db.ts'
import { databases } from '../support/databases.ts'
import { busyQueue, consume, insert, one, tick } from '../support/queues.ts'

const nothing = {
  batch_id: null,
  cur_tick_id: null,
  prev_tick_id: null,
  cur_tick_time: null,
  prev_tick_time: null,
  cur_tick_event_seq: null,
  prev_tick_event_seq: null,
}
const next = (db: Db) => one<{ batch: bigint | null }>(db, `select pgq.next_batch('q', 'c') as batch`)
const position = (db: Db) => one(db, 'select sub_last_tick, sub_batch, sub_next_tick from pgq.subscription')

/** Ticks 2, 3 … with these times (minutes ago) and event counts since the tick before. */
async function ticks(db: Db, list: readonly [minutes: number, events: number][]): Promise<void> {
  let seq = 1
  const { queue } = await one<{ queue: number }>(db, `select queue_id as queue from pgq.queue where queue_name = 'q'`)
  await db.query(`update pgq.tick set tick_time = now() - interval '1 day'`)
  for (const [index, [minutes, events]] of list.entries()) {
    seq += events
    await db.query(
      `insert into pgq.tick (tick_queue, tick_id, tick_time, tick_event_seq) values ($1, $2, now() - make_interval(mins => $3), $4)`,
      [queue, index + 2, minutes, seq],
    )
  }
}

describe.each(databases)('subscribing on $name', ({ open }) => {
  it('starts at the newest tick, and says whether it was new', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    await insert(db, 'q', 'before')
    await tick(db, 'q')
    expect(await one(db, `select pgq.register_consumer('q', 'c') as n`)).toEqual({ n: 1 })
    expect(await one(db, `select pgq.register_consumer('q', 'c') as n`)).toEqual({ n: 0 })
    await insert(db, 'q', 'after')
    await tick(db, 'q')
    expect(await consume(db, 'q', 'c')).toEqual(['after'])
  })

  it('at a tick starts there; a subscribed consumer is moved there, forth or back, and its open batch dropped', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    for (const data of ['1', '2', '3']) {
      await insert(db, 'q', data)
      await tick(db, 'q')
    }
    expect(await one(db, `select pgq.register_consumer_at('q', 'c', 2) as n`)).toEqual({ n: 1 })
    const { batch } = await next(db)
    expect(await one(db, `select pgq.register_consumer_at('q', 'c', null) as n`)).toEqual({ n: 0 })
    expect(await next(db)).toEqual({ batch })
    expect(await one(db, `select pgq.register_consumer_at('q', 'c', 1) as n`)).toEqual({ n: 0 })
    expect(await position(db)).toEqual({ sub_last_tick: 1n, sub_batch: null, sub_next_tick: null })
    expect(await one(db, 'select pgq.finish_batch($1) as n', [batch])).toEqual({ n: 0 })
    expect(await consume(db, 'q', 'c')).toEqual(['1', '2', '3'])
    await db.query(`select pgq.register_consumer_at('q', 'c', 3)`)
    expect(await consume(db, 'q', 'c')).toEqual(['3'])
  })

  it('needs a queue, a tick that exists, and one at all', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    await expect(db.query(`select pgq.register_consumer('none', 'c')`)).rejects.toMatchObject({
      code: 'PQ001',
      message: expect.stringContaining('Event queue not created yet'),
    })
    await expect(db.query(`select pgq.register_consumer_at('q', 'c', 99)`)).rejects.toMatchObject({
      code: 'PQ005',
      message: expect.stringContaining('cannot reposition, tick not found: 99'),
    })
    await expect(db.query(`select pgq.register_consumer('q', null)`)).rejects.toMatchObject({ code: 'PQ008' })
    await db.query('delete from pgq.tick')
    await expect(db.query(`select pgq.register_consumer('q', 'c')`)).rejects.toMatchObject({
      code: 'PQ012',
      message: expect.stringContaining('No ticks for this queue.  Please run ticker on database.'),
    })
    expect(await db.query('select * from pgq.consumer')).toEqual([])
  })

  it('ends with unregister_consumer, which says how many subscriptions ended, and clears its retries', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c', 'd'])
    await busyQueue(db, 'r', ['c'])
    await insert(db, 'q', '1')
    await tick(db, 'q')
    const { batch } = await next(db)
    await db.query('select pgq.event_retry($1, 1, 0::int)', [batch])
    expect(await one(db, `select pgq.unregister_consumer('q', 'c') as n`)).toEqual({ n: 1 })
    expect(await one(db, `select pgq.unregister_consumer('q', 'c') as n`)).toEqual({ n: 0 })
    expect(await one(db, `select pgq.unregister_consumer('none', 'c') as n`)).toEqual({ n: 0 })
    expect(await db.query('select * from pgq.retry_queue')).toEqual([])
    expect(await db.query('select co_name from pgq.consumer order by 1')).toEqual([{ co_name: 'c' }, { co_name: 'd' }])
    await db.query(`select pgq.unregister_consumer('r', 'c')`)
    expect(await db.query('select co_name from pgq.consumer order by 1')).toEqual([{ co_name: 'd' }])
    expect(await one(db, 'select pgq.finish_batch($1) as n', [batch])).toEqual({ n: 0 })
    await expect(next(db)).rejects.toMatchObject({
      code: 'PQ002',
      message: expect.stringContaining('Not subscriber to queue: q/c'),
    })
  })
})

describe.each(databases)('consuming on $name', ({ open }) => {
  it('gives one batch a tick, the same until it is finished, and nothing when there is no tick more', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    const info = `select * from pgq.next_batch_info('q', 'c')`
    expect(await db.query(info)).toEqual([nothing])
    expect(await next(db)).toEqual({ batch: null })
    await insert(db, 'q', '1')
    await tick(db, 'q')
    await insert(db, 'q', '2')
    await insert(db, 'q', '3')
    await tick(db, 'q')
    const first = await one<{ batch_id: bigint }>(db, info)
    expect(first).toMatchObject({ prev_tick_id: 1n, cur_tick_id: 2n, prev_tick_event_seq: 1n, cur_tick_event_seq: 1n })
    expect(first).toMatchObject({ prev_tick_time: expect.any(Date), cur_tick_time: expect.any(Date) })
    expect(await next(db)).toEqual({ batch: first.batch_id })
    expect(await one(db, `select * from pgq.next_batch_custom('q', 'c', '1 day', 1000000, '1 day')`)).toEqual(first)
    expect(await position(db)).toEqual({ sub_last_tick: 1n, sub_batch: first.batch_id, sub_next_tick: 2n })
    expect(await one(db, 'select pgq.finish_batch($1) as n', [first.batch_id])).toEqual({ n: 1 })
    expect(await position(db)).toEqual({ sub_last_tick: 2n, sub_batch: null, sub_next_tick: null })
    expect(await consume(db, 'q', 'c')).toEqual(['2', '3'])
    expect(await db.query(info)).toEqual([nothing])
  })

  it('warns about a batch that is not open, and returns 0', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    const notices: { severity: string; message: string }[] = []
    await db.exec('select pgq.finish_batch(4711)', { onNotice: (notice) => notices.push(notice) })
    expect(notices).toMatchObject([
      { severity: 'WARNING', message: expect.stringContaining('finish_batch: batch 4711 not found') },
    ])
    expect(await one(db, 'select pgq.finish_batch(null) as n')).toEqual({ n: 0 })
  })

  it('says so when a batch is not there', async () => {
    await using db = await open()
    const cases = {
      'select * from pgq.get_batch_events(4711)': 'batch not found',
      'select * from pgq.get_batch_cursor(4711, $$c$$, 1)': 'batch not found',
      'select pgq.batch_event_sql(4711)': 'batch not found',
      'select pgq.batch_event_tables(4711)': 'Cannot find data for batch 4711',
      'select pgq.batch_retry(4711, 0)': 'batch_retry: batch 4711 not found',
    }
    for (const [sql, message] of Object.entries(cases))
      await expect(db.query(sql), sql).rejects.toMatchObject({
        code: 'PQ003',
        message: expect.stringContaining(message),
      })
    const info = await one(db, 'select * from pgq.get_batch_info(4711)')
    expect(Object.keys(info)).toHaveLength(9)
    expect(Object.values(info).every((value) => value === null)).toBe(true)
  })

  it('tells about an open batch', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await insert(db, 'q', '1')
    await insert(db, 'q', '2')
    await tick(db, 'q')
    const { batch } = await next(db)
    expect(await one(db, 'select * from pgq.get_batch_info($1)', [batch])).toEqual({
      queue_name: 'q',
      consumer_name: 'c',
      batch_start: expect.any(Date),
      batch_end: expect.any(Date),
      prev_tick_id: 1n,
      tick_id: 2n,
      lag: expect.stringMatching(/^00:00:/),
      seq_start: 1n,
      seq_end: 2n,
    })
  })

  it('gives the events of a batch in the order of their ids, and the same ones each time', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    for (const id of [30, 10, 20])
      await db.query(
        `select pgq.insert_event_raw('q', $1, null, null, null, 't', $1::bigint::text, null, null, null, null)`,
        [id],
      )
    await tick(db, 'q')
    const { batch } = await next(db)
    await insert(db, 'q', 'later')
    const read = async () =>
      (await db.query('select ev_data from pgq.get_batch_events($1)', [batch])).map((row) => row.ev_data)
    expect(await read()).toEqual(['10', '20', '30'])
    expect(await read()).toEqual(['10', '20', '30'])
    const { sql } = await one<{ sql: string }>(db, 'select pgq.batch_event_sql($1) as sql', [batch])
    expect((await db.query(sql)).map((row) => row.ev_data)).toEqual(['10', '20', '30'])
  })

  it('a cursor gives the first rows, and goes on after them; conditions choose among the rows', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    for (let n = 1; n <= 5; n++) await insert(db, 'q', `${n}`)
    await tick(db, 'q')
    const { batch } = await next(db)
    await db.transaction(async (tx) => {
      const ids = async (sql: string, params: unknown[] = []) =>
        (await tx.query(sql, params)).map((row) => Number(row.ev_id))
      const cursor = 'select * from pgq.get_batch_cursor($1, $2, $3)'
      const filtered = 'select * from pgq.get_batch_cursor($1, $2, $3, $4)'
      expect(await ids(cursor, [batch, 'a "cursor"', 2])).toEqual([1, 2])
      expect(await ids('fetch 2 from "a ""cursor"""')).toEqual([3, 4])
      expect(await ids('fetch all from "a ""cursor"""')).toEqual([5])
      expect(await ids(cursor, [batch, 'none', 0])).toEqual([])
      expect(await ids('fetch all from none')).toEqual([1, 2, 3, 4, 5])
      expect(await ids(filtered, [batch, 'odd', 100, 'ev_id % 2 = 1'])).toEqual([1, 3, 5])
      expect(await ids(filtered, [batch, 'either', 1, `ev_data = '2' or ev_data = '4'`])).toEqual([2])
      expect(await ids('fetch all from either')).toEqual([4])
      expect(await ids(filtered, [batch, 'whole', 100, null])).toEqual([1, 2, 3, 4, 5])
      for (const [id, name, limit] of [
        [null, 'n1', 1],
        [batch, null, 1],
        [batch, 'n2', null],
      ]) {
        expect(await ids(cursor, [id, name, limit])).toEqual([])
        expect(await ids(filtered, [id, name, limit, null])).toEqual([])
      }
      expect(await tx.query(`select from pg_cursors where name in ('n1', 'n2')`)).toEqual([])
    })
    await expect(db.query('fetch all from odd')).rejects.toMatchObject({ code: '34000' })
  })

  const custom = 'select cur_tick_id as tick, prev_tick_id as previous from pgq.next_batch_custom($1, $2, $3, $4, $5)'
  const cases: {
    what: string
    list: [number, number][]
    lag?: string
    count?: number
    interval?: string
    tick: bigint | null
  }[] = [
    {
      what: 'no condition: the next tick',
      list: [
        [30, 5],
        [20, 5],
      ],
      tick: 2n,
    },
    {
      what: 'min_count: not yet',
      list: [
        [30, 5],
        [20, 4],
      ],
      count: 10,
      tick: null,
    },
    {
      what: 'min_count: the newest tick that suffices',
      list: [
        [30, 5],
        [20, 5],
        [10, 5],
      ],
      count: 10,
      tick: 4n,
    },
    {
      what: 'min_count: the newest may hold twice as many',
      list: [
        [30, 10],
        [20, 10],
      ],
      count: 10,
      tick: 3n,
    },
    {
      what: 'min_count: more than twice as many, the first that suffices',
      list: [
        [30, 6],
        [20, 6],
        [10, 60],
      ],
      count: 10,
      tick: 3n,
    },
    { what: 'min_interval: a day since the first tick suffices', list: [[30, 0]], interval: '23 hours', tick: 2n },
    { what: 'min_interval: not yet', list: [[30, 5]], interval: '25 hours', tick: null },
    {
      what: 'min_interval: more than twice as long, the first that suffices',
      list: [
        [1400, 1],
        [700, 1],
        [30, 1],
      ],
      interval: '10 hours',
      tick: 3n,
    },
    { what: 'min_count or min_interval: either suffices', list: [[30, 5]], count: 100, interval: '1 hour', tick: 2n },
    { what: 'min_lag: the tick is old enough', list: [[30, 5]], lag: '20 minutes', tick: 2n },
    { what: 'min_lag: the tick is too young', list: [[30, 5]], lag: '40 minutes', tick: null },
    {
      what: 'min_lag: no older tick is looked for',
      list: [
        [30, 5],
        [1, 5],
      ],
      lag: '10 minutes',
      count: 10,
      tick: null,
    },
  ]
  it.each(cases)('next_batch_custom: $what', async ({ list, lag, count, interval, tick: expected }) => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await ticks(db, list)
    const found = await one(db, custom, ['q', 'c', lag ?? null, count ?? null, interval ?? null])
    expect(found).toEqual({ tick: expected, previous: expected === null ? null : 1n })
  })

  it('says so when the tick where the consumer stands is gone', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await tick(db, 'q')
    await db.query('delete from pgq.tick where tick_id = 1')
    await expect(next(db)).rejects.toMatchObject({
      code: 'PQ011',
      message: expect.stringContaining('PgQ corruption: Consumer c on queue q does not see tick'),
    })
  })

  it('pgq.subscription can be written under its old name: moving a consumer by UPDATE, ending it by DELETE', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await insert(db, 'q', '1')
    await tick(db, 'q')
    expect(await consume(db, 'q', 'c')).toEqual(['1'])
    await db.query('update pgq.subscription set sub_last_tick = 1')
    expect(await consume(db, 'q', 'c')).toEqual(['1'])
    await db.query('delete from pgq.subscription')
    await expect(next(db)).rejects.toMatchObject({ code: 'PQ002' })
  })
})
