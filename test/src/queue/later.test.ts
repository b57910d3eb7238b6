import { describe, expect, it } from 'vitest'
import {
  buryEvent,
  cancelEventAt,
  consumeBatch,
  deadLetters,
  insertEvent,
  insertEventAt,
  insertEventOnce,
  pauseConsumer,
  purgeDeadLetters,
  replayDeadLetters,
  resumeConsumer,
  returnRetries,
  seekConsumer,
} from '../../../src/index.ts'
import { databases } from '../../support/databases.ts'
import { busyQueue, consume, tick } from '../../support/queues.ts'

describe.each(databases)('dead letters, delayed events and positions in the library on $name', ({ open }) => {
  it('a dead letter keeps its event and error, and is replayed or purged', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    for (const data of ['1', '2']) await insertEvent(db, 'q', { type: 't', data })
    await tick(db, 'q')
    await consumeBatch(db, 'q', 'c', async (events, { batch, tx }) => {
      for (const { id } of events) await buryEvent(tx, batch.id, id, `no ${id}`)
    })
    expect(await deadLetters(db, 'q', { consumer: 'c', event: 2n })).toMatchObject([
      { queue: 'q', consumer: 'c', id: 2n, type: 't', data: '2', error: 'no 2', tries: 1 },
    ])
    expect(await deadLetters(db, null, { limit: 1 })).toHaveLength(1)
    expect(await replayDeadLetters(db, 'q', 'c', 1n)).toBe(1)
    expect(await purgeDeadLetters(db, 'q', { before: new Date(Date.now() + 60_000) })).toBe(1)
    expect(await returnRetries(db)).toBe(1)
    await tick(db, 'q')
    expect(await consume(db, 'q', 'c')).toEqual(['1'])
    await expect(replayDeadLetters(db, 'q', 'nobody')).rejects.toMatchObject({ name: 'NotSubscribedError' })
  })

  it('an event for later comes with maintenance unless it is cancelled; one with a key comes once', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await insertEventAt(db, 'q', new Date(Date.now() - 1000), { type: 't', data: { a: 1 } })
    const delayed = await insertEventAt(db, 'q', new Date(Date.now() - 1000), { type: 't' })
    expect(await cancelEventAt(db, 'q', delayed)).toBe(true)
    expect(await cancelEventAt(db, 'q', delayed)).toBe(false)
    expect(await returnRetries(db)).toBe(1)
    expect(await insertEventOnce(db, 'q', 'k', 60, { type: 't', data: 'x' })).not.toBeNull()
    expect(await insertEventOnce(db, 'q', 'k', 60, { type: 't', data: 'y' })).toBeNull()
    await tick(db, 'q')
    expect(await consume(db, 'q', 'c')).toEqual(['{"a":1}', 'x'])
  })

  it('a consumer pauses, goes on, and goes back', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await insertEvent(db, 'q', { data: '1' })
    await tick(db, 'q')
    expect([await pauseConsumer(db, 'q', 'c'), await pauseConsumer(db, 'q', 'c')]).toEqual([true, false])
    expect(await consume(db, 'q', 'c')).toEqual([])
    expect([await resumeConsumer(db, 'q', 'c'), await resumeConsumer(db, 'q', 'c')]).toEqual([true, false])
    expect(await consume(db, 'q', 'c')).toEqual(['1'])
    expect(await seekConsumer(db, 'q', 'c', 1n)).toBe(1n)
    expect(await consume(db, 'q', 'c')).toEqual(['1'])
    expect(await seekConsumer(db, 'q', 'c', new Date(Date.now() + 60_000))).toBeGreaterThan(1n)
    await expect(seekConsumer(db, 'q', 'c', new Date(0))).rejects.toMatchObject({ name: 'TickNotFoundError' })
  })
})
