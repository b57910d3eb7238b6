import { describe, expect, it } from 'vitest'
import type { Db } from '../../src/db/db.ts'
import { servers } from '../support/databases.ts'
import { backend, busyQueue, consume, insert, one, rotate, rotateSoon, tick, waiting } from '../support/queues.ts'

describe.each(servers)('sessions beside each other on $name', ({ open }) => {
  it('a ticker waits for another that has its transaction open, and ticks after it', async () => {
    await using db = await open()
    await using first = await db.connect()
    await using second = await db.connect()
    await busyQueue(db, 'q', ['c'])
    const pid = await backend(second)
    await insert(db, 'q', '1')
    await first.exec('begin')
    const one = await tick(first, 'q')
    await insert(db, 'q', '2')
    const { result } = await waiting(db, pid, tick(second, 'q'))
    await insert(db, 'q', '3')
    await first.exec('commit')
    const two = await result
    expect(Number(two)).toBeGreaterThan(Number(one))
    await tick(db, 'q')
    expect(await consume(db, 'q', 'c')).toEqual(['1', '2', '3'])
  })

  it('a queue without consumers keeps its newest tick through rotations beside an old transaction', async () => {
    await using db = await open()
    await using old = await db.connect()
    await busyQueue(db, 'q')
    await old.exec('begin; select txid_current()')
    for (let n = 0; n < 6; n++) {
      await tick(db, 'q')
      await rotate(db, 'q')
    }
    expect(await one(db, `select pgq.register_consumer('q', 'c') as n`)).toEqual({ n: 1 })
    await insert(db, 'q', 'x')
    await tick(db, 'q')
    expect(await consume(db, 'q', 'c')).toEqual(['x'])
  })

  it('insert_events returns the ids of its own events while others insert too', async () => {
    await using db = await open()
    await using first = await db.connect()
    await using second = await db.connect()
    await busyQueue(db, 'q')
    const call = (session: Db, name: string) =>
      session.query<{ id: bigint }>(
        `select id from pgq.insert_events('q', array_fill($1::text, array[3000]), null) as id`,
        [name],
      )
    const calls = Array.from({ length: 10 }, (_, n) => [`first ${n}`, `second ${n}`] as const)
    for (const [one, two] of calls) {
      const [ids, others] = await Promise.all([call(first, one), call(second, two)])
      const stored = (name: string) =>
        db.query<{ id: bigint }>('select ev_id as id from pgq.event_1 where ev_type = $1 order by ev_id', [name])
      expect(ids).toEqual(await stored(one))
      expect(others).toEqual(await stored(two))
    }
  })

  it('ticker() leaves a queue to the ticker that has it, and ticks the others', async () => {
    await using db = await open()
    await using first = await db.connect()
    await busyQueue(db, 'a')
    await busyQueue(db, 'b')
    await first.exec('begin')
    await tick(first, 'a')
    expect(await one(db, 'select pgq.ticker() as n')).toEqual({ n: 1n })
    await first.exec('commit')
    expect(await one(db, 'select pgq.ticker() as n')).toEqual({ n: 2n })
  })

  it('a ticker whose snapshot is older than the newest tick is told to try again', async () => {
    await using db = await open()
    await using stale = await db.connect()
    await busyQueue(db, 'q', ['c'])
    await stale.exec('begin isolation level repeatable read')
    await stale.query('select 1')
    await insert(db, 'q', '1')
    await tick(db, 'q')
    await expect(tick(stale, 'q')).rejects.toMatchObject({ code: '40001' })
    await stale.exec('rollback')
    await tick(db, 'q')
    expect(await consume(db, 'q', 'c')).toEqual(['1'])
  })

  it('a second worker of a consumer waits, and gets the batch that the first has opened', async () => {
    await using db = await open()
    await using first = await db.connect()
    await using second = await db.connect()
    await busyQueue(db, 'q', ['c'])
    await insert(db, 'q', '1')
    await tick(db, 'q')
    const pid = await backend(second)
    const next = (session: Db) => one<{ batch: bigint }>(session, `select pgq.next_batch('q', 'c') as batch`)
    await first.exec('begin')
    const { batch } = await next(first)
    const { result } = await waiting(db, pid, next(second))
    await first.exec('commit')
    expect(await result).toEqual({ batch })

    await first.exec('begin')
    const finish = 'select pgq.finish_batch($1) as n'
    expect(await one(first, finish, [batch])).toEqual({ n: 1 })
    const late = await waiting(db, pid, one(second, finish, [batch]))
    await first.exec('commit')
    expect(await late.result).toEqual({ n: 0 })
  })

  it('a second worker goes on when the first rolls back', async () => {
    await using db = await open()
    await using first = await db.connect()
    await using second = await db.connect()
    await busyQueue(db, 'q', ['c'])
    await insert(db, 'q', '1')
    await tick(db, 'q')
    const pid = await backend(second)
    await first.exec('begin')
    await first.query(`select pgq.next_batch('q', 'c')`)
    const { result } = await waiting(db, pid, consume(second, 'q', 'c'))
    await first.exec('rollback')
    expect(await result).toEqual(['1'])
  })

  it.each(['repeatable read', 'serializable'])(
    'a worker under %s whose snapshot is older than a finish is told to try again',
    async (isolation) => {
      await using db = await open()
      await using stale = await db.connect()
      await busyQueue(db, 'q', ['c'])
      await insert(db, 'q', '1')
      await tick(db, 'q')
      await stale.exec(`begin isolation level ${isolation}`)
      await stale.query('select 1')
      expect(await consume(db, 'q', 'c')).toEqual(['1'])
      await expect(stale.query(`select pgq.next_batch('q', 'c')`)).rejects.toMatchObject({ code: '40001' })
      await stale.exec('rollback')
    },
  )
})

