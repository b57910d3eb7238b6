import { table } from '../connection.ts'
import type { Figures } from './run.ts'
import type { Scenario } from './scenario.ts'

const count = (value: number) => value.toLocaleString('en')
const rate = (events: number, seconds: number) => count(Number((events / Math.max(seconds, 0.001)).toPrecision(3)))

export function describeFigures(figures: Figures, { nouns }: Scenario): string {
  const { failed, rotated, notes, consumers } = figures
  const rows = [
    ['in', count(figures.in), `${count(figures.transactions)} transactions`, '', rate(figures.in, figures.seconds)],
    ...consumers.map(({ name, events, batches, retries, seconds }) => [
      `out: ${name}`,
      count(events),
      `${count(batches)} batches`,
      count(retries),
      rate(events, seconds),
    ]),
  ]
  return [
    table(['', 'events', 'as', 'retries', 'events/s'], rows),
    `${count(figures.ticks)} ticks; the ${nouns[1]} went in and came out at the same time`,
    ...(failed
      ? [
          `retried: event ${failed.id} failed the first time, on purpose, and came back ${failed.afterSeconds?.toFixed(1)} s later`,
        ]
      : []),
    ...(rotated
      ? [`rotated: new events go to table ${rotated.to} of the queue now, no longer to ${rotated.from}`]
      : []),
    ...notes,
  ].join('\n')
}
