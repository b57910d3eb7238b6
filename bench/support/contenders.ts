import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import pg from 'pg'
import { createConsumer, createQueue, createTicker, setQueueConfig, toDb } from '../../src/index.ts'
import type { BenchServer } from './server.ts'

/** Takes what a message holds: the time of its sending, padded to its size. */
export type Handled = (messages: readonly string[]) => void

/** A queue, as its manual says to use it. */
export interface Contender {
  readonly name: string
  /** Fetches what it needs; throws where that does not run here. */
  readonly load?: () => Promise<unknown>
  /** A new database, for so many workers. */
  prepare(server: BenchServer, database: string, workers: number): Promise<void>
  /** Sends one message, which holds `sentNow`. */
  readonly send: string
  /** Sends so many, `$1`, that hold `$2`. */
  readonly fill: string
  /** After each of those: what makes a batch of them. */
  readonly tick?: string
  /** Handles what comes until it is told to stop. */
  start(server: BenchServer, database: string, workers: number, handled: Handled): Promise<() => Promise<void>>
}

export const urlOf = (server: BenchServer, database: string) =>
  `postgres://postgres@/${database}?host=${encodeURIComponent(server.host)}&port=${server.port}`

/** Until `stop` is called: what runs with a signal. */
function running(...jobs: ((signal: AbortSignal) => Promise<unknown>)[]): () => Promise<void> {
  const stop = new AbortController()
  const ended = Promise.all(jobs.map((job) => job(stop.signal)))
  return async () => {
    stop.abort()
    await ended
  }
}

/** By the server's clock, so that time spent in a producer's own queue is not counted. */
const sentNow = 'rpad((extract(epoch from clock_timestamp()) * 1000)::text, 100)'

const skytools = (wakeup: boolean): Contender => ({
  name: wakeup ? 'skytools' : 'skytools without wake-up',
  async prepare(server, database, workers) {
    await server.createDatabase(database, 'ours')
    const client = await server.connect(database)
    await createQueue(toDb(client), 'q')
    await setQueueConfig(toDb(client), 'q', { wakeup, rotationPeriod: '30 seconds' })
    if (workers === 1) await client.query(`select pgq.register_consumer('q', 'c')`)
    else
      await client.query(`select pgq_coop.register_subconsumer('q', 'c', 'w' || n) from generate_series(0, $1) n`, [
        workers - 1,
      ])
    await client.end()
  },
  send: `select pgq.insert_event('q', 'e', ${sentNow})`,
  fill: `select count(*) from pgq.insert_events('q', array_fill('e'::text, array[$1::int]), array_fill($2::text, array[$1::int]))`,
  tick: `select pgq.ticker('q')`,
  async start(server, database, workers, handled) {
    const pool = new pg.Pool({ connectionString: urlOf(server, database), max: workers + 4 })
    const ticker = createTicker({ databases: [urlOf(server, database)], maintenancePeriod: 10 })
    const consumers = Array.from({ length: workers }, (_, n) =>
      createConsumer({
        db: pool,
        queue: 'q',
        consumer: 'c',
        ...(workers > 1 && { coop: { worker: `w${n}` } }),
        batchHandler: (events) => handled(events.map(({ data }) => data ?? '')),
      }),
    )
    const stop = running(
      (signal) => ticker.run(signal),
      ...consumers.map((consumer) => (signal: AbortSignal) => consumer.run(signal)),
    )
    return async () => {
      await stop()
      await pool.end()
    }
  },
})

/** What many write by hand: take some rows, handle them, delete them. */
const skipLocked: Contender = {
  name: 'SKIP LOCKED loop',
  async prepare(server, database) {
    await server.createDatabase(database, 'empty')
    const client = await server.connect(database)
    await client.query('create table job (id bigint generated always as identity primary key, payload text not null)')
    await client.end()
  },
  send: `insert into job (payload) values (${sentNow})`,
  fill: 'insert into job (payload) select $2::text from generate_series(1, $1::int)',
  async start(server, database, workers, handled) {
    const loop = async (signal: AbortSignal) => {
      const client = await server.connect(database)
      while (!signal.aborted) {
        await client.query('begin')
        const { rows } = await client.query<{ payload: string }>({
          name: 'take',
          text: `delete from job where id in (select id from job order by id for update skip locked limit 500) returning payload`,
        })
        handled(rows.map(({ payload }) => payload))
        await client.query('commit')
        if (rows.length === 0) await sleep(10)
      }
      await client.end()
    }
    return running(...Array.from({ length: workers }, () => loop))
  },
}

