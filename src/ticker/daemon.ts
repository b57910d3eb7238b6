import { setTimeout as delay } from 'node:timers/promises'
import pRetry from 'p-retry'
import { value } from '../db/call.ts'
import { clusterDatabases, withDatabase, withoutPassword } from '../db/cluster.ts'
import { openDb } from '../db/open.ts'
import { type TickerConfig, type TickerDaemonOptions, tickerConfig } from './config.ts'
import { lead } from './lead.ts'
import { runTicker, type TickerWork } from './run.ts'

/** `absent`: the database has no skytools (yet); `standby`: another ticker leads. */
export type TickerState = 'connecting' | 'leading' | 'standby' | 'absent' | 'failing'

export interface TickedDatabase {
  readonly database: string
  readonly state: TickerState
  /** Seconds since the last round of ticks; undefined while another ticker leads. */
  readonly sinceRound: number | undefined
  readonly error: string | undefined
}

export interface TickerStats {
  readonly ticks: number
  readonly retries: number
  readonly maintenance: number
}

export interface TickerListeners {
  readonly onState?: ((database: string, state: TickerState) => void) | undefined
  readonly onWork?: ((database: string, work: TickerWork) => void) | undefined
  /** A database failed, or the search for databases; it is tried again. */
  readonly onError?: ((error: unknown, database: string) => void) | undefined
}

export interface Ticker {
  /** Ticks until the signal; then ends the round in hand, and its connections. */
  run(signal: AbortSignal): Promise<void>
  /** Takes another configuration; what has not changed goes on. Without one it looks for databases at once. */
  reload(options?: TickerDaemonOptions): void
  /** Whether every database is ticked, by this ticker or another one, or needs none. */
  health(): { readonly ready: boolean; readonly databases: readonly TickedDatabase[] }
  stats(): TickerStats
}

interface Followed {
  /** All that it was begun with: when that changes, it is begun anew. */
  readonly key: string
  readonly stop: AbortController
  ended: Promise<void>
  state: TickerState
  round: number | undefined
  error: string | undefined
}

/** A ticker for many databases: ticks, returns retries, rotates, does maintenance and VACUUM, each at its own period.
 *
 * Several of them for one database are safe: one leads, another takes over within seconds of its death.
 *
 * @throws TickerConfigError (PQ080)
 * @remarks Takes up to five connections to each database that it leads, one to each where it waits. Needs pgq_admin. See
 * docs/ticker.md. */
export function createTicker(options: TickerDaemonOptions & TickerListeners): Ticker {
  const { onState, onWork, onError, ...rest } = options
  let config = tickerConfig(rest)
  let look = new AbortController()
  const followed = new Map<string, Followed>()
  const counts = { ticks: 0, retries: 0, maintenance: 0 }
  const keys = { tick: 'ticks', retry: 'retries', maintenance: 'maintenance' } as const

  const follow = (database: string, url: string, signal: AbortSignal): Followed => {
    const own = config
    const stop = new AbortController()
    const entry: Followed = {
      key: keyOf(url, config),
      stop,
      ended: Promise.resolve(),
      state: 'connecting',
      round: undefined,
      error: undefined,
    }
    const enter = (state: TickerState) => {
      if (entry.state === state) return
      entry.state = state
      entry.round = undefined
      if (state !== 'failing') entry.error = undefined
      onState?.(database, state)
    }
    const fail = (error: unknown) => {
      entry.error = error instanceof Error ? error.message : String(error)
      onError?.(error, database)
    }
    const listeners = {
      onRound: () => {
        entry.round = performance.now()
        entry.error = undefined
      },
      onWork: (work: TickerWork) => {
        counts[keys[work.what]] += work.count
        onWork?.(database, work)
      },
      onError: fail,
    }
    const ended = AbortSignal.any([signal, stop.signal])
    entry.ended = patiently(
      own,
      ended,
      async () => {
        enter('connecting')
        const there = await tickDatabase(url, own, ended, enter, listeners)
        if (there) return
        enter('absent')
        await delay(own.checkPeriod * 1000, undefined, { signal: ended }).catch(() => undefined)
      },
      (error) => {
        enter('failing')
        fail(error)
      },
    )
    return entry
  }

  const run = async (signal: AbortSignal): Promise<void> => {
    try {
      while (!signal.aborted) {
        look = new AbortController()
        try {
          const wanted = await databasesOf(config)
          for (const [name, entry] of followed) {
            if (keyOf(wanted.get(name), config) === entry.key) continue
            entry.stop.abort()
            await entry.ended
            followed.delete(name)
          }
          for (const [name, url] of wanted) if (!followed.has(name)) followed.set(name, follow(name, url, signal))
        } catch (error) {
          onError?.(error, config.cluster === undefined ? '' : withoutPassword(config.cluster))
        }
        const wake = AbortSignal.any([signal, look.signal])
        await delay(config.checkPeriod * 1000, undefined, { signal: wake }).catch(() => undefined)
      }
    } finally {
      await Promise.all([...followed.values()].map(({ ended }) => ended))
      followed.clear()
    }
  }
  const reload = (changed?: TickerDaemonOptions): void => {
    if (changed) config = tickerConfig(changed)
    look.abort()
  }
  const health = () => {
    const databases = [...followed].map(([database, { state, round, error }]) => ({
      database,
      state,
      sinceRound: round === undefined ? undefined : (performance.now() - round) / 1000,
      error,
    }))
    const late = Math.max(10, 5 * config.period)
    const ready = databases.every(
      ({ state, sinceRound }) =>
        state === 'standby' || state === 'absent' || (state === 'leading' && (sinceRound ?? 0) < late),
    )
    return { ready: ready && databases.length > 0, databases }
  }
  return { run, reload, health, stats: () => ({ ...counts }) }
}

