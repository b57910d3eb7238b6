import { describe, expect, it } from 'vitest'
import { servers } from '../support/databases.ts'
import { busyQueue, insert, one, tick } from '../support/queues.ts'
import { skytools } from './run.ts'

describe.each(servers.slice(-1))('skytools dlq and consumer on $name', ({ open }) => {
  it('lists, replays and purges dead letters', async () => {
    await using db = await open()
    const url = ['--json', '--database-url', db.url ?? '']
    await busyQueue(db, 'q', ['c'])
    for (const data of ['1', '2']) await insert(db, 'q', data)
    await tick(db, 'q')
    const { batch } = await one<{ batch: bigint }>(db, `select pgq.next_batch('q', 'c') as batch`)
    for (const id of [1, 2]) await db.query(`select pgq.event_dead($1, $2, 'no such address')`, [batch, id])
    const list = await skytools(['dlq', 'list', 'q', ...url])
    expect(JSON.parse(list.stdout)).toMatchObject([
      { queue: 'q', consumer: 'c', id: 1, error: 'no such address' },
      { id: 2 },
    ])
    const replay = await skytools(['dlq', 'replay', 'q', 'c', '--event', '1', ...url])
    expect(JSON.parse(replay.stdout)).toEqual({ queue: 'q', consumer: 'c', replayed: 1 })
    expect(await skytools(['dlq', 'purge', 'q', ...url])).toMatchObject({ status: 2 })
    const purge = await skytools(['dlq', 'purge', 'q', '--yes', ...url])
    expect(JSON.parse(purge.stdout)).toEqual({ queue: 'q', purged: 1 })
    expect(await db.query('select * from pgq.dead_letter')).toEqual([])
  })

  it('pauses, resumes and moves a consumer, and says what a place is', async () => {
    await using db = await open()
    const url = ['--json', '--database-url', db.url ?? '']
    await busyQueue(db, 'q', ['c'])
    const paused = await skytools(['consumer', 'pause', 'q', 'c', ...url])
    expect(JSON.parse(paused.stdout)).toEqual({ queue: 'q', consumer: 'c', paused: true })
    expect(await db.query('select * from pgq.paused_consumer')).toHaveLength(1)
    await skytools(['consumer', 'resume', 'q', 'c', ...url])
    expect(await db.query('select * from pgq.paused_consumer')).toEqual([])
    const moved = await skytools(['consumer', 'seek', 'q', 'c', '1', ...url])
    expect(JSON.parse(moved.stdout)).toEqual({ queue: 'q', consumer: 'c', tick: 1 })
    expect(await skytools(['consumer', 'seek', 'q', 'c', '2000-01-01T00:00:00Z', ...url])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('TickNotFoundError'),
    })
    expect(await skytools(['consumer', 'seek', 'q', 'c', 'soon', ...url])).toMatchObject({ status: 2 })
  })
})
