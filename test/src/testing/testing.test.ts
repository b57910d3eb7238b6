import { describe, expect, it } from 'vitest'
import { createQueue, insertEvent, queueInfo, registerConsumer, setQueueConfig } from '../../../src/index.ts'
import { drain, tickNow, withQueueDatabase } from '../../../src/testing/index.ts'
import { databases } from '../../support/databases.ts'

describe('withQueueDatabase', () => {
  it('gives each caller a database of its own, with the queues and the seed asked for', async () => {
    await using one = await withQueueDatabase({ queues: ['orders'], seed: 'create table mine (id int)' })
    await using two = await withQueueDatabase({ seed: (db) => createQueue(db, 'seeded') })
    await insertEvent(one, 'orders', { data: 'x' })
    expect((await queueInfo(one)).map(({ queue }) => queue)).toEqual(['orders'])
    expect((await queueInfo(two)).map(({ queue }) => queue)).toEqual(['seeded'])
    expect(await one.query('select count(*) from mine')).toEqual([{ count: 0n }])
    expect((await one.pglite.query('select 1 as n')).rows).toEqual([{ n: 1 }])
  })
})

describe.each(databases)('drain and tickNow on $name', ({ open }) => {
  it('consume everything there is, what the handler puts in and what comes back at once for a retry too', async () => {
    await using db = await open()
    await createQueue(db, 'q')
    await registerConsumer(db, 'q', 'c')
    for (const data of ['1', '2', '3']) await insertEvent(db, 'q', { data })
    const failed = new Set<string | null>()
    const events = await drain(db, 'q', 'c', async (batch, { tx, retry }) => {
      for (const event of batch) {
        if (event.data === '2' && !failed.has('2')) {
          failed.add('2')
          await retry(event, 0)
        } else if (event.data === '3') await insertEvent(tx, 'q', { data: '4' })
      }
    })
    expect(events.map(({ data }) => data)).toEqual(['1', '2', '3', expect.any(String), expect.any(String)])
    expect(
      events
        .slice(3)
        .map(({ data }) => data)
        .sort(),
    ).toEqual(['2', '4'])
    expect(await drain(db, 'q', 'c')).toEqual([])
  })

  it('tick at once whatever the settings, leave them as they were, and skip no event id', async () => {
    await using db = await open()
    await createQueue(db, 'q')
    await setQueueConfig(db, 'q', { tickerMaxLag: '1 hour', tickerMaxCount: 1000, tickerIdlePeriod: '1 day' })
    const before = await queueInfo(db, 'q')
    const id = await insertEvent(db, 'q', {})
    expect([await tickNow(db, 'q'), await tickNow(db, 'q')]).toEqual([2n, 3n])
    expect(await insertEvent(db, 'q', {})).toBe(id + 1n)
    expect((await queueInfo(db, 'q'))[0]?.config).toEqual(before[0]?.config)
    await expect(tickNow(db, 'none')).rejects.toMatchObject({ code: 'PQ001' })
    await setQueueConfig(db, 'q', { tickerPaused: true })
    await expect(tickNow(db, 'q')).rejects.toMatchObject({ code: 'PQ010' })
  })
})