/** What a change of the configuration makes different for one database. */
function keyOf(url: string | undefined, { databases: _, cluster: __, only: ___, ...periods }: TickerConfig): string {
  return JSON.stringify([url, periods])
}

/** By name, as it stands in the log. */
async function databasesOf(config: TickerConfig): Promise<Map<string, string>> {
  const { databases, cluster, only } = config
  if (databases) return new Map(databases.map((url) => [withoutPassword(url), url]))
  if (cluster === undefined) return new Map()
  const names = only ?? (await clusterDatabases(cluster))
  return new Map(names.map((name) => [name, withDatabase(cluster, name)]))
}

/** Again and again until the signal, with growing pauses after failures. */
async function patiently(
  { retry }: TickerConfig,
  signal: AbortSignal,
  work: () => Promise<void>,
  onFailure: (error: unknown) => void,
): Promise<void> {
  while (!signal.aborted) {
    await pRetry(
      () =>
        work().catch((error: unknown) => {
          throw error instanceof TypeError || !(error instanceof Error)
            ? new Error(String(error), { cause: error })
            : error
        }),
      {
        retries: Number.POSITIVE_INFINITY,
        factor: 2,
        randomize: true,
        minTimeout: retry.min * 1000,
        maxTimeout: retry.max * 1000,
        signal,
        // At its end p-retry takes what ended well for a failure.
        onFailedAttempt: ({ error }) => {
          if (!signal.aborted) onFailure(error)
        },
      },
    ).catch((error: unknown) => {
      if (!signal.aborted) throw error
    })
  }
}

/** Ticks one database until the signal; returns false when it has no skytools. */
async function tickDatabase(
  url: string,
  config: TickerConfig,
  signal: AbortSignal,
  enter: (state: TickerState) => void,
  listeners: {
    readonly onRound: () => void
    readonly onWork: (work: TickerWork) => void
    readonly onError: (error: unknown) => void
  },
): Promise<boolean> {
  const holder = await openDb(url, { max: 1, idleSeconds: 0 })
  try {
    const there = await value<boolean>(holder, `select to_regprocedure('pgq.ticker()') is not null as value`)
    if (!there) return false
    const { period, retryPeriod, maintenancePeriod, prepare } = config
    // Upstream's schema has no wake-up.
    const ours = await value<boolean>(holder, `select to_regprocedure('pgq.tick_new()') is not null as value`)
    const settings = { period, retryPeriod, maintenancePeriod, prepare, listen: config.listen && ours }
    await lead(holder, { signal, period, takeover: config.takeover, onState: enter }, async (leading) => {
      const db = await openDb(url, { max: 4 })
      try {
        await runTicker(db, { ...settings, ...listeners, signal: leading })
      } finally {
        await db.close()
      }
    })
    return true
  } finally {
    await holder.close()
  }
}
