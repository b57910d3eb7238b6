import { setTimeout as sleep } from 'node:timers/promises'
import { prepared } from '../db/db.ts'
import { type Connectable, toDb } from '../db/open.ts'
import { maintain, returnRetries } from './maintain.ts'
import { tickUntil } from './wake.ts'

export interface TickerOptions {
  /** Ends the ticker after what it is just doing. */
  readonly signal: AbortSignal
  /** Seconds between ticks. */
  readonly period?: number | undefined
  /** Seconds between rounds of `returnRetries`. */
  readonly retryPeriod?: number | undefined
  /** Seconds between rounds of `maintain`. */
  readonly maintenancePeriod?: number | undefined
  /** Listens to the producers of queues that have wake-up on; default true. It takes one connection of a pool. */
  readonly listen?: boolean | undefined
  /** Prepares its statements; default true. False behind a pooler of transactions that knows no prepared statements. */
  readonly prepare?: boolean | undefined
  /** Called after each round in which there was something to do. */
  readonly onWork?: ((work: TickerWork) => void) | undefined
  /** Called after each round of ticks, also of none. */
  readonly onRound?: (() => void) | undefined
  /** Called with what went wrong; the ticker goes on. */
  readonly onError?: ((error: unknown, what: TickerWork['what']) => void) | undefined
}

export interface TickerWork {
  readonly what: 'tick' | 'retry' | 'maintenance'
  /** Queues ticked, events returned, or operations done. */
  readonly count: number
}

/** Ticks, returns retries and does maintenance, each at its period, until the signal: with a pool a long VACUUM holds up no tick. Queues
 * that have wake-up on are ticked as soon as an event is committed. Several tickers may run at once.
 *
 * @returns when the signal was given
 * @throws nothing: errors go to `onError`, and the next round tries again. Needs pgq_admin. */
export async function runTicker(connection: Connectable, options: TickerOptions): Promise<void> {
  const { onWork, onError, onRound } = options
  const signal = AbortSignal.any([options.signal])
  const db = options.prepare === false ? toDb(connection) : prepared(toDb(connection))
  const turn = db.pooled ? <T>(work: () => Promise<T>) => work() : oneByOne()
  const every = async (what: TickerWork['what'], seconds: number, job: () => Promise<number>): Promise<void> => {
    while (!signal.aborted) {
      try {
        const count = await turn(job)
        if (count > 0) onWork?.({ what, count })
      } catch (error) {
        onError?.(error, what)
      }
      await sleep(seconds * 1000, undefined, { signal }).catch(ignoreAbort)
    }
  }
  await Promise.all([
    tickUntil(db, {
      signal,
      turn,
      period: options.period ?? 1,
      listen: options.listen ?? true,
      onTicks: (count) => {
        if (count > 0) onWork?.({ what: 'tick', count })
        onRound?.()
      },
      onError: (error) => onError?.(error, 'tick'),
    }),
    every('retry', options.retryPeriod ?? 30, () => returnRetries(db, { signal })),
    every('maintenance', options.maintenancePeriod ?? 120, async () => (await maintain(db, { signal })).length),
  ])
}

/** On a single connection one job at a time: a tick must not end up in the transaction of a hook that fails. */
function oneByOne(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve()
  return (work) => {
    const turn = last.then(work)
    last = turn.catch(() => undefined)
    return turn
  }
}

function ignoreAbort(error: unknown): void {
  if (!(error instanceof Error && error.name === 'AbortError')) throw error
}
