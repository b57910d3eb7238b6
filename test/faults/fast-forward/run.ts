import { setTimeout as delay } from 'node:timers/promises'
import {
  createQueue,
  install,
  openDb,
  registerConsumer,
  registerPartitions,
  SkytoolsError,
  setQueueConfig,
} from '../../../src/index.ts'
import { startServer } from '../../support/server.ts'
import { countRotations, rotations } from '../chaos/ledger.ts'
import { group, keyed, load, outside, plain, queue } from './load.ts'
import { measure, type Sizes } from './measure.ts'

export interface FastForward {
  /** What was larger in the last third of the time than in the middle one. */
  readonly grown: readonly string[]
  readonly rotations: number
  readonly ticks: number
  /** What failed, or was warned of. */
  readonly errors: readonly string[]
}

/** What may be larger by chance: a few pages, the shape of a heap. */
const slack = (name: string): { share: number; bytes: number } => {
  if (name.startsWith('memory')) return { share: 0.1, bytes: 1_000_000 }
  // A pool opens them as it needs them.
  if (name === 'connections') return { share: 0, bytes: 2 }
  // The log of positions is allowed a megabyte.
  if (name.startsWith('pgq.position_')) return { share: 0.2, bytes: 1_048_576 }
  // What came between two rotations; without any, a third of the time would bring more.
  if (name === 'rows of pgq.tick') return { share: 0.2, bytes: 300 }
  if (name.startsWith('rows') || name === 'functions') return { share: 0.2, bytes: 10 }
  // Of the event tables, how much came between two rotations.
  return { share: 0.2, bytes: name.startsWith('pgq.event_') ? 262_144 : 65_536 }
}

/** Has a busy queue rotate as often as it goes for so many seconds, with all that the runtime does, and compares what
 * everything takes in the last third of the time with the middle third. */
export async function fastForward(seconds: number): Promise<FastForward> {
  // What vacuum does once a minute, as often in proportion.
  const server = await startServer(18, { settings: { autovacuum_naptime: '1s', autovacuum_vacuum_cost_delay: '0' } })
  const db = await openDb(server.url, { max: 16 })
  const stop = new AbortController()
  const errors: string[] = []
  const note = (error: unknown) => {
    // A worker whose machine is busy is slow, as one would be that hangs.
    if (error instanceof SkytoolsError && error.code === 'PQ019') return
    errors.push(error instanceof Error ? error.message : String(error))
  }
  process.on('warning', note)
  try {
    await install(db)
    await countRotations(db)
    await createQueue(db, queue)
    await setQueueConfig(db, queue, {
      ...{ tickerMaxCount: 1, tickerMaxLag: 0, tickerIdlePeriod: 0, rotationPeriod: '50 milliseconds', wakeup: true },
    })
    for (const consumer of [plain, outside]) await registerConsumer(db, queue, consumer)
    await registerPartitions(db, queue, keyed, 4)
    await db.query('select pgq_coop.register_subconsumer($1, $2, $3)', [queue, group, 'a'])
    const loading = load(db, stop.signal, note)
    const begun = performance.now()
    const peaks = [new Map<string, number>(), new Map<string, number>(), new Map<string, number>()] as const
    for (;;) {
      await delay(300)
      const third = Math.floor(((performance.now() - begun) / (seconds * 1000)) * 3)
      if (third > 2) break
      for (const [name, size] of await measure(db))
        peaks[third]?.set(name, Math.max(size, peaks[third]?.get(name) ?? 0))
    }
    stop.abort()
    await loading
    const [row] = await db.query<{ ticks: number }>('select max(tick_id)::int as ticks from pgq.tick')
    return {
      grown: compare(peaks[1], peaks[2]),
      rotations: await rotations(db),
      ticks: row?.ticks ?? 0,
      errors: [...new Set(errors)],
    }
  } finally {
    stop.abort()
    process.removeListener('warning', note)
    await db.close()
    await server.remove()
  }
}

function compare(before: Sizes, after: Sizes): string[] {
  return [...after]
    .filter(([name, size]) => {
      const { share, bytes } = slack(name)
      return size > (before.get(name) ?? 0) * (1 + share) + bytes
    })
    .map(([name, size]) => `${name}: from ${before.get(name) ?? 0} to ${size}`)
}
