import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Db } from '../../src/db/db.ts'
import { toDb } from '../../src/db/open.ts'
import { install } from '../../src/schema/install.ts'
import { backend, busyQueue, consume, insert, one, rotate, tick } from '../support/queues.ts'
import { type Server, startServer } from '../support/server.ts'

let server: Server
const clients: pg.Client[] = []

async function connect(): Promise<Db> {
  const client = new pg.Client({ connectionString: server.url })
  client.on('error', () => undefined)
  await client.connect()
  clients.push(client)
  return toDb(client)
}

beforeAll(async () => {
  server = await startServer(18, { settings: { fsync: 'on', full_page_writes: 'on', synchronous_commit: 'on' } })
  await install(await connect())
})
afterAll(async () => {
  await Promise.allSettled(clients.map((client) => client.end()))
  await server.remove()
})

/** Ends a backend in the middle of its transaction, as an administrator would, or as the kernel would. */
async function kill(db: Db, victim: Db, how: 'terminate' | 'SIGKILL'): Promise<void> {
  const pid = await backend(victim)
  if (how === 'terminate') await db.query('select pg_terminate_backend($1)', [pid])
  else process.kill(pid, 'SIGKILL')
  // SIGKILL takes the whole server through recovery: wait until it answers again.
  for (;;) {
    try {
      const probe = await connect()
      const { alive } = await one<{ alive: boolean }>(
        probe,
        'select exists (select from pg_stat_activity where pid = $1) as alive',
        [pid],
      )
      if (!alive) return
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
}

describe.each(['terminate', 'SIGKILL'] as const)('a backend that ends by %s', (how) => {
  it('in the middle of an insert leaves none of its events, and all of the others', async () => {
    const queue = `insert ${how}`
    let db = await connect()
    await busyQueue(db, queue, ['c'])
    const producer = await connect()
    await insert(db, queue, 'before')
    await producer.exec('begin')
    await insert(producer, queue, 'lost')
    await producer.query(
      `select * from pgq.insert_events($1, array_fill('x'::text, array[1000]), array_fill('lost'::text, array[1000]))`,
      [queue],
    )
    await kill(db, producer, how)
    db = await connect()
    await insert(db, queue, 'after')
    await tick(db, queue)
    expect(await consume(db, queue, 'c')).toEqual(['before', 'after'])
  })

  it('in the middle of a batch gives that batch again, whole, and no retry of it', async () => {
    const queue = `batch ${how}`
    let db = await connect()
    await busyQueue(db, queue, ['c'])
    const expected = ['1', '2', '3']
    for (const data of expected) await insert(db, queue, data)
    await tick(db, queue)
    const worker = await connect()
    const { batch } = await one<{ batch: bigint }>(worker, 'select pgq.next_batch($1, $2) as batch', [queue, 'c'])
    await worker.exec('begin')
    const events = await worker.query<{ id: bigint }>('select ev_id as id from pgq.get_batch_events($1)', [batch])
    await worker.query('select pgq.event_retry($1, $2, 0::int)', [batch, events[0]?.id])
    await worker.query('select pgq.finish_batch($1)', [batch])
    await kill(db, worker, how)
    db = await connect()
    expect(await one(db, 'select pgq.next_batch($1, $2) as batch', [queue, 'c'])).toEqual({ batch })
    expect(await consume(db, queue, 'c')).toEqual(expected)
    expect(await one(db, 'select pgq.maint_retry_events() as n')).toEqual({ n: 0 })
  })

  it.each(['step1', 'step2', 'positions'])(
    'in the middle of a rotation, %s, loses nothing and rotates again',
    async (step) => {
      const queue = `rotate ${step} ${how}`
      let db = await connect()
      await busyQueue(db, queue, ['c'])
      const found: string[] = []
      const expected: string[] = []
      const round = async (): Promise<boolean> => {
        for (let n = 0; n < 5; n++) {
          const data = `${expected.length}`
          await insert(db, queue, data)
          expected.push(data)
          await tick(db, queue)
          if (n < 4) found.push(...(await consume(db, queue, 'c')))
        }
        return rotate(db, queue)
      }
      for (let n = 0; n < 3; n++) await round()
      const maintenance = await connect()
      if (step === 'step2') await db.query('select pgq.maint_rotate_tables_step1($1)', [queue])
      await maintenance.exec('begin')
      if (step === 'step1') await maintenance.query('select pgq.maint_rotate_tables_step1($1)', [queue])
      else if (step === 'step2') await maintenance.query('select pgq.maint_rotate_tables_step2()')
      else await maintenance.query('select pgq.maint_rotate_positions()')
      await kill(db, maintenance, how)
      db = await connect()
      let rotations = 0
      for (let n = 0; n < 6; n++) if (await round()) rotations++
      found.push(...(await consume(db, queue, 'c')))
      expect(rotations).toBeGreaterThan(2)
      expect(found).toEqual(expected)
    },
  )
})

describe('a server that is stopped with immediate, under load', () => {
  it('has, after recovery, every event whose commit was confirmed, once, and none that was rolled back', {
    timeout: 120_000,
  }, async () => {
    const queue = 'load'
    const setup = await connect()
    await busyQueue(setup, queue, ['c'])
    await setup.exec('create table processed (batch bigint, data text)')
    const confirmed = new Set<string>()
    const doubtful = new Set<string>()
    const rolledBack = new Set<string>()
    let stop = false
    let counter = 0
    const attempt = async (work: (db: Db) => Promise<void>): Promise<void> => {
      while (!stop) {
        try {
          const db = await connect()
          while (!stop) await work(db)
        } catch {
          await new Promise((resolve) => setTimeout(resolve, 20))
        }
      }
    }
    const producer = async (db: Db): Promise<void> => {
      const data = Array.from({ length: 1 + (counter % 4) }, () => `${++counter}`)
      const gone = counter % 5 === 0
      for (const text of data) (gone ? rolledBack : doubtful).add(text)
      await db.exec('begin')
      for (const text of data) await insert(db, queue, text)
      await db.exec(gone ? 'rollback' : 'commit')
      if (gone) return
      for (const text of data) {
        confirmed.add(text)
        doubtful.delete(text)
      }
    }
    // What a consumer does and the end of its batch are one transaction: so each event is processed exactly once.
    const worker = async (db: Db): Promise<void> => {
      await db.transaction(async (tx) => {
        const { batch } = await one<{ batch: bigint | null }>(tx, 'select pgq.next_batch($1, $2) as batch', [
          queue,
          'c',
        ])
        if (batch === null) return
        await tx.query('insert into processed select $1, ev_data from pgq.get_batch_events($1)', [batch])
        await tx.query('select pgq.finish_batch($1)', [batch])
      })
    }
    const daemon = async (db: Db): Promise<void> => {
      await tick(db, queue)
      await rotate(db, queue)
      await db.query('select pgq.maint_rotate_positions()')
    }
    const running = [producer, producer, worker, daemon].map(attempt)
    for (let crash = 0; crash < 3; crash++) {
      const enough = confirmed.size + 300
      while (confirmed.size < enough) await new Promise((resolve) => setTimeout(resolve, 10))
      await server.restart('immediate')
    }
    stop = true
    await Promise.all(running)
    const db = await connect()
    await tick(db, queue)
    const rest = await consume(db, queue, 'c')
    const done = await db.query<{ data: string }>('select data from processed')
    const all = [...done.map(({ data }) => data), ...rest]
    expect(all.length).toBe(new Set(all).size)
    expect([...confirmed].filter((data) => !all.includes(data))).toEqual([])
    expect(all.filter((data) => rolledBack.has(data))).toEqual([])
    expect(all.filter((data) => !confirmed.has(data) && !doubtful.has(data))).toEqual([])
  })
})
