import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import {
  createConsumer,
  createTicker,
  type Db,
  insertEvent,
  install,
  openDb,
  serveHealth,
  setQueueConfig,
  type TickerState,
} from '../../../src/index.ts'
import { packageRoot } from '../../../src/schema/bundle.ts'
import { lead } from '../../../src/ticker/lead.ts'
import { servers, type TestDb } from '../../support/databases.ts'
import { busyQueue, one } from '../../support/queues.ts'
import { startServer } from '../../support/server.ts'
import { tsx } from '../../support/tsx.ts'

const ticks = async (db: Db) => (await one<{ n: number }>(db, 'select count(*)::int as n from pgq.tick')).n

/** Until it is so; fails after ten seconds. */
async function until(what: string, check: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 10_000
  while (!(await check())) {
    if (Date.now() > end) throw new Error(`not so after 10 s: ${what}`)
    await delay(10)
  }
}

/** Ticks go on: one more event, one more tick. */
async function ticking(db: Db): Promise<void> {
  const before = await ticks(db)
  await insertEvent(db, 'q', { data: 'x' })
  await until('there is a new tick', async () => (await ticks(db)) > before)
}

const urlOf = (db: TestDb) => db.url ?? ''

function tickerProcess(db: TestDb, args: readonly string[] = []): ChildProcess & { output: () => string } {
  const script = join(packageRoot(), 'scripts', 'skytools.ts')
  const child = spawn(process.execPath, [...tsx, script, 'ticker', '--period', '0.1', '--takeover', '0.5', ...args], {
    env: { ...process.env, DATABASE_URL: db.url },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let output = ''
  child.stdout.on('data', (data) => {
    output += data
  })
  return Object.assign(child, { output: () => output })
}

describe('a ticker of a cluster', () => {
  it('finds the databases that have skytools, those made later too, and leaves the others alone', async () => {
    const server = await startServer(18)
    const stop = new AbortController()
    const states = new Map<string, TickerState>()
    const ticker = createTicker({
      cluster: server.url,
      period: 0.05,
      checkPeriod: 0.2,
      onState: (database, state) => states.set(database, state),
    })
    const running = ticker.run(stop.signal)
    try {
      const admin = await openDb(server.url, { max: 1 })
      await admin.query('create database "first"')
      await until('a database without skytools is absent', () => states.get('first') === 'absent')
      const db = await openDb(server.databaseUrl('first'), { max: 2 })
      await install(db)
      await busyQueue(db, 'q')
      await until('it is found', () => states.get('first') === 'leading')
      await ticking(db)
      expect(states.get('postgres')).toBe('absent')
      expect(ticker.health()).toMatchObject({ ready: true })
      await db.close()
      await admin.query('drop database "first" with (force)')
      await until('it is forgotten', () => !ticker.health().databases.some(({ database }) => database === 'first'))
      await admin.close()
    } finally {
      stop.abort()
      await running
      await server.remove()
    }
  })
})

describe.each(servers)('a ticker on $name', ({ open }) => {
  it('leads alone; another takes over at once when its process is killed', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    const first = tickerProcess(db)
    await until('the first leads', () => first.output().includes('"state":"leading"'))
    const second = tickerProcess(db)
    await until('the second waits', () => second.output().includes('"state":"standby"'))
    await ticking(db)
    first.kill('SIGKILL')
    await until('the second leads', () => second.output().includes('"state":"leading"'))
    await ticking(db)
    const ended = new Promise((resolve) => second.once('exit', resolve))
    second.kill('SIGTERM')
    expect(await ended).toBe(0)
    expect(second.output()).toContain('ticker stopped')
  })

  it('ends its lead at once when its work fails, whatever the connection that holds the lock does', async () => {
    await using db = await open()
    const { signal } = new AbortController()
    const settings = { signal, period: 3600, takeover: 5, onState: () => undefined }
    const work = () => Promise.reject(new Error('no connection for the work'))
    await expect(lead(db, settings, work)).rejects.toThrow('no connection for the work')
  })

  it('reports no failure when it is told to end', async () => {
    await using db = await open()
    const errors: unknown[] = []
    const stop = new AbortController()
    const ticker = createTicker({
      databases: [urlOf(db)],
      onState: (_, state) => state === 'leading' && setTimeout(() => stop.abort(), 50),
      onError: (error) => errors.push(error),
    })
    await ticker.run(stop.signal)
    expect(errors).toEqual([])
  })

  it('is pushed aside when it hangs, and waits when it wakes up', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    const hung = tickerProcess(db)
    await until('the first leads', () => hung.output().includes('"state":"leading"'))
    hung.kill('SIGSTOP')
    const second = tickerProcess(db)
    await insertEvent(db, 'q', { data: 'x' })
    await until('the second leads', () => second.output().includes('"state":"leading"'))
    await ticking(db)
    hung.kill('SIGCONT')
    await until('the first waits', () => hung.output().includes('"state":"standby"'))
    for (const process of [hung, second]) {
      const ended = new Promise((resolve) => process.once('exit', resolve))
      process.kill('SIGTERM')
      expect(await ended).toBe(0)
    }
  })

  it("goes by pgqd's file, reads it anew and reopens its log at SIGHUP, and tells its health", async () => {
    await using db = await open()
    await using other = await open()
    await busyQueue(db, 'q')
    await busyQueue(other, 'q')
    const folder = await mkdtemp(join(tmpdir(), 'skytools-ticker-'))
    const [ini, log] = [join(folder, 'pgqd.ini'), join(folder, 'pgqd.log')]
    const url = new URL(urlOf(db))
    const nameOf = (database: TestDb) => new URL(urlOf(database)).pathname.slice(1)
    const write = (...databases: TestDb[]) =>
      writeFile(
        ini,
        `[pgqd]\nbase_connstr = host=${url.hostname} port=${url.port} user=postgres\nlogfile = ${log}\n` +
          `ticker_period = 0.1\ndatabase_list = ${databases.map(nameOf).join(' ')}\n`,
      )
    await write(db)
    const child = tickerProcess(db, [ini, '--port', '0'])
    const logged = async () => readFile(log, 'utf8').catch(() => '')
    try {
      await until('it leads', async () => (await logged()).includes('"state":"leading"'))
      await ticking(db)
      const [, address = ''] = /"url":"([^"]+)"/.exec(await logged()) ?? []
      const ready = await fetch(`${address}/readyz`)
      expect(ready.status).toBe(200)
      expect(await ready.json()).toMatchObject({ ready: true, databases: [{ database: nameOf(db), state: 'leading' }] })
      expect(await (await fetch(`${address}/healthz`)).text()).toBe('ok\n')
      await rm(log)
      await write(db, other)
      child.kill('SIGHUP')
      await until('the other is ticked too', async () => (await logged()).includes(nameOf(other)))
      await ticking(other)
      await ticking(db)
    } finally {
      child.kill('SIGTERM')
      await new Promise((resolve) => child.once('exit', resolve))
      await rm(folder, { recursive: true })
    }
  })

  it('goes on after its connections were ended', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    const stop = new AbortController()
    const ticker = createTicker({ databases: [urlOf(db)], period: 0.05, retry: { min: 0.05 } })
    const running = ticker.run(stop.signal)
    await ticking(db)
    for (let n = 0; n < 3; n++) {
      await db.query(
        'select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1 and datname = current_database()',
        ['skytools'],
      )
      await ticking(db)
    }
    await until('it is ready', () => ticker.health().ready)
    stop.abort()
    await running
    expect(ticker.health().ready).toBe(false)
  })

  it('handles an event long before the next tick is due, where wake-up is on', async () => {
    await using db = await open()
    await db.query(`select pgq.create_queue('q')`)
    await setQueueConfig(db, 'q', { wakeup: true, tickerMaxLag: 600 })
    const stop = new AbortController()
    const ticker = createTicker({ databases: [urlOf(db)], period: 60 })
    const running = ticker.run(stop.signal)
    const pool = await openDb(urlOf(db), { max: 4 })
    let handled = 0
    const consumer = createConsumer({
      db: pool,
      queue: 'q',
      consumer: 'c',
      poll: 60,
      handler: () => {
        handled += 1
      },
    })
    const consuming = consumer.run(stop.signal)
    try {
      const listening = async () =>
        (
          await one<{ n: number }>(
            db,
            `select count(*)::int as n from pg_stat_activity
              where datname = current_database() and query like 'listen "pgq_%'`,
          )
        ).n
      await until('both listen', async () => (await listening()) === 2)
      for (let n = 1; n <= 5; n++) {
        await insertEvent(db, 'q', { data: 'x' })
        await until('it is handled', () => handled === n)
      }
    } finally {
      stop.abort()
      await Promise.all([running, consuming])
      await pool.close()
    }
  })

  it('has producers save their notifications while there are very many, and misses none of the last', async () => {
    await using db = await open()
    await db.query(`select pgq.create_queue('q')`)
    await setQueueConfig(db, 'q', { wakeup: true, tickerMaxLag: 600 })
    const stop = new AbortController()
    const ticker = createTicker({ databases: [urlOf(db)], period: 60 })
    const running = ticker.run(stop.signal)
    const state = async () =>
      (await one<{ n: bigint | null }>(db, `select pg_sequence_last_value('pgq.wakeup_state') as n`)).n
    const newest = async () =>
      (await one<{ n: bigint }>(db, 'select max(txid_snapshot_xmax(tick_snapshot)) as n from pgq.tick')).n
    try {
      await until('it listens', async () => (await state()) === 1n)
      const pool = await openDb(urlOf(db), { max: 4 })
      let sending = true
      const producers = Array.from({ length: 4 }, async () => {
        while (sending) await insertEvent(pool, 'q', { data: 'x' })
      })
      await until('it looks by itself', async () => (await state()) === 2n)
      sending = false
      await Promise.all(producers)
      const { txid } = await one<{ txid: bigint }>(
        pool,
        `select pgq.insert_event('q', 't', 'last'), txid_current() as txid`,
      )
      await until('the last event has a tick', async () => (await newest()) > txid)
      await until('it is notified again', async () => (await state()) === 1n)
      await pool.close()
    } finally {
      stop.abort()
      await running
    }
  })

  it('serves its health until the signal', async () => {
    await using db = await open()
    const ticker = createTicker({ databases: [urlOf(db)] })
    const stop = new AbortController()
    const served = serveHealth(ticker, {
      port: 0,
      signal: stop.signal,
      onListening: async (url) => {
        expect((await fetch(`${url}/readyz`)).status).toBe(503)
        expect((await fetch(`${url}/other`)).status).toBe(404)
        stop.abort()
      },
    })
    await served
  })
})

describe('the configuration of a ticker', () => {
  it('is refused with the names of the keys that are wrong', () => {
    for (const [options, message] of [
      [{}, /either databases or cluster/],
      [{ databases: ['x'], cluster: 'y' }, /either databases or cluster/],
      [{ databases: ['x'], only: ['y'] }, /only needs cluster/],
      [{ databases: ['x'], period: 0 }, /period/],
      [{ databases: ['x'], perod: 1 }, /perod/],
    ] as const)
      expect(() => createTicker(options as never)).toThrow(message)
  })
})