describe.each(servers)('a producer with an old snapshot on $name', ({ open }) => {
  const producers = [
    { how: 'insert_event', write: (db: Db) => insert(db, 'q', 'old') },
    { how: 'insert_events', write: (db: Db) => db.query(`select pgq.insert_events('q', array['test'], array['old'])`) },
    {
      how: 'insert_event_raw',
      write: (db: Db) =>
        db.query(`select pgq.insert_event_raw('q', null, null, null, null, 'test', 'old', null, null, null, null)`),
    },
    {
      how: 'current_event_table',
      async write(db: Db) {
        const { name } = await one<{ name: string }>(db, `select pgq.current_event_table('q') as name`)
        await db.query(`insert into ${name} (ev_time, ev_data) values (now(), 'old')`)
      },
    },
  ]
  const cases = ['repeatable read', 'serializable'].flatMap((isolation) =>
    [1, 2, 3].flatMap((rotations) => producers.map((producer) => ({ isolation, rotations, ...producer }))),
  )

  it.each(cases)(
    '$isolation, $rotations rotations ago, by $how, loses nothing',
    async ({ isolation, rotations, write }) => {
      await using db = await open()
      await using old = await db.connect()
      await busyQueue(db, 'q', ['c'])
      await old.exec(`begin isolation level ${isolation}`)
      await old.query('select count(*) from pgq.queue')
      const found: string[] = []
      for (let n = 1; n <= rotations; n++) {
        await insert(db, 'q', `new ${n}`)
        found.push(...(await rotateSoon(db, 'q', ['c'])))
        await tick(db, 'q')
        found.push(...(await consume(db, 'q', 'c')))
      }
      let written = ['old']
      try {
        await write(old)
        await old.exec('commit')
      } catch (error) {
        // Losing nothing may also mean that the producer is told to begin again.
        expect(error).toMatchObject({ code: '40001' })
        await old.exec('rollback')
        written = []
      }
      for (let n = 0; n < 4; n++) {
        await tick(db, 'q')
        found.push(...(await consume(db, 'q', 'c')))
        await rotate(db, 'q')
      }
      expect(found.sort()).toEqual([...Array.from({ length: rotations }, (_, n) => `new ${n + 1}`), ...written].sort())
    },
  )
})

describe.each(servers)('the limit of events in a transaction on $name', ({ open }) => {
  it('does not count what a savepoint rolled back, and starts anew with each transaction', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await db.query(`update pgq.queue set queue_per_tx_limit = 2 where queue_name = 'q'`)
    await db.exec('begin')
    await insert(db, 'q', '1')
    await db.exec('savepoint s')
    await insert(db, 'q', 'gone')
    await db.exec('rollback to savepoint s')
    await insert(db, 'q', '2')
    await db.exec('savepoint t')
    await expect(insert(db, 'q', '3')).rejects.toMatchObject({ code: 'PQ007' })
    await db.exec('rollback to savepoint t; commit')
    await db.exec('begin')
    await insert(db, 'q', '4')
    await insert(db, 'q', '5')
    await db.exec('commit')
    await insert(db, 'q', '6')
    await tick(db, 'q')
    expect(await consume(db, 'q', 'c')).toEqual(['1', '2', '4', '5', '6'])
  })

  it('of one transaction is none of another beside it', async () => {
    await using db = await open()
    await using other = await db.connect()
    await busyQueue(db, 'q', ['c'])
    await db.query(`update pgq.queue set queue_per_tx_limit = 1 where queue_name = 'q'`)
    await db.exec('begin')
    await insert(db, 'q', '1')
    await insert(other, 'q', '2')
    await expect(insert(db, 'q', '3')).rejects.toMatchObject({ code: 'PQ007' })
    await db.exec('rollback')
  })
})

describe.each(servers)('maintenance on $name', ({ open }) => {
  it('reaches every hook within two rounds of each, though one of them fails and ends its round', async () => {
    await using db = await open()
    await db.exec(`
      create schema hooks;
      create table hooks.calls (name text);
      create function hooks.good(q text) returns int language sql as $$ insert into hooks.calls values ('good ' || q) returning 0 $$;
      create function hooks.last(q text) returns int language sql as $$ insert into hooks.calls values ('last ' || q) returning 0 $$;
      create function hooks.bad(q text) returns int language plpgsql as $$ begin raise exception 'hook failed'; end $$`)
    await busyQueue(db, 'a')
    await busyQueue(db, 'b')
    await db.query(
      `update pgq.queue set queue_rotation_period = '1 hour', queue_extra_maint = array['hooks.bad', 'hooks.good']`,
    )
    await db.query(`update pgq.queue set queue_extra_maint = array['hooks.last'] where queue_name = 'b'`)
    const called = new Set<string>()
    for (let round = 0; round < 8; round++) {
      const operations = await db.query<{ name: string; argument: string | null }>(
        'select func_name as name, func_arg as argument from pgq.maint_operations()',
      )
      try {
        for (const { name, argument } of operations) {
          if (name === 'vacuum') continue
          await db.query(
            argument === null ? `select ${name}()` : `select ${name}($1)`,
            argument === null ? [] : [argument],
          )
        }
      } catch (error) {
        expect((error as Error).message).toContain('hook failed')
      }
    }
    for (const { name } of await db.query<{ name: string }>('select name from hooks.calls')) called.add(name)
    expect([...called].sort()).toEqual(['good a', 'last b'])
  })
})
