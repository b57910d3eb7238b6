import { describe, expect, it } from 'vitest'
import { databases, servers } from '../support/databases.ts'

describe.each(databases)('pgq_ext on $name', ({ open }) => {
  it('remembers the last tick of a consumer, forwards and back, until it is told to forget it', async () => {
    await using db = await open()
    const last = async () =>
      (await db.query<{ tick: bigint | null }>("select pgq_ext.get_last_tick('c') as tick"))[0]?.tick
    const set = (tick: number | null) => db.query('select pgq_ext.set_last_tick($1, $2) as done', ['c', tick])
    expect(await last()).toBeNull()
    expect(await set(5)).toEqual([{ done: 1 }])
    expect(await last()).toBe(5n)
    await set(3)
    expect(await last()).toBe(3n)
    expect(await set(null)).toEqual([{ done: 1 }])
    expect(await last()).toBeNull()
  })

  it('lets a batch be applied once, and tells a repeated one', async () => {
    await using db = await open()
    const set = async (batch: number) =>
      (await db.query<{ first: boolean }>("select pgq_ext.set_batch_done('c', $1) as first", [batch]))[0]?.first
    const isDone = async (batch: number | null) =>
      (await db.query<{ done: boolean | null }>("select pgq_ext.is_batch_done('c', $1) as done", [batch]))[0]?.done
    expect(await isDone(1)).toBe(false)
    expect(await isDone(null)).toBe(false)
    expect(await set(1)).toBe(true)
    expect(await set(1)).toBe(false)
    expect(await isDone(1)).toBe(true)
    expect(await isDone(null)).toBeNull()
    expect(await set(0), 'a batch id below 1 is not stored').toBe(true)
    expect(await isDone(1)).toBe(true)
    expect(await set(2)).toBe(true)
    expect(await isDone(1)).toBe(false)
  })

  it('lets an event be applied once, for each batch and each subconsumer', async () => {
    await using db = await open()
    const set = async (subconsumer: string, batch: number, event: number) =>
      (
        await db.query<{ first: boolean }>('select pgq_ext.set_event_done($1, $2, $3, $4) as first', [
          'c',
          subconsumer,
          batch,
          event,
        ])
      )[0]?.first
    expect(await set('', 1, 1)).toBe(true)
    expect(await set('', 1, 1)).toBe(false)
    expect(await set('', 1, 2)).toBe(true)
    expect(await set('s', 1, 1)).toBe(true)
    expect(await db.query("select pgq_ext.is_event_done('c', 1, 2) as done")).toEqual([{ done: true }])
    expect(await set('', 2, 1), 'another batch').toBe(true)
    expect(
      await db.query('select subconsumer_id, batch_id, event_id from pgq_ext.completed_event order by 1, 2, 3'),
      'events of the batch before are forgotten',
    ).toEqual([
      { subconsumer_id: '', batch_id: 2n, event_id: 1n },
      { subconsumer_id: 's', batch_id: 1n, event_id: 1n },
    ])
  })

  it('is for pgq_writer: others may ask its version only', async () => {
    await using db = await open()
    const toAll = await db.query<{ name: string }>(
      `select p.oid::regprocedure::text as name from pg_proc p cross join lateral aclexplode(p.proacl) a
        where p.pronamespace = 'pgq_ext'::regnamespace and a.grantee = 0`,
    )
    expect(toAll).toEqual([{ name: 'pgq_ext.version()' }])
    const [writer] = await db.query<{ count: bigint }>(
      `select count(*) as count from pg_proc p
        where p.pronamespace = 'pgq_ext'::regnamespace and has_function_privilege('pgq_writer', p.oid, 'execute')`,
    )
    expect(writer?.count).toBe(13n)
  })
})

describe.each(servers)('pgq_ext on $name, two connections', ({ open }) => {
  it('makes the second process with a batch wait for the first, and tells it that the batch is done', async () => {
    await using db = await open()
    await using other = await db.connect()
    await db.exec('begin')
    expect(await db.query("select pgq_ext.set_batch_done('c', 7) as first")).toEqual([{ first: true }])
    const second = other.query("select pgq_ext.set_batch_done('c', 7) as first")
    await db.exec('commit')
    expect(await second).toEqual([{ first: false }])
  })
})
