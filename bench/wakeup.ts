import { createQueue, createTicker, setQueueConfig, toDb } from '../src/index.ts'
import { urlOf } from './support/contenders.ts'
import { statementsPerSecond } from './support/load.ts'
import type { BenchOptions } from './support/options.ts'
import type { BenchReport, Measurement } from './support/report.ts'
import { type BenchServer, startBenchServer } from './support/server.ts'

interface Producers {
  readonly name: string
  readonly database: string
  readonly wakeup: boolean
  /** A ticker listens: woken too often, it has the producers stop notifying. */
  readonly ticker: boolean
}

const producers: readonly Producers[] = [
  { name: 'off', database: 'off', wakeup: false, ticker: true },
  { name: 'on', database: 'adaptive', wakeup: true, ticker: true },
  { name: 'NOTIFY each time', database: 'notify', wakeup: true, ticker: false },
]

async function prepare(server: BenchServer, { database, wakeup }: Producers): Promise<void> {
  await server.createDatabase(database, 'ours')
  const client = await server.connect(database)
  await createQueue(toDb(client), 'q')
  await setQueueConfig(toDb(client), 'q', { wakeup })
  await client.end()
}

/** Commits a second of producers, each inserting one event. */
async function commits(server: BenchServer, of: Producers, clients: number, seconds: number): Promise<number> {
  const session = await server.connect(of.database)
  await session.query('truncate pgq.event_1_0, pgq.event_1_1, pgq.event_1_2')
  const listening = of.ticker ? undefined : await server.connect(of.database)
  await listening?.query('listen pgq_insert')
  const stop = new AbortController()
  const ticking = of.ticker && createTicker({ databases: [urlOf(server, of.database)] }).run(stop.signal)
  try {
    return await statementsPerSecond(server, {
      database: of.database,
      statement: `select pgq.insert_event('q', 'e', repeat('x', 100))`,
      clients,
      seconds,
      perTransaction: 1,
      prepared: true,
    })
  } finally {
    stop.abort()
    await ticking
    await listening?.end()
    await session.end()
  }
}

/** What wake-up costs producers: NOTIFY has transactions commit one after the other. */
export async function wakeup(options: BenchOptions): Promise<BenchReport> {
  const server = await startBenchServer()
  const measurements: Measurement[] = []
  try {
    for (const one of producers) await prepare(server, one)
    const admin = await server.connect('postgres')
    for (const durable of ['on', 'off']) {
      await admin.query(`alter system set synchronous_commit = ${durable}`)
      await admin.query('select pg_reload_conf()')
      for (const clients of [1, 4, 16]) {
        const name = `${clients} client${clients > 1 ? 's' : ''}, synchronous_commit = ${durable}`
        if (!name.includes(options.only)) continue
        const rounds: Record<string, number[]> = Object.fromEntries(producers.map((one) => [one.name, []]))
        for (let round = 0; round < options.rounds; round += 1)
          for (const one of producers) rounds[one.name]?.push(await commits(server, one, clients, options.seconds))
        measurements.push({ name, unit: 'commits/s', rounds })
        process.stderr.write(`${name}: done\n`)
      }
    }
    await admin.end()
  } finally {
    await server.stop()
  }
  return {
    scenario: 'wakeup',
    server: server.version,
    settings: `one event a transaction (${server.hasPgbench ? 'pgbench' : 'node-postgres'}), ${options.rounds} rounds`,
    subject: [
      ['on', 'off'],
      ['NOTIFY each time', 'off'],
    ],
    measurements,
  }
}
