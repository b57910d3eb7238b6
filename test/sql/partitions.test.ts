import { describe, expect, it } from 'vitest'
import type { Db } from '../../src/db/db.ts'
import { databases, servers } from '../support/databases.ts'
import { backend, busyQueue, one, tick, waiting } from '../support/queues.ts'

interface Handled {
  readonly key: string | null
  readonly n: number
}

async function partitioned(db: Db, count: number, key = 'ev_extra1'): Promise<void> {
  await busyQueue(db, 'q')
  await db.query(`select pgq_coop.register_partitions('q', 'c', $1, $2)`, [count, key])
}
const insertKeyed = (db: Db, key: string | null, n: number) =>
  db.query(`select pgq.insert_event('q', 't', $1, $2, null, null, null)`, [`${n}`, key])
const next = async (db: Db, worker: string, dead?: string) =>
  (
    await one<{ batch: bigint | null }>(db, `select pgq_coop.next_partition('q', 'c', $1, $2) as batch`, [
      worker,
      dead ?? null,
    ])
  ).batch
const events = (db: Db, batch: bigint | null) =>
  db.query<Handled & Record<string, unknown>>(
    'select ev_extra1 as key, ev_data::int as n from pgq_coop.get_batch_events($1)',
    [batch],
  )
const finish = async (db: Db, batch: bigint | null, worker: string) =>
  (await one<{ n: number }>(db, 'select pgq_coop.finish_batch($1, $2) as n', [batch, worker])).n

async function drain(db: Db, workers: readonly string[]): Promise<Handled[]> {
  const found: Handled[] = []
  for (;;) {
    const open: (readonly [string, bigint])[] = []
    for (const worker of workers) {
      const batch = await next(db, worker)
      if (batch !== null) open.push([worker, batch])
    }
    if (open.length === 0) return found
    for (const [worker, batch] of open.reverse()) {
      found.push(...(await events(db, batch)))
      await finish(db, batch, worker)
    }
  }
}

function perKey(handled: readonly Handled[]): Map<string | null, number[]> {
  const keys = new Map<string | null, number[]>()
  for (const { key, n } of handled) keys.set(key, [...(keys.get(key) ?? []), n])
  return keys
}

