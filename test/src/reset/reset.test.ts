import { describe, expect, it } from 'vitest'
import {
  createQueue,
  type Db,
  fingerprint,
  insertEvent,
  install,
  protect,
  protection,
  registerConsumer,
  reset,
  uninstall,
  unprotect,
  wipe,
} from '../../../src/index.ts'
import { databases, servers } from '../../support/databases.ts'
import { backend, busyQueue, one, tick, waiting } from '../../support/queues.ts'

async function filled(db: Db): Promise<string> {
  for (const queue of ['a', 'b%', 'it"s \' c']) {
    await busyQueue(db, queue, ['plain'])
    await insertEvent(db, queue, { data: 'x' })
    await tick(db, queue)
    await db.query(`select pgq.next_batch($1, 'plain'), pgq_coop.next_batch($1, 'group', 'worker')`, [queue])
    await db.query(`select pgq.insert_event($1, 't', 'y')`, [queue])
  }
  const { name } = await one<{ name: string }>(db, 'select current_database()::text as name')
  return name
}

describe.each(databases)('wipe on $name', ({ open }) => {
  it('drops the queues that match with everything in them, open batches included, and tells what', async () => {
    await using db = await open()
    await filled(db)
    const planned = await wipe(db, { pattern: String.raw`b\%`, dryRun: true })
    expect(planned).toEqual([
      { kind: 'subconsumer', queue: 'b%', name: 'group.worker' },
      { kind: 'consumer', queue: 'b%', name: 'group' },
      { kind: 'consumer', queue: 'b%', name: 'plain' },
      { kind: 'queue', queue: 'b%', name: 'b%' },
    ])
    expect(await wipe(db, { pattern: String.raw`b\%` })).toEqual(planned)
    expect(await db.query('select queue_name from pgq.queue order by 1')).toHaveLength(2)
    expect(await insertEvent(db, 'a', {})).toBeGreaterThan(0n)
    await expect(insertEvent(db, 'b%', {})).rejects.toMatchObject({
      code: 'PQ001',
      message: expect.stringContaining('b%'),
    })
    expect(await wipe(db, { dryRun: true })).toEqual(await wipe(db))
    for (const table of ['queue', 'consumer', 'subscription', 'tick', 'event_template', 'retry_queue'])
      expect(await db.query(`select * from pgq.${table}`)).toEqual([])
    expect(await wipe(db)).toEqual([])
    await createQueue(db, 'a')
    expect(await insertEvent(db, 'a', {})).toBe(1n)
  })

  it('ends the captures of its queues: the tables stay, and can be written to', async () => {
    await using db = await open()
    await createQueue(db, 'q')
    await db.exec(`create table mine (id int primary key); select pgq.capture('mine', 'q')`)
    expect(await wipe(db)).toEqual([
      { kind: 'capture', queue: 'q', name: 'public.mine' },
      { kind: 'queue', queue: 'q', name: 'q' },
    ])
    await db.exec('insert into mine values (1)')
  })

  it('is refused in a protected database, as is whatever destroys, unless the database is named', async () => {
    await using db = await open()
    const name = await filled(db)
    expect(await protection(db)).toBeUndefined()
    await expect(protect(db, '')).rejects.toMatchObject({
      name: 'ReasonMissingError',
      code: 'PQ020',
      hint: expect.stringContaining('skytools.protect('),
    })
    await protect(db, 'production')
    expect(await protection(db)).toBe('production')
    const refusal = {
      code: 'PQ021',
      message: expect.stringContaining('production'),
      hint: expect.stringContaining(name),
    }
    await expect(wipe(db)).rejects.toMatchObject(refusal)
    await expect(reset(db)).rejects.toMatchObject(refusal)
    await expect(uninstall(db)).rejects.toMatchObject(refusal)
    await expect(uninstall(db, { force: true })).rejects.toMatchObject(refusal)
    await expect(wipe(db, { database: 'other' })).rejects.toMatchObject({ code: 'PQ023' })
    expect(await db.query('select queue_name from pgq.queue')).toHaveLength(3)
    await wipe(db, { pattern: 'a', database: name })
    await reset(db, { database: name })
    expect(await protection(db)).toBe('production')
    expect([await unprotect(db), await unprotect(db)]).toEqual([true, false])
    await uninstall(db)
  })
})

describe.each(databases)('reset on $name', ({ open, openEmpty }) => {
  it('leaves a database as a fresh install does, with ids from 1, and runs the seed', async () => {
    await using fresh = await openEmpty()
    await install(fresh)
    await using db = await open()
    await filled(db)
    const planned = await reset(db, { dryRun: true })
    expect([planned.wiped.length, planned.installed]).toEqual([12, undefined])
    const done = await reset(db, { seed: `select pgq.create_queue('orders'); create table seeded ()` })
    expect(done.wiped).toEqual(planned.wiped)
    expect(await fingerprint(db)).toEqual(await fingerprint(fresh))
    expect(await one(db, `select queue_id from pgq.queue where queue_name = 'orders'`)).toEqual({ queue_id: 1 })
    await registerConsumer(db, 'orders', 'c')
    expect(await insertEvent(db, 'orders', {})).toBe(1n)
    await reset(db, { seed: (tx) => createQueue(tx, 'by function') })
    expect(await db.query('select queue_name from pgq.queue')).toEqual([{ queue_name: 'by function' }])
  })

  it('installs where nothing was', async () => {
    await using db = await openEmpty()
    expect((await reset(db)).installed?.steps.length).toBeGreaterThan(0)
  })
})

describe.each(servers)('wipe among others on $name', ({ open }) => {
  it('gives up after the lock timeout, changes nothing, and says who is using the queues', async () => {
    await using db = await open()
    await filled(db)
    await using producer = await db.connect()
    await producer.exec(`set application_name = 'checkout'; begin; select pgq.insert_event('a', 't', 'd')`)
    const pid = await backend(producer)
    await expect(wipe(db, { lockTimeout: 0.05 })).rejects.toMatchObject({
      code: 'PQ022',
      message: expect.stringMatching(new RegExp(`session ${pid} .*checkout.*idle in transaction`)),
      hint: expect.stringContaining('pg_terminate_backend'),
    })
    expect(await db.query('select queue_name from pgq.queue')).toHaveLength(3)
    await producer.exec('commit')
    await wipe(db, { lockTimeout: '1 second' })
  })

  it('waits for a producer, and tells those who come after it that there is no such queue', async () => {
    await using db = await open()
    await filled(db)
    await using producer = await db.connect()
    await using consumer = await db.connect()
    await using operator = await db.connect()
    await consumer.query(`select pgq.next_batch('a', 'plain')`)
    await producer.exec(`begin; select pgq.insert_event('a', 't', 'd')`)
    const { result } = await waiting(db, await backend(operator), wipe(operator))
    await producer.exec('commit')
    expect(await result).toHaveLength(12)
    await expect(insertEvent(producer, 'a', {})).rejects.toMatchObject({ code: 'PQ001' })
    await expect(consumer.query(`select pgq.next_batch('a', 'plain')`)).rejects.toMatchObject({ code: 'PQ002' })
  })
})
