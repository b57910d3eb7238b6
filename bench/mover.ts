import { createMover, insertEvents, openDb } from '../src/index.ts'
import type { BenchOptions } from './support/options.ts'
import type { BenchReport } from './support/report.ts'
import { type BenchServer, startBenchServer } from './support/server.ts'

const databases = 64
const queues = ['q1', 'q2', 'q3', 'q4', 'q5']
const eventsInQueue = 500

const url = (server: BenchServer, database: string) =>
  `postgres://postgres@/${database}?host=${encodeURIComponent(server.host)}&port=${server.port}`
const names = Array.from({ length: databases }, (_, n) => `shard_${String(n).padStart(2, '0')}`)

async function prepare(server: BenchServer): Promise<void> {
  await server.createDatabase('target', 'ours')
  await server.createDatabase('shard', 'ours')
  for (const database of ['target', 'shard']) {
    const client = await server.connect(database)
    for (const queue of queues) {
      await client.query('select pgq.create_queue($1)', [queue])
      for (const parameter of ['ticker_max_count', 'ticker_max_lag', 'ticker_idle_period'])
        await client.query('select pgq.set_queue_config($1, $2, $3)', [
          queue,
          parameter,
          parameter === 'ticker_max_count' ? '1' : '0',
        ])
      if (database === 'shard') await client.query(`select pgq.register_consumer($1, 'mover')`, [queue])
    }
    await client.end()
  }
  const admin = await server.connect('postgres')
  for (const name of names) await admin.query(`create database ${name} template shard`)
  await admin.end()
}

/** New events in every queue of every source, ticked. */
async function fill(server: BenchServer): Promise<void> {
  for (const name of names) {
    const client = await server.connect(name)
    for (const queue of queues) {
      await client.query(
        `select count(*) from pgq.insert_events($1, array_fill('order'::text, array[$2::int]), array_fill(repeat('x', 100), array[$2::int]))`,
        [queue, eventsInQueue],
      )
    }
    await client.query('select pgq.ticker()')
    await client.end()
  }
}

/** What the same costs without any of the care: read a source's events, put them into the target, one source at a time on each of as many connections. */
async function byHand(server: BenchServer, after: ReadonlyMap<string, number>, connections: number): Promise<void> {
  const target = await openDb(url(server, 'target'), { max: 4 })
  const waiting = [...names]
  await Promise.all(
    Array.from({ length: connections }, async () => {
      for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
        const source = await openDb(url(server, name), { max: 1 })
        for (const [index, queue] of queues.entries()) {
          const events = await source.query(
            `select ev_type as type, ev_data as data, ev_extra1 as extra1, ev_extra2 as extra2, ev_extra3 as extra3, ev_extra4 as extra4
               from pgq.event_${index + 1} where ev_id > $1 order by ev_id`,
            [after.get(name) ?? 0],
          )
          await insertEvents(target, queue, events)
        }
        await source.close()
      }
    }),
  )
  await target.close()
}

/** Many databases into one: events a second, memory of the process, connections to the server. */
export async function mover({ rounds }: BenchOptions): Promise<BenchReport> {
  const server = await startBenchServer({ max_connections: '120', max_locks_per_transaction: '256' })
  const connections = 16
  const ours: number[] = []
  const hand: number[] = []
  let most = 0
  let memory = 0
  let watch: NodeJS.Timeout | undefined
  try {
    await prepare(server)
    const observer = await server.connect('postgres')
    watch = setInterval(async () => {
      memory = Math.max(memory, process.memoryUsage().rss)
      const { rows } = await observer.query(
        `select count(*)::int as n from pg_stat_activity where application_name = 'skytools'`,
      )
      most = Math.max(most, rows[0].n)
    }, 50)
    const total = databases * queues.length * eventsInQueue
    const routes = queues.map((queue) => ({ queue, to: queue }))
    const sources = [{ server: url(server, 'postgres'), databases: 'shard_*' }]
    for (let round = 0; round < rounds; round += 1) {
      await fill(server)
      const start = performance.now()
      const { events } = await createMover({ sources, target: url(server, 'target'), routes, connections }).once()
      ours.push((events * 1000) / (performance.now() - start))
      if (events !== total) throw new Error(`${events} events moved, not ${total}`)
      const middle = performance.now()
      await byHand(server, new Map(names.map((name) => [name, round * eventsInQueue])), connections)
      hand.push((total * 1000) / (performance.now() - middle))
    }
  } finally {
    clearInterval(watch)
    await server.stop()
  }
  return {
    scenario: 'mover',
    server: server.version,
    settings: `${databases} databases × ${queues.length} queues into ${queues.length}, ${eventsInQueue} events of 100 bytes in each; ${connections} connections to sources, 4 to the target; most connections seen ${most}, memory ${Math.round(memory / 1048576)} MB`,
    subject: 'mover',
    measurements: [
      { name: 'many databases into one', unit: 'events/s', rounds: { mover: ours, 'read and insert, no care': hand } },
    ],
  }
}
