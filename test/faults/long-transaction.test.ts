import { describe, expect, it } from 'vitest'
import { servers } from '../support/databases.ts'
import { busyQueue, consume, insert, one, rotate, rotateSoon, tick } from '../support/queues.ts'

const ticks = 200
const others = 10_000

describe.each(servers)('a long transaction on $name', ({ open }) => {
  it('over 200 ticks and a rotation: its events arrive once, and the batch query reads indexes only', {
    timeout: 120_000,
  }, async () => {
    await using db = await open()
    await using long = await db.connect()
    await busyQueue(db, 'q', ['c', 'late'])
    await long.exec('begin')
    await insert(long, 'q', 'long 1')
    const expected: string[] = ['long 1', 'long 2']
    const found: string[] = []
    for (let n = 0; n < ticks; n++) {
      const data = Array.from({ length: others / ticks }, (_, i) => `${n}/${i}`)
      // One transaction an event, in one round trip.
      await db.exec(data.map((text) => `select pgq.insert_event('q', 'test', '${text}'); commit;`).join('\n'))
      expected.push(...data)
      await tick(db, 'q')
      found.push(...(await consume(db, 'q', 'c')))
      // The long transaction is in the snapshot of each tick since, so the tables it may have written to stay.
      if (n === 100) await rotate(db, 'q')
    }
    await insert(long, 'q', 'long 2')
    expect(found).toHaveLength(others)
    expect(found.filter((data) => data.startsWith('long'))).toEqual([])

    await long.exec('commit')
    await tick(db, 'q')
    const { batch } = await one<{ batch: bigint }>(db, `select pgq.next_batch('q', 'c') as batch`)
    const { sql } = await one<{ sql: string }>(db, 'select pgq.batch_event_sql($1) as sql', [batch])
    await db.exec('analyze')
    const plan = await db.query<{ 'QUERY PLAN': string }>(`explain ${sql}`)
    const text = plan.map((row) => row['QUERY PLAN']).join('\n')
    expect(text).toMatch(/Index|Bitmap/)
    expect(text).not.toMatch(/Seq Scan on (pgq\.)?event_/)
    found.push(...(await consume(db, 'q', 'c')))
    expect([...found].sort()).toEqual([...expected].sort())
    expect((await consume(db, 'q', 'late')).sort()).toEqual([...expected].sort())

    // Nothing is in the way any more.
    for (let n = 0; n < 3; n++) await rotateSoon(db, 'q', ['c', 'late'])
    expect(await one(db, 'select count(*) as n from pgq.event_template')).toEqual({ n: 0n })
  })
})