const versions = { 'pg-boss': '10.4.2', 'graphile-worker': '0.17.3' }

/** A package that only this benchmark needs, from a folder of its own. */
async function peer<T>(name: keyof typeof versions): Promise<T> {
  const folder = join(tmpdir(), 'skytools-bench-peers')
  if (!existsSync(join(folder, 'node_modules', name))) {
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, 'package.json'), '{ "private": true }')
    const wanted = Object.entries(versions).map(([peer, version]) => `${peer}@${version}`)
    execFileSync('npm', ['install', '--no-audit', '--no-fund', '--silent', ...wanted], {
      cwd: folder,
      stdio: 'inherit',
    })
  }
  const entry = { 'pg-boss': 'src/index.js', 'graphile-worker': 'dist/index.js' }[name]
  const module = (await import(pathToFileURL(join(folder, 'node_modules', name, entry)).href)) as { default?: T }
  return module.default ?? (module as T)
}

interface Boss {
  start(): Promise<unknown>
  stop(options: object): Promise<void>
  on(event: 'error', listener: (error: unknown) => void): void
  createQueue(name: string): Promise<void>
  work(
    name: string,
    options: object,
    handler: (jobs: readonly { readonly data: { readonly at: string } }[]) => Promise<void>,
  ): Promise<string>
}

const pgBoss: Contender = {
  name: 'pg-boss',
  load: () => peer('pg-boss'),
  async prepare(server, database) {
    await server.createDatabase(database, 'empty')
    const boss = await bossOf(server, database)
    await boss.createQueue('q')
    await boss.stop({ graceful: false, wait: true })
  },
  send: `insert into pgboss.job (name, data) values ('q', jsonb_build_object('at', ${sentNow}))`,
  fill: `insert into pgboss.job (name, data) select 'q', jsonb_build_object('at', $2::text) from generate_series(1, $1::int)`,
  async start(server, database, workers, handled) {
    const boss = await bossOf(server, database)
    for (let n = 0; n < workers; n += 1)
      await boss.work('q', { batchSize: 5000, pollingIntervalSeconds: 0.5 }, async (jobs) =>
        handled(jobs.map(({ data }) => data.at)),
      )
    return () => boss.stop({ graceful: true, wait: true, timeout: 5000 })
  },
}

async function bossOf(server: BenchServer, database: string): Promise<Boss> {
  const Boss = await peer<new (options: object) => Boss>('pg-boss')
  const boss = new Boss({ connectionString: urlOf(server, database) })
  boss.on('error', (error) => process.stderr.write(`pg-boss: ${error}\n`))
  await boss.start()
  return boss
}

interface Graphile {
  runMigrations(options: object): Promise<void>
  run(options: object): Promise<{ stop(): Promise<void> }>
  Logger: new (factory: () => () => void) => object
}

const graphile: Contender = {
  name: 'graphile-worker',
  load: () => peer('graphile-worker'),
  async prepare(server, database) {
    await server.createDatabase(database, 'empty')
    await (await peer<Graphile>('graphile-worker')).runMigrations({ connectionString: urlOf(server, database) })
  },
  send: `select graphile_worker.add_job('e', json_build_object('at', ${sentNow}))`,
  fill: `select count(*) from graphile_worker.add_jobs(array(
    select row('e', json_build_object('at', $2::text), null, null, null, null, null, null)::graphile_worker.job_spec
      from generate_series(1, $1::int)))`,
  async start(server, database, workers, handled) {
    const { run, Logger } = await peer<Graphile>('graphile-worker')
    const runner = await run({
      connectionString: urlOf(server, database),
      concurrency: workers * 24,
      preset: { worker: { localQueue: { size: 500 }, completeJobBatchDelay: 0 } },
      noHandleSignals: true,
      pollInterval: 1000,
      logger: new Logger(() => () => undefined),
      taskList: { e: async ({ at }: { at: string }) => handled([at]) },
    })
    return () => runner.stop()
  },
}

export const contenders: readonly Contender[] = [skytools(true), skytools(false), skipLocked, pgBoss, graphile]
