import { describe, expect, it } from 'vitest'
import type { Db } from '../../src/db/db.ts'
import { databases } from '../support/databases.ts'
import { busyQueue, consume, insert, one, tick } from '../support/queues.ts'

const next = async (db: Db, consumer = 'c') =>
  (await one<{ batch: bigint }>(db, `select pgq.next_batch('q', $1) as batch`, [consumer])).batch
const putBack = async (db: Db) => (await one<{ n: number }>(db, 'select pgq.maint_retry_events() as n')).n

describe.each(databases)('retrying on $name', ({ open }) => {
  it('gives an event again, to that consumer alone, with the same id and a count', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c', 'other'])
    await insert(db, 'q', '1')
    await insert(db, 'q', '2')
    await tick(db, 'q')
    for (let count = 1; count <= 3; count++) {
      const batch = await next(db)
      expect(await one(db, 'select pgq.event_retry($1, 1, 0::int) as n', [batch])).toEqual({ n: 1 })
      expect(await one(db, 'select pgq.event_retry($1, 1, 0::int) as n', [batch])).toEqual({ n: 0 })
      await db.query('select pgq.finish_batch($1)', [batch])
      expect(
        await db.query('select ev_id, ev_retry, ev_txid, ev_queue = queue_id as mine from pgq.retry_queue, pgq.queue'),
      ).toEqual([{ ev_id: 1n, ev_retry: count, ev_txid: null, mine: true }])
      expect(await putBack(db)).toBe(1)
      expect(await putBack(db)).toBe(0)
      await tick(db, 'q')
      expect(await db.query('select ev_id, ev_retry, ev_data from pgq.get_batch_events($1)', [await next(db)])).toEqual(
        [{ ev_id: 1n, ev_retry: count, ev_data: '1' }],
      )
    }
    expect(await consume(db, 'q', 'other')).toEqual(['1', '2'])
  })

  it('not before its time, and counts with the transaction that asks for it', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await insert(db, 'q', '1')
    await tick(db, 'q')
    const batch = await next(db)
    await db.exec('begin')
    await db.query('select pgq.event_retry($1, 1, 0::int)', [batch])
    await db.exec('rollback')
    expect(await db.query('select * from pgq.retry_queue')).toEqual([])
    await db.query(`select pgq.event_retry($1, 1, now() + interval '1 hour')`, [batch])
    expect(await putBack(db)).toBe(0)
    await db.query(`update pgq.retry_queue set ev_retry_after = now() - interval '1 second'`)
    expect(await putBack(db)).toBe(1)
  })

  it('puts back ten at a time, the longest due first', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    for (let n = 1; n <= 25; n++) await insert(db, 'q', `${n}`)
    await tick(db, 'q')
    const batch = await next(db)
    for (let n = 1; n <= 25; n++)
      await db.query(`select pgq.event_retry($1, $2, now() - make_interval(secs => $2::bigint))`, [batch, n])
    await db.query('select pgq.finish_batch($1)', [batch])
    expect([await putBack(db), await putBack(db)]).toEqual([10, 10])
    expect((await db.query('select ev_id from pgq.retry_queue order by 1')).map(({ ev_id: id }) => id)).toEqual([
      1n,
      2n,
      3n,
      4n,
      5n,
    ])
    expect([await putBack(db), await putBack(db)]).toEqual([5, 0])
    await tick(db, 'q')
    expect(await consume(db, 'q', 'c')).toHaveLength(25)
  })

  it('batch_retry retries all events of a batch but those that wait already', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    for (let n = 1; n <= 5; n++) await insert(db, 'q', `${n}`)
    await tick(db, 'q')
    const batch = await next(db)
    await db.query('select pgq.event_retry($1, 3, 1000::int)', [batch])
    expect(await one(db, 'select pgq.batch_retry($1, 0) as n', [batch])).toEqual({ n: 4 })
    expect(await one(db, 'select pgq.batch_retry($1, 0) as n', [batch])).toEqual({ n: 0 })
  })

  it('refuses an event that is not in the batch', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await insert(db, 'q', '1')
    await tick(db, 'q')
    await insert(db, 'q', '2')
    const batch = await next(db)
    for (const id of [2, 4711, null])
      await expect(db.query('select pgq.event_retry($1, $2, 0::int)', [batch, id])).rejects.toMatchObject({
        code: 'PQ004',
        message: expect.stringContaining('event not found'),
      })
    await expect(db.query('select pgq.event_retry(4711, 1, 0::int)')).rejects.toMatchObject({
      code: expect.stringMatching(/^PQ00[34]$/),
    })
  })

  it('event_retry_raw stores an event as given', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    const raw = `select pgq.event_retry_raw($1, $2, now(), $3, now(), 7, 't', 'd', '1', null, null, '4') as id`
    expect(await one(db, raw, ['q', 'c', 500])).toEqual({ id: 500n })
    expect(await one(db, raw, ['q', 'c', null])).toEqual({ id: 1n })
    await expect(db.query(raw, ['q', 'c', 500])).rejects.toMatchObject({ code: '23505' })
    for (const [queue, consumer] of [
      ['q', 'none'],
      ['none', 'c'],
      [null, null],
    ])
      await expect(db.query(raw, [queue, consumer, 1])).rejects.toMatchObject({
        code: 'PQ002',
        message: expect.stringContaining('consumer not registered'),
      })
    expect(await putBack(db)).toBe(2)
    await tick(db, 'q')
    expect(
      await db.query('select ev_id, ev_retry, ev_extra1, ev_extra4 from pgq.get_batch_events($1)', [await next(db)]),
    ).toEqual([
      { ev_id: 1n, ev_retry: 7, ev_extra1: '1', ev_extra4: '4' },
      { ev_id: 500n, ev_retry: 7, ev_extra1: '1', ev_extra4: '4' },
    ])
  })
})
