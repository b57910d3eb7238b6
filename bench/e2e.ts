import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { createConsumer, createTicker } from '../src/index.ts'
import { type Contender, contenders, urlOf } from './support/contenders.ts'
import type { BenchOptions } from './support/options.ts'
import { plot } from './support/plot.ts'
import type { BenchReport, Measurement } from './support/report.ts'
import { type BenchServer, startBenchServer } from './support/server.ts'
import { median } from './support/statistics.ts'

const message = 'x'.repeat(100)
const now = () => performance.timeOrigin + performance.now()
let databases = 0

interface Run {
  readonly database: string
  readonly stop: () => Promise<void>
}

async function begin(
  server: BenchServer,
  contender: Contender,
  workers: number,
  handled: (messages: readonly string[]) => void,
): Promise<Run> {
  databases += 1
  const database = `e2e_${databases}`
  await contender.prepare(server, database, workers)
  return { database, stop: await contender.start(server, database, workers, handled) }
}

/** A process that sends at a rate; it has begun. */
async function produce(server: BenchServer, { send }: Contender, database: string, rate: number, seconds: number) {
  const file = fileURLToPath(new URL('./support/producer.ts', import.meta.url))
  const child: ChildProcess = fork(file, [urlOf(server, database), send, String(rate), String(seconds)])
  await once(child, 'message')
  return once(child, 'exit')
}

async function until(condition: () => boolean, seconds: number): Promise<boolean> {
  const end = performance.now() + seconds * 1000
  while (!condition() && performance.now() < end) await sleep(5)
  return condition()
}

const quantile = (sorted: readonly number[], q: number) => sorted[Math.floor((sorted.length - 1) * q)] ?? Number.NaN

/** From when the server inserts a message, before its commit, to when its handler has it: p50, p95 and p99 in milliseconds. */
async function latency(
  server: BenchServer,
  options: BenchOptions,
  chosen: readonly Contender[],
): Promise<Measurement[]> {
  const seconds = Math.max(options.seconds, 5)
  const result: Measurement[] = []
  for (const rate of [10, 100, 1000, 5000]) {
    const found: Record<string, number[][]> = {}
    for (let round = 0; round < options.rounds; round += 1) {
      for (const contender of chosen) {
        const times: number[] = []
        let count = 0
        const { database, stop } = await begin(server, contender, 1, (messages) => {
          const at = now()
          for (const text of messages) times.push(at - Number(text))
          count += messages.length
        })
        await sleep(1000)
        await produce(server, contender, database, rate, seconds)
        // Who has fallen behind is measured by what has come.
        await until(() => count >= rate * seconds, 10)
        await stop()
        times.sort((a, b) => a - b)
        const each = found[contender.name] ?? []
        found[contender.name] = each
        each.push([0.5, 0.95, 0.99].map((q) => quantile(times, q)))
        if (count < rate * seconds)
          process.stderr.write(`${contender.name} had ${count} of ${rate * seconds} at ${rate}/s\n`)
      }
    }
    for (const [index, q] of ['p50', 'p95', 'p99'].entries())
      result.push({
        name: `latency ${q} at ${rate}/s`,
        unit: 'ms',
        less: true,
        rounds: Object.fromEntries(
          Object.entries(found).map(([name, rounds]) => [name, rounds.map((round) => round[index] ?? Number.NaN)]),
        ),
      })
  }
  return result
}

/** Messages that wait already, and how fast they are handled. */
async function throughput(
  server: BenchServer,
  options: BenchOptions,
  chosen: readonly Contender[],
): Promise<Measurement[]> {
  const result: Measurement[] = []
  for (const workers of [1, 8]) {
    const rounds: Record<string, number[]> = {}
    for (let round = 0; round < options.rounds; round += 1) {
      for (const contender of chosen.filter(({ name }) => name !== 'skytools without wake-up')) {
        const total = contender.name.startsWith('skytools') ? 200_000 : 40_000
        const rate = await drain(server, contender, workers, total)
        process.stderr.write(`${contender.name}, ${workers} workers: ${Math.round(rate)}/s\n`)
        rounds[contender.name] = [...(rounds[contender.name] ?? []), rate]
      }
    }
    result.push({ name: `throughput, ${workers} worker${workers > 1 ? 's' : ''}`, unit: 'messages/s', rounds })
  }
  return result
}

