import { describe, expect, it } from 'vitest'
import { databases, servers } from '../support/databases.ts'
import { backend, busyQueue, consume, one, tick, waiting } from '../support/queues.ts'

describe.each(databases)('delayed events on $name', ({ open }) => {
  it('come when their time has come, in the order of their times', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    for (const [data, minutes] of [
      ['late', 60],
      ['second', -1],
      ['first', -2],
    ] as const)
      await db.query(`select pgq.insert_event_at('q', now() + make_interval(mins => $2::int), 'test', $1)`, [
        data,
        minutes,
      ])
    await tick(db, 'q')
    expect(await consume(db, 'q', 'c')).toEqual([])
    expect(await one(db, 'select pgq.maint_retry_events() as n')).toEqual({ n: 2 })
    expect(await one(db, 'select pgq.maint_retry_events() as n')).toEqual({ n: 0 })
    expect(await tick(db, 'q')).not.toBeNull()
    expect(await consume(db, 'q', 'c')).toEqual(['first', 'second'])
    expect(await db.query('select ev_data from pgq.delayed_event')).toEqual([{ ev_data: 'late' }])
  })

  it('are there only if their transaction commits, and can be cancelled', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await db.exec(`begin; select pgq.insert_event_at('q', now(), 'test', 'undone'); rollback`)
    const { id } = await one<{ id: bigint }>(
      db,
      `select pgq.insert_event_at('q', now(), 't', 'd', '1', '2', '3', '4') as id`,
    )
    expect(await one(db, `select pgq.cancel_event_at('other', $1) as n`, [id])).toEqual({ n: 0 })
    expect(await one(db, `select pgq.cancel_event_at('q', $1) as n`, [id])).toEqual({ n: 1 })
    expect(await one(db, `select pgq.cancel_event_at('q', $1) as n`, [id])).toEqual({ n: 0 })
    expect(await one(db, 'select pgq.maint_retry_events() as n')).toEqual({ n: 0 })
  })

  it('wait while their queue takes no events, are not counted against its limit, and go with it', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    for (let n = 1; n <= 3; n++) await db.query(`select pgq.insert_event_at('q', now(), 'test', $1)`, [`${n}`])
    await db.query(`update pgq.queue set queue_disable_insert = true, queue_per_tx_limit = 1`)
    expect(await one(db, 'select pgq.maint_retry_events() as n')).toEqual({ n: 0 })
    await db.query(`update pgq.queue set queue_disable_insert = false`)
    expect(await one(db, 'select pgq.maint_retry_events() as n')).toEqual({ n: 3 })
    await tick(db, 'q')
    expect(await consume(db, 'q', 'c')).toEqual(['1', '2', '3'])
    await db.query(`select pgq.insert_event_at('q', now(), 'test', 'x')`)
    await db.query(`select pgq.drop_queue('q', true)`)
    expect(await db.query('select * from pgq.delayed_event')).toEqual([])
  })

  it('are refused without a time and for a queue that is not there', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    await expect(db.query(`select pgq.insert_event_at('q', null, 't', 'd')`)).rejects.toMatchObject({ code: 'PQ008' })
    await expect(db.query(`select pgq.insert_event_at('r', now(), 't', 'd')`)).rejects.toMatchObject({ code: 'PQ001' })
  })
})

describe.each(databases)('events with keys on $name', ({ open }) => {
  it('come once within their window, and again after it', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await busyQueue(db, 'r')
    const once = async (queue: string, data: string) =>
      (
        await one<{ id: bigint | null }>(db, `select pgq.insert_event_once($1, 'k', '1 hour', 'test', $2) as id`, [
          queue,
          data,
        ])
      ).id
    expect(await once('q', '1')).toBe(1n)
    expect(await once('q', '2')).toBeNull()
    expect(await once('r', '3')).toBe(1n)
    await db.query(`update pgq.event_key set until = now() - interval '1 second'`)
    expect(await once('q', '4')).toBe(2n)
    await tick(db, 'q')
    expect(await consume(db, 'q', 'c')).toEqual(['1', '4'])
  })

  it('are taken again after a rollback, and expired keys are deleted by maintenance', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    await db.exec(`begin; select pgq.insert_event_once('q', 'k', '1 hour', 'test', 'undone'); rollback`)
    const again = await one<{ id: bigint | null }>(
      db,
      `select pgq.insert_event_once('q', 'k', '1 hour', 'test', 'x') as id`,
    )
    expect(again.id).not.toBeNull()
    const expire = `select func_name from pgq.maint_operations() where func_name = 'pgq.maint_expire_keys'`
    expect(await db.query(expire)).toEqual([])
    await db.query(`update pgq.event_key set until = now() - interval '1 second'`)
    expect(await db.query(expire)).toEqual([{ func_name: 'pgq.maint_expire_keys' }])
    expect(await one(db, 'select pgq.maint_expire_keys() as n')).toEqual({ n: 1 })
    expect(await one(db, 'select pgq.maint_expire_keys() as n')).toEqual({ n: 0 })
  })

  it('are refused without a key or a window', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    for (const [key, window] of [
      [null, '1 hour'],
      ['k'.repeat(1025), '1 hour'],
      ['k', null],
      ['k', '0'],
    ])
      await expect(
        db.query(`select pgq.insert_event_once('q', $1, $2, 't', 'd')`, [key, window]),
      ).rejects.toMatchObject({
        code: 'PQ008',
      })
  })
})

describe.each(servers)('events with keys on $name', ({ open }) => {
  it.each([
    ['rollback', 'not null'],
    ['commit', 'null'],
  ])('of two transactions at once: the second waits, and after %s its id is %s', async (end, expected) => {
    await using db = await open()
    await using other = await db.connect()
    await busyQueue(db, 'q')
    const insert = `select pgq.insert_event_once('q', 'k', '1 hour', 'test', 'x') as id`
    await db.exec(`begin; ${insert}`)
    const { result } = await waiting(db, await backend(other), one<{ id: bigint | null }>(other, insert))
    await db.exec(end)
    expect((await result).id === null).toBe(expected === 'null')
  })
})
