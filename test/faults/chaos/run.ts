import { setTimeout as delay } from 'node:timers/promises'
import { connectionLost } from '../../../src/db/lost.ts'
import {
  consumerInfo,
  createQueue,
  type Db,
  install,
  openDb,
  registerConsumer,
  setQueueConfig,
} from '../../../src/index.ts'
import { startServer } from '../../support/server.ts'
import { transpile } from '../../support/transpile.ts'
import { actors } from './actors.ts'
import { type Fault, harm } from './faults.ts'
import { type Account, createLedger, drained, rotations, settle, suspects } from './ledger.ts'
import type { Role } from './roles.ts'

export interface Chaos {
  readonly accounts: readonly Account[]
  readonly faults: Record<Fault, number>
  readonly rotations: number
  /** What went wrong beside the events: processes that ended by themselves, events that did not come. */
  readonly problems: readonly string[]
  /** What was done when, and what the processes said. */
  readonly report: string
}

const woken = { queue: 'woken' }
const polled = { queue: 'polled' }
const exactly = { kind: 'consumer', transactional: true } as const
const atLeast = { kind: 'consumer', transactional: false } as const

/** Two producers, two tickers, four consumers and two groups of workers, over two queues, one of them with wake-up. */
export const roles: Readonly<Record<string, Role>> = {
  'producer 1': { kind: 'producer', queues: ['woken', 'polled'] },
  'producer 2': { kind: 'producer', queues: ['polled', 'woken'] },
  'ticker 1': { kind: 'ticker' },
  'ticker 2': { kind: 'ticker' },
  'exactly 1': { ...exactly, ...woken, consumer: 'exactly by event', by: 'event' },
  'exactly 2': { ...exactly, ...polled, consumer: 'exactly by batch', by: 'batch' },
  'at least 1': { ...atLeast, ...polled, consumer: 'at least by event', by: 'event' },
  'at least 2': { ...atLeast, ...woken, consumer: 'at least by batch', by: 'batch' },
  'group 1, a': { ...exactly, ...woken, consumer: 'group by event', by: 'event', worker: 'a' },
  'group 1, b': { ...exactly, ...woken, consumer: 'group by event', by: 'event', worker: 'b' },
  'group 2, a': { ...exactly, ...polled, consumer: 'group by batch', by: 'batch', worker: 'a' },
  'group 2, b': { ...exactly, ...polled, consumer: 'group by batch', by: 'batch', worker: 'b' },
}
/** Consumers whose handlers write outside of the consumer's transaction: they may get an event again. */
const mayRepeat = ['at least by event', 'at least by batch']

/** All that is wrong with the outcome: nothing lost, nothing from nowhere, and nothing twice where that is promised. */
export function wrongs({ accounts, problems }: Chaos): string[] {
  const found = [...problems]
  for (const { consumer, missing, foreign, doubled, unduly } of accounts) {
    const repeats = mayRepeat.includes(consumer)
    const counts = { missing, foreign, ...(!repeats && { doubled, unduly }) }
    for (const [what, count] of Object.entries(counts)) if (count > 0) found.push(`${consumer}: ${count} ${what}`)
  }
  return found
}

/** Seconds for what is left to be handled once nobody does harm any more. */
const patience = 60

/** Runs producers, tickers and consumers as processes on a server of their own, harms them in an order that the seed
 * tells, has what is left handled, and counts. */
export async function chaos(seed: number, seconds: number): Promise<Chaos> {
  const lines: string[] = [`seed ${seed}, ${seconds} s`]
  const begun = performance.now()
  const log = (line: string) => void lines.push(`${((performance.now() - begun) / 1000).toFixed(1)} s: ${line}`)
  const server = await startServer(18, { settings: { synchronous_commit: 'on' } })
  const db = patient(await openDb(server.url, { max: 2 }))
  const code = await transpile(['src', 'test/faults/chaos'])
  const company = actors(code.path('test/faults/chaos/process.ts'), server.url, roles)
  const starting = (kind: Role['kind']) => company.names.filter((name) => roles[name]?.kind === kind)
  try {
    log('server')
    await prepare(db)
    log('prepared')
    for (const name of company.names) company.start(name)
    const began = await until(patience, () => flowing(db))
    log(began ? 'all are at work' : 'not all have begun to work')
    const faults = await harm({ server, db, actors: company, log }, seed, seconds)
    log('the harm is over')
    await company.end(starting('producer'))
    log('producers ended')
    const done = await until(patience, () => company.problems.length > 0 || drained(db, Object.values(roles)))
    log('drained')
    await company.end([...starting('consumer'), ...starting('ticker')])
    const problems = [...company.problems]
    log('all have ended')
    if (!done) problems.push(`not all was handled ${patience} s after the last harm`)
    const accounts = await settle(db, Object.values(roles))
    lines.push(company.said(), format(await consumerInfo(db)), format(await suspects(db)), server.log())
    return { accounts, faults, rotations: await rotations(db), problems, report: lines.join('\n') }
  } finally {
    await company.close()
    await db.close()
    await server.remove()
    await code.remove()
  }
}

async function prepare(db: Db): Promise<void> {
  await install(db)
  await createLedger(db)
  for (const queue of ['woken', 'polled']) {
    await createQueue(db, queue)
    await setQueueConfig(db, queue, {
      ...{ tickerMaxCount: 50, tickerMaxLag: '0.2 seconds', tickerIdlePeriod: '1 second', rotationPeriod: '1 second' },
    })
  }
  await db.query(`select pgq.set_wakeup('woken', true)`)
  for (const role of Object.values(roles)) {
    if (role.kind !== 'consumer') continue
    const { queue, consumer, worker } = role
    if (worker === undefined) await registerConsumer(db, queue, consumer)
    else await db.query('select pgq_coop.register_subconsumer($1, $2, $3)', [queue, consumer, worker])
  }
}

/** Every consumer has handled something. */
async function flowing(db: Db): Promise<boolean> {
  const accounts = await settle(db, Object.values(roles))
  return accounts.every(({ sent, missing }) => sent > missing)
}

/** Asks until it is so; false when so many seconds have passed. */
async function until(seconds: number, check: () => boolean | Promise<boolean>): Promise<boolean> {
  const end = performance.now() + seconds * 1000
  while (!(await check())) {
    if (performance.now() > end) return false
    await delay(200)
  }
  return true
}

/** Queries that come again where the connection broke. */
function patient(db: Db): Db {
  return {
    ...db,
    async query(sql, params, options) {
      for (;;) {
        try {
          return await db.query(sql, params, options)
        } catch (error) {
          if (!connectionLost(error)) throw error
          await delay(50)
        }
      }
    },
  }
}

const format = (rows: readonly object[]): string =>
  rows.map((row) => JSON.stringify(row, (_, value) => (typeof value === 'bigint' ? Number(value) : value))).join('\n')
