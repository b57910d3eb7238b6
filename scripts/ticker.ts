import type { Command } from 'commander'
import { maintain, returnRetries, runTicker, SkytoolsError, tick } from '../src/index.ts'
import { UsageError, withDb } from './connection.ts'

interface Options {
  readonly once?: boolean
  readonly period: number
  readonly retryPeriod: number
  readonly maintenancePeriod: number
}

export function addTicker(program: Command): void {
  program
    .command('ticker')
    .description('tick the queues, return retries and rotate, until SIGTERM or SIGINT')
    .option('--once', 'one round of each, then end')
    .option('--period <seconds>', 'between ticks', seconds, 1)
    .option('--retry-period <seconds>', 'between rounds of retries', seconds, 30)
    .option('--maintenance-period <seconds>', 'between rounds of maintenance', seconds, 120)
    .action(({ once, ...periods }: Options, command: Command) =>
      withDb(command, async (db, print) => {
        if (once) {
          const [ticks, retries] = [await tick(db), await returnRetries(db)]
          const operations = (await maintain(db)).length
          print({ ticks, retries, operations }, `ticks: ${ticks}, retries: ${retries}, maintenance: ${operations}`)
          return
        }
        // A first round tells at once what is wrong; later errors may pass by themselves.
        const stop = new AbortController()
        const end = () => stop.abort()
        process.once('SIGTERM', end).once('SIGINT', end)
        await tick(db)
        print({ ticker: 'started', ...periods }, `ticker started: every ${periods.period} s`)
        await runTicker(db, {
          ...periods,
          signal: stop.signal,
          onError: (error, what) => process.stderr.write(`${new Date().toISOString()} ${what}: ${describe(error)}\n`),
          onWork: ({ what, count }) => {
            if (what !== 'tick') print({ [what]: count }, `${new Date().toISOString()} ${what}: ${count}`)
          },
        })
        print({ ticker: 'stopped' }, 'ticker stopped')
      }),
    )
}

function describe(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error)
  return error instanceof SkytoolsError && error.hint ? `${message} (${error.hint})` : message
}

function seconds(text: string): number {
  const value = Number(text)
  if (!(value > 0)) throw new UsageError(`seconds are needed, not ${text}`)
  return value
}
