import { describe, expect, it } from 'vitest'
import { createMetrics, longTransactions, status } from '../../../src/index.ts'
import { size } from '../../../src/status/bytes.ts'
import { consumerKey, rates } from '../../../src/status/top.ts'
import { databases, servers } from '../../support/databases.ts'
import { backend, busyQueue, consume, insert, tick } from '../../support/queues.ts'

describe.each(databases)('rates on $name', ({ open }) => {
  it('are the events put in and consumed between two looks', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['fast', 'slow'])
    await insert(db, 'q', '1')
    await tick(db, 'q')
    const earlier = await status(db)
    for (let n = 0; n < 20; n++) await insert(db, 'q', 'x')
    await tick(db, 'q')
    await consume(db, 'q', 'fast')
    const { in: queues, out } = rates(earlier, await status(db), 10)
    expect(queues.get('q')).toBe(2)
    expect(out.get(consumerKey({ queue: 'q', consumer: 'fast' }))).toBe(2)
    expect(out.get(consumerKey({ queue: 'q', consumer: 'slow' }))).toBe(0)
  })
})

describe.each(databases)('troubles of consumers on $name', ({ open }) => {
  it('are findings with their remedy, and metrics: paused, failing, dead letters', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['paused', 'failing', 'fine'])
    await insert(db, 'q', '1')
    await tick(db, 'q')
    await db.query(`select pgq.pause_consumer('q', 'paused')`)
    for (let n = 0; n < 2; n += 1) await db.query(`select pgq.note_failure('q', 'failing', E'no\nroute')`)
    const [opened] = await db.query<{ batch: bigint }>(`select pgq.next_batch('q', 'fine') as batch`)
    await db.query(`select pgq.event_dead($1, 1, 'bad address')`, [opened?.batch])
    const { findings, troubles } = await status(db)
    expect(troubles).toMatchObject([
      { consumer: 'failing', paused: null, failures: 2, error: 'no\nroute', deadLetters: 0n },
      { consumer: 'fine', failures: 0, deadLetters: 1n },
      { consumer: 'paused', paused: expect.any(Number), failures: 0, deadLetters: 0n },
    ])
    const said = findings.map(({ subject, problem, remedy }) => `${subject}: ${problem} > ${remedy}`).join('\n')
    expect(said).toMatch(/consumer paused of q: it is paused since .* > skytools consumer resume q paused/)
    expect(said).toMatch(/consumer failing of q: its batch has failed 2 times since .*: no route > mend/)
    expect(said).toMatch(
      /consumer fine of q: 1 dead letters, the last .* ago > skytools dlq list q --consumer fine; then/,
    )
    const text = await createMetrics({ databases: { main: db } }).text()
    expect(text).toContain('skytools_consumer_paused{database="main",queue="q",consumer="paused"} 1')
    expect(text).toContain('skytools_consumer_paused{database="main",queue="q",consumer="fine"} 0')
    expect(text).toContain('skytools_consumer_batch_failures{database="main",queue="q",consumer="failing"} 2')
    expect(text).toContain('skytools_consumer_dead_letters{database="main",queue="q",consumer="fine"} 1')
  })
})

describe.each(servers)('long transactions on $name', ({ open }) => {
  it('are found with their session, and whether they write', async () => {
    await using db = await open()
    await using reader = await db.connect()
    await using writer = await db.connect()
    await reader.exec('begin isolation level repeatable read; select count(*) from pgq.queue')
    await writer.exec('begin; select txid_current()')
    const pids = { reader: await backend(reader), writer: await backend(writer) }
    const found = await longTransactions(db, 0)
    expect(found.find(({ pid }) => pid === pids.reader)).toMatchObject({ writes: false, state: 'idle in transaction' })
    expect(found.find(({ pid }) => pid === pids.writer)).toMatchObject({ writes: true })
    expect((await longTransactions(db, 3600)).filter(({ pid }) => Object.values(pids).includes(pid ?? 0))).toEqual([])
  })
})

describe('size', () => {
  it('is in the largest unit that leaves a number of at least one', () => {
    expect([0n, 1023n, 1536n, 8192n, 123_456_789n, 5n * 1024n ** 4n].map(size)).toEqual([
      '0 bytes',
      '1023 bytes',
      '1.5 kB',
      '8 kB',
      '118 MB',
      '5 TB',
    ])
  })
})
