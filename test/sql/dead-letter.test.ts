import { describe, expect, it } from 'vitest'
import type { Db } from '../../src/db/db.ts'
import { databases } from '../support/databases.ts'
import { busyQueue, consume, insert, one, tick } from '../support/queues.ts'

const openBatch = async (db: Db) => {
  await tick(db, 'q')
  return (await one<{ batch: bigint }>(db, `select pgq.next_batch('q', 'c') as batch`)).batch
}
const dead = (db: Db) =>
  db.query(
    'select queue_name, consumer_name, ev_id, ev_type, ev_data, error, tries from pgq.dead_letter order by ev_id',
  )

describe.each(databases)('dead letters on $name', ({ open }) => {
  it('keep the event, who gave it up and why, when the batch commits', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c', 'other'])
    await insert(db, 'q', '1')
    await insert(db, 'q', '2')
    const batch = await openBatch(db)
    await db.exec('begin')
    await db.query(`select pgq.event_dead($1, 1, 'undone')`, [batch])
    await db.exec('rollback')
    expect(await dead(db)).toEqual([])
    await db.query('select pgq.event_retry($1, 1, 0::int)', [batch])
    expect(await one(db, `select pgq.event_dead($1, 1, 'no such address') as n`, [batch])).toEqual({ n: 1 })
    expect(await one(db, `select pgq.event_dead($1, 1, 'said again') as n`, [batch])).toEqual({ n: 1 })
    await db.query('select pgq.finish_batch($1)', [batch])
    expect(await dead(db)).toEqual([
      { queue_name: 'q', consumer_name: 'c', ev_id: 1n, ev_type: 'test', ev_data: '1', error: 'said again', tries: 1 },
    ])
    expect(await one(db, 'select pgq.maint_retry_events() as n')).toEqual({ n: 0 })
    expect(await consume(db, 'q', 'other')).toEqual(['1', '2'])
  })

  it('refuse an event that is not in the batch, and a batch that is not open', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await insert(db, 'q', '1')
    const batch = await openBatch(db)
    await expect(db.query(`select pgq.event_dead($1, 2, 'x')`, [batch])).rejects.toMatchObject({ code: 'PQ004' })
    await expect(db.query(`select pgq.event_dead($1, 1, 'x')`, [batch + 1n])).rejects.toMatchObject({ code: 'PQ003' })
  })

  it('replayed go to their consumer alone, as if never tried, and once', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c', 'other'])
    for (const data of ['1', '2', '3']) await insert(db, 'q', data)
    const batch = await openBatch(db)
    for (const id of [1, 2, 3]) await db.query(`select pgq.event_dead($1, $2, 'x')`, [batch, id])
    await db.query('select pgq.finish_batch($1)', [batch])
    await consume(db, 'q', 'other')
    expect(await one(db, `select pgq.dead_letter_replay('q', 'c', 2) as n`)).toEqual({ n: 1 })
    expect(await one(db, `select pgq.dead_letter_replay('q', 'c') as n`)).toEqual({ n: 2 })
    expect(await one(db, `select pgq.dead_letter_replay('q', 'c') as n`)).toEqual({ n: 0 })
    expect(await dead(db)).toEqual([])
    expect(await one(db, 'select pgq.maint_retry_events() as n')).toEqual({ n: 3 })
    const again = await openBatch(db)
    expect(await db.query('select ev_id, ev_retry, ev_data from pgq.get_batch_events($1)', [again])).toEqual([
      { ev_id: 1n, ev_retry: 0, ev_data: '1' },
      { ev_id: 2n, ev_retry: 0, ev_data: '2' },
      { ev_id: 3n, ev_retry: 0, ev_data: '3' },
    ])
    expect(await consume(db, 'q', 'other')).toEqual([])
  })

  it('outlive their subscription, but are replayed only to one that exists', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await insert(db, 'q', '1')
    const batch = await openBatch(db)
    await db.query(`select pgq.event_dead($1, 1, 'x')`, [batch])
    await db.query('select pgq.finish_batch($1)', [batch])
    await db.query(`select pgq.unregister_consumer('q', 'c')`)
    await expect(db.query(`select pgq.dead_letter_replay('q', 'c')`)).rejects.toMatchObject({ code: 'PQ002' })
    await db.query(`select pgq.register_consumer('q', 'c')`)
    expect(await one(db, `select pgq.dead_letter_replay('q', 'c') as n`)).toEqual({ n: 1 })
    await db.query('select pgq.maint_retry_events()')
    await tick(db, 'q')
    expect(await consume(db, 'q', 'c')).toEqual(['1'])
  })

  it('are purged by consumer, event and age, and go with their queue', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    for (const data of ['1', '2', '3']) await insert(db, 'q', data)
    const batch = await openBatch(db)
    for (const id of [1, 2, 3]) await db.query(`select pgq.event_dead($1, $2, 'x')`, [batch, id])
    const purge = async (rest: string) =>
      (await one<{ n: number }>(db, `select pgq.dead_letter_purge('q', ${rest}) as n`)).n
    expect(await purge(`'other'`)).toBe(0)
    expect(await purge(`'c', 2`)).toBe(1)
    expect(await purge(`i_before => now() - interval '1 hour'`)).toBe(0)
    await db.query(`update pgq.dead_letter set dead_time = now() - interval '2 hours' where ev_id = 1`)
    expect(await purge(`i_before => now() - interval '1 hour'`)).toBe(1)
    await db.query(`select pgq.drop_queue('q', true)`)
    expect(await dead(db)).toEqual([])
  })
})
