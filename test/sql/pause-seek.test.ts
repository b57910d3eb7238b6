import { describe, expect, it } from 'vitest'
import { databases } from '../support/databases.ts'
import { busyQueue, consume, insert, one, rotateSoon, tick } from '../support/queues.ts'

describe.each(databases)('pausing on $name', ({ open }) => {
  it('a paused consumer gets nothing, may finish what it holds, and goes on where it was', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c', 'other'])
    await insert(db, 'q', '1')
    await tick(db, 'q')
    const { batch } = await one<{ batch: bigint }>(db, `select pgq.next_batch('q', 'c') as batch`)
    expect(await one(db, `select pgq.pause_consumer('q', 'c') as n`)).toEqual({ n: 1 })
    expect(await one(db, `select pgq.pause_consumer('q', 'c') as n`)).toEqual({ n: 0 })
    expect(await one(db, `select pgq.next_batch('q', 'c') as batch`)).toEqual({ batch: null })
    expect(await one(db, 'select pgq.finish_batch($1) as n', [batch])).toEqual({ n: 1 })
    await insert(db, 'q', '2')
    await tick(db, 'q')
    expect(await consume(db, 'q', 'c')).toEqual([])
    expect(await consume(db, 'q', 'other')).toEqual(['1', '2'])
    expect(await one(db, `select pgq.resume_consumer('q', 'c') as n`)).toEqual({ n: 1 })
    expect(await one(db, `select pgq.resume_consumer('q', 'c') as n`)).toEqual({ n: 0 })
    expect(await consume(db, 'q', 'c')).toEqual(['2'])
    await db.query(`select pgq.pause_consumer('q', 'c')`)
    await db.query(`select pgq.unregister_consumer('q', 'c')`)
    expect(await db.query('select * from pgq.paused_consumer')).toEqual([])
    await expect(db.query(`select pgq.pause_consumer('q', 'c')`)).rejects.toMatchObject({ code: 'PQ002' })
    await expect(db.query(`select pgq.resume_consumer('q', 'c')`)).rejects.toMatchObject({ code: 'PQ002' })
  })

  it('workers of a paused consumer get nothing either', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    const next = async () =>
      (await one<{ batch: bigint | null }>(db, `select pgq_coop.next_batch('q', 'c', 'w') as batch`)).batch
    expect(await next()).toBeNull()
    await insert(db, 'q', '1')
    await tick(db, 'q')
    await db.query(`select pgq.pause_consumer('q', 'c')`)
    expect(await next()).toBeNull()
    await db.query(`select pgq.resume_consumer('q', 'c')`)
    expect(await next()).not.toBeNull()
  })

  it('a paused queue does not tick', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await insert(db, 'q', '1')
    await db.query(`select pgq.pause_queue('q')`)
    await db.query('select pgq.ticker()')
    expect(await consume(db, 'q', 'c')).toEqual([])
    await db.query(`select pgq.resume_queue('q')`)
    await db.query('select pgq.ticker()')
    expect(await consume(db, 'q', 'c')).toEqual(['1'])
    await expect(db.query(`select pgq.pause_queue('r')`)).rejects.toMatchObject({ code: 'PQ001' })
  })
})

describe.each(databases)('seeking on $name', ({ open }) => {
  it('goes back and forward, to a tick or a time', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    const ticks: (bigint | null)[] = []
    for (const data of ['1', '2', '3']) {
      await insert(db, 'q', data)
      ticks.push(await tick(db, 'q'))
    }
    expect(await consume(db, 'q', 'c')).toEqual(['1', '2', '3'])
    expect(await one(db, `select pgq.seek_consumer('q', 'c', $1::bigint) as tick`, [ticks[0]])).toEqual({
      tick: ticks[0],
    })
    expect(await consume(db, 'q', 'c')).toEqual(['2', '3'])
    const time = `(select tick_time + interval '1 microsecond' from pgq.tick where tick_id = ${ticks[1]})`
    expect(await one(db, `select pgq.seek_consumer('q', 'c', ${time}) as tick`)).toEqual({ tick: ticks[1] })
    expect(await consume(db, 'q', 'c')).toEqual(['3'])
    expect(await one(db, `select pgq.seek_consumer('q', 'c', '1') as tick`)).toEqual({ tick: 1n })
    await db.query(`select pgq.next_batch('q', 'c')`)
    expect(await one(db, `select pgq.seek_consumer('q', 'c', now() + interval '1 day') as tick`)).toEqual({
      tick: ticks[2],
    })
    expect(await consume(db, 'q', 'c')).toEqual([])
  })

  it('refuses what is not there any more, and names the oldest place there is', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    const { start } = await one<{ start: string }>(db, 'select now()::text as start')
    await insert(db, 'q', '1')
    await tick(db, 'q')
    for (let n = 0; n < 3; n++) await rotateSoon(db, 'q', ['c'])
    const { oldest } = await one<{ oldest: bigint }>(db, 'select min(tick_id) as oldest from pgq.tick')
    expect(oldest).toBeGreaterThan(1n)
    await expect(db.query(`select pgq.seek_consumer('q', 'c', 1)`)).rejects.toMatchObject({
      code: 'PQ005',
      hint: `select pgq.seek_consumer('q', 'c', ${oldest})`,
    })
    await expect(db.query(`select pgq.seek_consumer('q', 'c', $1::text)`, [start])).rejects.toMatchObject({
      code: 'PQ005',
    })
    await expect(db.query(`select pgq.seek_consumer('q', 'nobody', 1)`)).rejects.toMatchObject({ code: 'PQ002' })
    expect(await one(db, `select pgq.seek_consumer('q', 'c', ${oldest}) as tick`)).toEqual({ tick: oldest })
  })
})
