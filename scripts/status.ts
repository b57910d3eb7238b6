import type { Command } from 'commander'
import { type ConsumerInfo, type QueueInfo, type Status, status } from '../src/index.ts'
import { ago } from '../src/status/ago.ts'
import { table, withDb } from './connection.ts'

export function addStatus(program: Command): void {
  program
    .command('status')
    .description('show queues and consumers, what is wrong with them and what to do; exit code 1 when something is')
    .action((_options: unknown, command: Command) =>
      withDb(command, async (db, print) => {
        const found = await status(db)
        print(found, describeStatus(found))
        if (found.findings.length > 0) process.exitCode = 1
      }),
    )
}

/** Both tables, and below them what is wrong. */
export function describeStatus({ queues, consumers, retries, findings }: Status): string {
  return [
    queues.length > 0 ? queueTable(queues, { consumers, retries }) : 'no queues yet: skytools queue create <queue>',
    ...(consumers.length > 0 ? [consumerTable(consumers)] : []),
    findings.length > 0
      ? findings.map(({ subject, problem, remedy }) => `${subject}: ${problem}\n    ${remedy}`).join('\n')
      : 'nothing is wrong',
  ].join('\n')
}

const time = (seconds: number | null) => (seconds === null ? '' : ago(seconds))
const number = (value: number | bigint | null) => (value === null ? '' : value.toLocaleString('en'))

export function queueTable(
  queues: readonly QueueInfo[],
  { consumers, retries }: { consumers?: readonly ConsumerInfo[]; retries?: Status['retries'] },
): string {
  return table(
    [
      'queue',
      'consumers',
      'last tick',
      'new events',
      'events/s',
      'to retry',
      'last rotation',
      'rotates every',
      'notes',
    ],
    queues.map((info) => [
      info.queue,
      consumers ? consumers.filter(({ queue }) => queue === info.queue).length : '',
      info.tickerLag === null ? 'never' : `${ago(info.tickerLag)} ago`,
      number(info.newEvents),
      info.eventsPerSecond === null ? '' : number(Number(info.eventsPerSecond.toPrecision(3))),
      retries ? number(retries.find(({ queue }) => queue === info.queue)?.waiting ?? 0) : '',
      `${ago(info.rotationAge)} ago`,
      time(info.config.rotationPeriod),
      notes(info).join(', '),
    ]),
  )
}

function notes({ config, rotationComplete }: QueueInfo): string[] {
  return [
    ...(config.tickerPaused ? ['paused'] : []),
    ...(config.externalTicker ? ['external ticker'] : []),
    ...(config.disableInsert ? ['takes no events'] : []),
    ...(rotationComplete ? [] : ['rotating']),
  ]
}

export function consumerTable(consumers: readonly ConsumerInfo[]): string {
  return table(
    ['consumer', 'queue', 'lag', 'last seen', 'events waiting', 'open batch', 'at tick'],
    consumers.map((info) => [
      info.consumer,
      info.queue,
      time(info.lag),
      `${ago(info.lastSeen)} ago`,
      number(info.pendingEvents),
      info.batch ?? '',
      info.lastTick ?? '',
    ]),
  )
}
