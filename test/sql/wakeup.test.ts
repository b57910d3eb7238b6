import { describe, expect, it } from 'vitest'
import { databases, servers } from '../support/databases.ts'
import { busyQueue, insert, one, rotate, tick } from '../support/queues.ts'

const setWakeup = 'select pgq.set_wakeup($1, $2) as n'
const tickNow = `select pgq.tick_now('q') as id`

describe.each(databases)('wake-up on $name', ({ open }) => {
  it('is on or off for each queue, and off for a new one', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    const set = async (on: boolean) => (await one<{ n: number }>(db, setWakeup, ['q', on])).n
    expect([await set(false), await set(true), await set(true), await set(false), await set(false)]).toEqual([
      1, 1, 0, 1, 0,
    ])
    await expect(db.query(setWakeup, ['none', true])).rejects.toMatchObject({ code: 'PQ001' })
    await expect(db.query(setWakeup, ['q', null])).rejects.toMatchObject({ code: 'PQ008' })
    await set(true)
    await db.query(`select pgq.drop_queue('q')`)
    expect(await db.query('select * from pgq.queue_option')).toEqual([])
  })

  it('tells of inserts, however they are made, and of ticks, with the id of the queue', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    await busyQueue(db, 'silent')
    await db.query(setWakeup, ['q', true])
    await db.exec(`create table t (id int primary key); select pgq.capture('t', 'q')`)
    const heard: string[] = []
    const stop = [
      await db.listen('pgq_insert', (payload) => heard.push(`insert ${payload}`)),
      await db.listen('pgq_tick', (payload) => heard.push(`tick ${payload}`)),
    ]
    const { id } = await one<{ id: number }>(db, `select queue_id as id from pgq.queue where queue_name = 'q'`)
    const told = async (sql: string) => {
      heard.length = 0
      await db.exec(sql)
      await db.query('select 1')
      return [...heard]
    }
    expect(await told(`select pgq.insert_event('q', 't', 'd'); select 1`)).toEqual([`insert ${id}`])
    // Once for a transaction.
    expect(await told(`begin; select pgq.insert_event('q', 't', 'd') from generate_series(1, 3); commit`)).toEqual([
      `insert ${id}`,
    ])
    expect(await told(`select pgq.insert_events('q', array['t', 't'], array['1', '2'])`)).toEqual([`insert ${id}`])
    expect(await told(`insert into t values (1)`)).toEqual([`insert ${id}`])
    expect(await told(`begin; select pgq.insert_event('q', 't', 'd'); rollback`)).toEqual([])
    expect(await told(`select pgq.ticker('q')`)).toEqual([`tick ${id}`])
    expect(await told(`select pgq.insert_event('silent', 't', 'd'); select pgq.ticker('silent')`)).toEqual([])
    // While the ticker looks by itself, producers say nothing.
    expect(await told(`select pgq.wakeup_polling(true); select pgq.insert_event('q', 't', 'd')`)).toEqual([])
    expect(await told(`select pgq.wakeup_polling(false); select pgq.insert_event('q', 't', 'd')`)).toEqual([
      `insert ${id}`,
    ])
    for (const end of stop) await end()
    expect(await told(`select pgq.insert_event('q', 't', 'd')`)).toEqual([])
  })

  it('ticks at once what is committed, whatever the settings, and makes no empty ticks', async () => {
    await using db = await open()
    await db.query(`select pgq.create_queue('q')`)
    const now = async () => (await one<{ id: bigint | null }>(db, tickNow)).id
    expect(await now()).toBeNull()
    await insert(db, 'q', '1')
    expect(await now()).toBe(2n)
    expect(await now()).toBeNull()
    await insert(db, 'q', '2')
    expect(await one(db, 'select pgq.tick_new() as n')).toEqual({ n: 0 })
    await db.query(setWakeup, ['q', true])
    expect(await one(db, 'select pgq.tick_new() as n')).toEqual({ n: 1 })
    expect(await one(db, 'select pgq.tick_new() as n')).toEqual({ n: 0 })
    await expect(db.query(`select pgq.tick_now('none')`)).rejects.toMatchObject({ code: 'PQ001' })
    await insert(db, 'q', '3')
    await db.query(`select pgq.pause_queue('q')`)
    expect(await now()).toBeNull()
    expect(await one(db, 'select pgq.tick_new() as n')).toEqual({ n: 0 })
  })

  it('sees events in every table of a queue', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    for (let slot = 0; slot < 3; slot++) {
      await insert(db, 'q', `${slot}`)
      expect((await one<{ id: bigint | null }>(db, tickNow)).id).not.toBeNull()
      await tick(db, 'q')
      await rotate(db, 'q')
    }
  })
})

describe.each(servers)('wake-up on $name', ({ open }) => {
  it('ticks an event whose transaction was open at the tick before, although its id is not new', async () => {
    await using db = await open()
    await using other = await db.connect()
    await busyQueue(db, 'q')
    await other.exec('begin')
    await insert(other, 'q', 'late')
    await insert(db, 'q', 'early')
    const now = async () => (await one<{ id: bigint | null }>(db, tickNow)).id
    expect(await now()).not.toBeNull()
    expect(await now()).toBeNull()
    await other.exec('commit')
    expect(await now()).not.toBeNull()
    expect(await now()).toBeNull()
  })
})
