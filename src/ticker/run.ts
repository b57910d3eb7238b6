import { setTimeout as sleep } from 'node:timers/promises'
import type { Connectable } from '../db/open.ts'
import { maintain, returnRetries } from './maintain.ts'
import { tick } from './tick.ts'

export interface TickerOptions {
  /** Ends the ticker after what it is just doing. */
  readonly signal: AbortSignal
  /** Seconds between ticks. */
  readonly period?: number | undefined
  /** Seconds between rounds of `returnRetries`. */
  readonly retryPeriod?: number | undefined
  /** Seconds between rounds of `maintain`. */
  readonly maintenancePeriod?: number | undefined
  /** Called after each round in which there was something to do. */
  readonly onWork?: ((work: TickerWork) => void) | undefined
  /** Called with what went wrong; the ticker goes on. */
  readonly onError?: ((error: unknown, what: TickerWork['what']) => void) | undefined
}

export interface TickerWork {
  readonly what: 'tick' | 'retry' | 'maintenance'
  /** Queues ticked, events returned, or operations done. */
  readonly count: number
}

/** Ticks, returns retries and does maintenance, each at its period, until the signal. Several tickers may run at once.
 *
 * @returns when the signal was given
 * @throws nothing: errors go to `onError`, and the next round tries again. Needs pgq_admin. */
export async function runTicker(db: Connectable, options: TickerOptions): Promise<void> {
  const { signal, onWork, onError } = options
  const jobs = [
    { what: 'tick', period: options.period ?? 1, run: () => tick(db), due: 0 },
    { what: 'retry', period: options.retryPeriod ?? 30, run: () => returnRetries(db, { signal }), due: 0 },
    {
      what: 'maintenance',
      period: options.maintenancePeriod ?? 120,
      run: async () => (await maintain(db, { signal })).length,
      due: 0,
    },
  ] satisfies { what: TickerWork['what']; [key: string]: unknown }[]
  while (!signal.aborted) {
    for (const job of jobs) {
      if (signal.aborted || job.due > performance.now()) continue
      job.due = performance.now() + job.period * 1000
      try {
        const count = await job.run()
        if (count > 0) onWork?.({ what: job.what, count })
      } catch (error) {
        onError?.(error, job.what)
      }
    }
    const next = Math.min(...jobs.map(({ due }) => due)) - performance.now()
    if (next > 0) await sleep(next, undefined, { signal }).catch(ignoreAbort)
  }
}

function ignoreAbort(error: unknown): void {
  if (!(error instanceof Error && error.name === 'AbortError')) throw error
}