async function drain(server: BenchServer, contender: Contender, workers: number, total: number): Promise<number> {
  databases += 1
  const database = `e2e_${databases}`
  await contender.prepare(server, database, workers)
  await fill(server, contender, database, total)
  let count = 0
  let first = 0
  let last = 0
  const stop = await contender.start(server, database, workers, (messages) => {
    if (messages.length === 0) return
    first ||= performance.now()
    last = performance.now()
    count += messages.length
  })
  await until(() => count >= total, 300)
  await stop()
  if (count !== total) process.stderr.write(`${contender.name} handled ${count} of ${total} messages\n`)
  return (count * 1000) / (last - first)
}

async function fill(server: BenchServer, { fill, tick }: Contender, database: string, total: number): Promise<void> {
  const client = await server.connect(database)
  for (let sent = 0; sent < total; sent += 2000) {
    await client.query(fill, [Math.min(2000, total - sent), message])
    if (tick) await client.query(tick)
  }
  await client.end()
}

/** Processor time of a server's processes, dead ones too, in seconds. */
function serverSeconds(postmaster: number): number {
  const fields = (pid: string) =>
    readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /, '')
      .split(' ')
      .map(Number)
  let ticks = 0
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const [, parent, , , , , , , , , , user = 0, system = 0, deadUser = 0, deadSystem = 0] = fields(pid)
      if (Number(pid) === postmaster) ticks += user + system + deadUser + deadSystem
      else if (parent === postmaster) ticks += user + system
    } catch {
      // It has ended meanwhile.
    }
  }
  return ticks / 100
}

/** What 100 queues with a consumer each cost while nothing happens: thousandths of a core. */
async function idle(server: BenchServer, options: BenchOptions): Promise<Measurement[]> {
  const seconds = Math.max(options.seconds, 20)
  const result: Measurement[] = []
  for (const consuming of [false, true]) {
    const rounds: Record<string, number[]> = { server: [], 'node process': [] }
    databases += 1
    const database = `e2e_${databases}`
    await server.createDatabase(database, 'ours')
    const pool = new pg.Pool({ connectionString: urlOf(server, database), max: 10 })
    await pool.query(
      `select pgq.create_queue('q' || n), pgq.register_consumer('q' || n, 'c'), pgq.set_wakeup('q' || n, true) from generate_series(1, 100) n`,
    )
    const stop = new AbortController()
    const jobs = [createTicker({ databases: [urlOf(server, database)] }).run(stop.signal)]
    if (consuming)
      for (let n = 1; n <= 100; n += 1)
        jobs.push(
          createConsumer({ db: pool, queue: `q${n}`, consumer: 'c', poll: 60, batchHandler: () => undefined }).run(
            stop.signal,
          ),
        )
    // Each queue has had its idle tick, and each consumer its first batches.
    await sleep(Math.max(5, seconds) * 1000)
    const before = { server: serverSeconds(server.pid), node: process.cpuUsage() }
    await sleep(seconds * 1000)
    const { user, system } = process.cpuUsage(before.node)
    rounds.server?.push(((serverSeconds(server.pid) - before.server) * 1000) / seconds)
    rounds['node process']?.push((user + system) / 1000 / seconds)
    stop.abort()
    await Promise.all(jobs)
    await pool.end()
    result.push({
      name: `idle, 100 queues, ${consuming ? 'ticker and 100 consumers' : 'ticker'}`,
      unit: 'thousandths of a core',
      less: true,
      rounds,
    })
  }
  return result
}