describe.each(databases)('a partitioned consumer on $name', ({ open }) => {
  it('gives the events of each key in order, each once, whichever workers come', async () => {
    await using db = await open()
    await partitioned(db, 4)
    const keys = ['a', 'b', "it's", 'd', 'ä', null]
    for (let n = 0; n < 90; n++) {
      await insertKeyed(db, keys[n % keys.length] ?? null, n)
      if (n % 7 === 0) await tick(db, 'q')
    }
    await tick(db, 'q')
    const handled = await drain(db, ['w1', 'w2', 'w3'])
    expect(handled).toHaveLength(90)
    for (const [key, numbers] of perKey(handled))
      if (key !== null) expect(numbers).toEqual([...numbers].sort((x, y) => x - y))
    expect(perKey(handled).get(null)).toHaveLength(15)
  })

  it('gives no two workers batches of one partition, and no worker a second batch', async () => {
    await using db = await open()
    await partitioned(db, 2)
    for (let n = 0; n < 3; n++) {
      await insertKeyed(db, 'a', n)
      await tick(db, 'q')
    }
    const [first, second] = [await next(db, 'one'), await next(db, 'two')]
    expect(first).not.toBe(second)
    expect(await next(db, 'three')).toBeNull()
    expect(await next(db, 'one')).toBe(first)
    await finish(db, first, 'one')
    expect(await next(db, 'three')).toBeNull()
    await insertKeyed(db, 'a', 3)
    await tick(db, 'q')
    const third = await next(db, 'three')
    const names = await db.query(`select count(distinct sub_id) as n from pgq.subscription where sub_batch is not null`)
    expect([third, names]).toEqual([expect.any(BigInt), [{ n: 2n }]])
  })

  it('gives the batch of a dead worker to another one, and refuses the dead one', async () => {
    await using db = await open()
    await partitioned(db, 1)
    await insertKeyed(db, 'a', 1)
    await tick(db, 'q')
    const batch = await next(db, 'slow')
    expect(await next(db, 'quick', '1 minute')).toBeNull()
    await db.query(`update pgq.subscription set sub_active = now() - interval '1 hour'`)
    await db.query(`select pgq_coop.touch($1, 'slow')`, [batch])
    expect(await next(db, 'quick', '1 minute')).toBeNull()
    await db.query(`update pgq.subscription set sub_active = now() - interval '1 hour'`)
    expect(await next(db, 'quick', '1 minute')).toBe(batch)
    await expect(finish(db, batch, 'slow')).rejects.toMatchObject({
      code: 'PQ019',
      message: expect.stringContaining('quick'),
    })
    expect(await finish(db, batch, 'quick')).toBe(1)
  })

  it('takes its key from a column, or from a field of JSON data', async () => {
    await using db = await open()
    await partitioned(db, 3, `ev_data.order's id`)
    for (let n = 0; n < 30; n++)
      await db.query(`select pgq.insert_event('q', 't', $1)`, [JSON.stringify({ "order's id": n % 5, n })])
    await tick(db, 'q')
    const seen = new Map<number, bigint>()
    for (const worker of ['1', '2', '3']) {
      const batch = await next(db, worker)
      for (const { ev_data } of await db.query('select ev_data from pgq_coop.get_batch_events($1)', [batch])) {
        const key = JSON.parse(String(ev_data))["order's id"] as number
        expect(seen.get(key) ?? batch).toBe(batch)
        if (batch !== null) seen.set(key, batch)
      }
    }
    expect(seen.size).toBe(5)
  })

  it('can be read through a cursor, by its filter', async () => {
    await using db = await open()
    await partitioned(db, 2)
    for (let n = 0; n < 20; n++) await insertKeyed(db, `k${n}`, n)
    await tick(db, 'q')
    const batch = await next(db, 'w')
    const read = await db.transaction((tx) =>
      tx.query(`select ev_id from pgq.get_batch_cursor($1, 'c', 100, pgq_coop.partition_filter($1))`, [batch]),
    )
    const direct = await db.query('select ev_id from pgq_coop.get_batch_events($1)', [batch])
    expect(read).toEqual(direct)
    expect(direct.length).toBeGreaterThan(0)
    expect(direct.length).toBeLessThan(20)
  })

  it('gets a failed event again in the same partition', async () => {
    await using db = await open()
    await partitioned(db, 3)
    await insertKeyed(db, 'a', 1)
    await tick(db, 'q')
    const handled: Handled[] = []
    for (const worker of ['1', '2', '3']) {
      const batch = await next(db, worker)
      const found = await events(db, batch)
      if (found.length > 0) await db.query('select pgq.batch_retry($1, 0)', [batch])
      handled.push(...found)
      await finish(db, batch, worker)
    }
    await db.query('select pgq.maint_retry_events()')
    await tick(db, 'q')
    expect([...handled, ...(await drain(db, ['w1', 'w2']))]).toEqual([
      { key: 'a', n: 1 },
      { key: 'a', n: 1 },
    ])
  })

  it('is registered once, with one number of partitions and one key, and says what is wrong', async () => {
    await using db = await open()
    await partitioned(db, 2)
    const register = (count: number | null, key: string) =>
      db.query<{ n: number }>(`select pgq_coop.register_partitions('q', 'c', $1, $2) as n`, [count, key])
    expect(await register(2, 'ev_extra1')).toEqual([{ n: 0 }])
    await expect(register(3, 'ev_extra1')).rejects.toMatchObject({ code: 'PQ042' })
    await expect(register(2, 'ev_type')).rejects.toMatchObject({ code: 'PQ042' })
    await expect(register(0, 'ev_type')).rejects.toMatchObject({ code: 'PQ008' })
    await expect(register(2, 'ev_id; drop')).rejects.toMatchObject({ code: 'PQ008' })
    await expect(db.query(`select pgq_coop.next_partition('q', 'other', 'w')`)).rejects.toMatchObject({ code: 'PQ002' })
    await expect(db.query(`select pgq_coop.next_partition('q', 'c', null)`)).rejects.toMatchObject({ code: 'PQ008' })
    expect(await one(db, `select pgq_coop.unregister_partitions('q', 'c') as n`)).toEqual({ n: 2 })
    expect(await one(db, `select pgq_coop.unregister_partitions('q', 'c') as n`)).toEqual({ n: 0 })
    expect(await db.query('select * from pgq.consumer')).toEqual([])
    await partitioned(db, 3, 'ev_type')
    await db.query(`select pgq.drop_queue('q', true)`)
    expect(await db.query('select * from pgq_coop.partitioned')).toEqual([])
  })
})

describe.each(servers)('partitions and open transactions on $name', ({ open }) => {
  it('workers that take batches at the same time do not wait for one another', async () => {
    await using db = await open()
    await using first = await db.connect()
    await using second = await db.connect()
    await partitioned(db, 2)
    await insertKeyed(db, 'a', 1)
    await tick(db, 'q')
    await first.exec('begin')
    const mine = await next(first, 'first')
    const other = await next(second, 'second')
    expect([mine, other]).toEqual([expect.any(BigInt), expect.any(BigInt)])
    expect(await next(db, 'third')).toBeNull()
    await first.exec('rollback')
    expect(await next(db, 'third')).toEqual(expect.any(BigInt))
  })

  it('a worker that finishes late waits for the one that is taking its batch over, and is refused', async () => {
    await using db = await open()
    await using slow = await db.connect()
    await using quick = await db.connect()
    await partitioned(db, 1)
    await insertKeyed(db, 'a', 1)
    await tick(db, 'q')
    const batch = await next(slow, 'slow')
    await db.query(`update pgq.subscription set sub_active = now() - interval '1 hour'`)
    await quick.exec('begin')
    expect(await next(quick, 'quick', '1 minute')).toBe(batch)
    const pid = await backend(slow)
    const { result } = await waiting(
      db,
      pid,
      finish(slow, batch, 'slow').catch((error: unknown) => error),
    )
    await quick.exec('commit')
    expect(await result).toMatchObject({ code: 'PQ019' })
    expect(await finish(quick, batch, 'quick')).toBe(1)
  })
})
