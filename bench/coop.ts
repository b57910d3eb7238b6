import { setTimeout as sleep } from 'node:timers/promises'
import { coopBatchEvents, type Db, finishCoopBatch, nextCoopBatch, nextPartition, toDb } from '../src/index.ts'
import type { BenchOptions } from './support/options.ts'
import type { BenchReport, Measurement } from './support/report.ts'
import { type BenchServer, startBenchServer } from './support/server.ts'

const eventsInBatch = 10

async function prepare(server: BenchServer): Promise<void> {
  await server.createDatabase('coop', 'ours')
  const client = await server.connect('coop')
  await client.query("select pgq.create_queue('q'), pgq_coop.register_subconsumer('q', 'c', 'w0')")
  await client.query("select pgq_coop.register_partitions('q', 'p', 32)")
  for (const parameter of ['ticker_max_count', 'ticker_max_lag', 'ticker_idle_period'])
    await client.query(`select pgq.set_queue_config('q', $1, $2)`, [
      parameter,
      parameter === 'ticker_max_count' ? '1' : '0',
    ])
  await client.end()
}

async function fill(server: BenchServer, batches: number): Promise<void> {
  const client = await server.connect('coop')
  for (let n = 0; n < batches; n += 1) {
    await client.query(
      `select count(*) from pgq.insert_events('q', array_fill('t'::text, array[$1::int]), null,
         extra1 => array(select (random() * 1000)::int::text from generate_series(1, $1::int)))`,
      [eventsInBatch],
    )
    await client.query(`select pgq.ticker('q')`)
  }
  await client.end()
}

type Next = (db: Db, worker: string) => Promise<bigint | undefined>

/** Events a second that so many workers handle, each of them with so many milliseconds of work. */
async function run(server: BenchServer, workers: number, milliseconds: number, next: Next): Promise<number> {
  const clients = await Promise.all(Array.from({ length: workers }, () => server.connect('coop')))
  let handled = 0
  const started = performance.now()
  await Promise.all(
    clients.map(async (client, index) => {
      const db = toDb(client)
      const worker = `w${index}`
      for (let batch = await next(db, worker); batch !== undefined; batch = await next(db, worker)) {
        const events = await coopBatchEvents(db, batch)
        await sleep(events.length * milliseconds)
        handled += events.length
        await finishCoopBatch(db, batch, worker)
      }
    }),
  )
  const elapsed = performance.now() - started
  await Promise.all(clients.map((client) => client.end()))
  return (handled * 1000) / elapsed
}

/** Cooperative workers: throughput against N times one worker that does nothing but its work. */
export async function coop({ rounds }: BenchOptions): Promise<BenchReport> {
  const server = await startBenchServer({ synchronous_commit: 'off' })
  const measurements: Measurement[] = []
  try {
    await prepare(server)
    for (const milliseconds of [1, 10]) {
      for (const workers of [1, 2, 4, 8, 16]) {
        const figures = { cooperative: [] as number[], partitioned: [] as number[], ideal: [] as number[] }
        for (let round = 0; round < rounds; round += 1) {
          await fill(server, workers * (milliseconds === 1 ? 60 : 10))
          figures.cooperative.push(
            await run(server, workers, milliseconds, (db, worker) => nextCoopBatch(db, 'q', 'c', worker)),
          )
          figures.partitioned.push(
            await run(server, workers, milliseconds, (db, worker) => nextPartition(db, 'q', 'p', worker)),
          )
          figures.ideal.push((workers * 1000) / milliseconds)
        }
        measurements.push({
          name: `${workers} workers, ${milliseconds} ms an event`,
          unit: 'events/s',
          rounds: figures,
        })
      }
    }
  } finally {
    await server.stop()
  }
  return {
    scenario: 'coop',
    server: server.version,
    settings: `batches of ${eventsInBatch} events, 32 partitions, ${rounds} rounds, one Node process`,
    subject: 'cooperative',
    measurements,
  }
}