/** While another session holds an old snapshot: messages handled a second, and how fast a backlog is, before and after. */
async function held(server: BenchServer, options: BenchOptions, chosen: readonly Contender[]): Promise<Measurement[]> {
  const result: Measurement[] = []
  const lines: { name: string; points: [number, number][] }[] = []
  const seconds = Math.round(options.minutes * 60)
  for (const contender of chosen.filter(({ name }) => name !== 'skytools without wake-up')) {
    const count = { handled: 0 }
    const { database, stop } = await begin(server, contender, 1, (messages) => {
      count.handled += messages.length
    })
    const burst = async (): Promise<number> => {
      const { handled } = count
      const start = performance.now()
      await fill(server, contender, database, 20_000)
      await until(() => count.handled >= handled + 20_000, 120)
      return ((count.handled - handled) * 1000) / (performance.now() - start)
    }
    const bursts = async (): Promise<number> => median([await burst(), await burst(), await burst()])
    await burst()
    const free = await bursts()
    const holder = await server.connect(database)
    await holder.query('begin isolation level repeatable read; select txid_current()')
    const points: [number, number][] = []
    const ended = produce(server, contender, database, options.rate, seconds)
    const producing = await Promise.race([ended.then(() => false), sleep(1000).then(() => true)])
    if (!producing) throw new Error('the producer ended at once')
    const start = performance.now()
    const window = Math.max(2, Math.round(seconds / 60))
    let before = count.handled
    while (performance.now() - start < (seconds - 2) * 1000) {
      await sleep(window * 1000)
      points.push([(performance.now() - start) / 60_000, (count.handled - before) / window])
      before = count.handled
    }
    await ended
    let last = -1
    await until(() => {
      const still = count.handled !== last
      last = count.handled
      return !still
    }, 1)
    const after = await bursts()
    await holder.query('rollback')
    await holder.end()
    await stop()
    lines.push({ name: contender.name, points })
    const tail = points.slice(-5)
    result.push({
      name: `${contender.name}: ${options.minutes} min of an old snapshot at ${options.rate}/s`,
      unit: 'messages/s',
      note: `backlog handled at ${(after / free).toFixed(2)} of the rate before`,
      rounds: {
        'sent and handled, at the end': [tail.reduce((sum, [, rate]) => sum + rate, 0) / tail.length],
        'backlog, before': [free],
        'backlog, held': [after],
      },
    })
  }
  if (options.plotTo)
    writeFileSync(
      options.plotTo,
      plot({
        title: `An old snapshot is held, ${options.rate} messages/s are sent`,
        x: 'minutes',
        y: 'handled a second',
        lines,
      }),
    )
  return result
}

/** Those that are wanted and run here. */
async function able({ without }: BenchOptions): Promise<Contender[]> {
  const found: Contender[] = []
  for (const contender of contenders.filter(({ name }) => !without.includes(name))) {
    try {
      await contender.load?.()
      found.push(contender)
    } catch (error) {
      process.stderr.write(`${contender.name} is left out: ${error}\n`)
    }
  }
  return found
}

const parts = { latency, throughput, idle, held }

/** From a producer's commit to the handler, in processes of their own. */
export async function e2e(options: BenchOptions): Promise<BenchReport> {
  const server = await startBenchServer({ synchronous_commit: 'off', max_connections: '200' })
  const measurements: Measurement[] = []
  try {
    const chosen = await able(options)
    for (const [name, part] of Object.entries(parts))
      if (name.includes(options.only)) measurements.push(...(await part(server, options, chosen)))
  } finally {
    await server.stop()
  }
  return {
    scenario: 'e2e',
    server: server.version,
    settings:
      'messages of 100 bytes, each sent in a transaction of its own by another process; synchronous_commit = off',
    subject: 'skytools',
    measurements,
  }
}
