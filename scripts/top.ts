import { setTimeout as delay } from 'node:timers/promises'
import type { Command } from 'commander'
import { createLogUpdate } from 'log-update'
import { type Db, type Status, status } from '../src/index.ts'
import { ago } from '../src/status/ago.ts'
import { size } from '../src/status/bytes.ts'
import { consumerKey, type Rates, rates } from '../src/status/top.ts'
import { positiveSeconds, stopSignal, table, withDb } from './connection.ts'

interface Options {
  readonly interval: number
  readonly count?: number
}

export function addTop(program: Command): void {
  program
    .command('top')
    .description('watch queues and consumers: rates, lag, rotation, who blocks; until Ctrl-C')
    .option('--interval <seconds>', 'between two looks', positiveSeconds, 2)
    .option('--count <looks>', 'end after so many', Number)
    .action(({ interval, count = Number.POSITIVE_INFINITY }: Options, command: Command) =>
      withDb(command, async (db, print) => {
        const screen =
          process.stdout.isTTY && !command.optsWithGlobals().json ? createLogUpdate(process.stdout) : undefined
        const signal = stopSignal()
        let earlier: { found: Status; at: number } | undefined
        for (let look = 1; !signal.aborted; look += 1) {
          const { found, at } = await lookAt(db)
          const changed = earlier && rates(earlier.found, found, (at - earlier.at) / 1000)
          const text = describeTop(found, changed)
          if (screen) screen(clipped(`${new Date(at).toLocaleTimeString('en-GB')}  every ${interval} s\n${text}`))
          else print({ ...found, rates: changed && plainRates(changed) }, text)
          if (look >= count) break
          earlier = { found, at }
          await delay(interval * 1000, undefined, { signal }).catch(() => undefined)
        }
        screen?.done()
      }),
    )
}

async function lookAt(db: Db): Promise<{ found: Status; at: number }> {
  const found = await status(db)
  return { found, at: Date.now() }
}

const plainRates = ({ in: queues, out: consumers }: Rates) => ({
  queues: [...queues].map(([queue, eventsPerSecond]) => ({ queue, eventsPerSecond })),
  consumers: [...consumers].map(([key, eventsPerSecond]) => {
    const [queue, consumer] = JSON.parse(key) as [string, string]
    return { queue, consumer, eventsPerSecond }
  }),
})

const rate = (value: number | undefined) => (value === undefined ? '' : Math.round(value).toLocaleString('en'))

/** Both tables and the findings. Without rates, those columns are empty: the first look has nothing to compare with. */
export function describeTop(found: Status, changed?: Rates): string {
  const { queues, consumers, retries, activity, findings } = found
  const bytes = new Map(activity.queues.map((entry) => [entry.queue, entry.bytes]))
  const waiting = new Map(retries?.map((entry) => [entry.queue, entry.waiting]))
  return [
    table(
      ['queue', 'events/s', 'since tick', 'last tick', 'size', 'to retry', 'rotation'],
      queues.map(({ queue, newEvents, tickerLag, rotationAge, rotationComplete, config }) => [
        queue,
        rate(changed?.in.get(queue)),
        newEvents.toLocaleString('en'),
        tickerLag === null ? 'never' : `${ago(tickerLag)} ago`,
        size(bytes.get(queue) ?? 0n),
        retries ? (waiting.get(queue) ?? 0n).toLocaleString('en') : '',
        rotationComplete
          ? rotationAge > config.rotationPeriod
            ? `due since ${ago(rotationAge - config.rotationPeriod)}`
            : `in ${ago(config.rotationPeriod - rotationAge)}`
          : 'under way',
      ]),
    ),
    ...(consumers.length === 0
      ? []
      : [
          table(
            ['consumer', 'queue', 'events/s', 'waiting', 'lag', 'last seen', 'open batch'],
            consumers.map((entry) => [
              entry.consumer,
              entry.queue,
              rate(changed?.out.get(consumerKey(entry))),
              entry.pendingEvents?.toLocaleString('en') ?? '',
              entry.lag === null ? '' : ago(entry.lag),
              `${ago(entry.lastSeen)} ago`,
              entry.batch ?? '',
            ]),
          ),
        ]),
    ...findings.map(({ subject, problem, remedy }) => `${subject}: ${problem}\n    ${remedy}`),
  ].join('\n')
}

/** What is higher than the terminal would scroll instead of being drawn over. */
function clipped(text: string): string {
  const lines = text.split('\n')
  const rows = (process.stdout.rows ?? 24) - 1
  if (lines.length <= rows) return text
  return [...lines.slice(0, rows - 1), `… ${lines.length - rows + 1} more lines`].join('\n')
}
