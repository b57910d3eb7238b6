import { text as readAll } from 'node:stream/consumers'
import type { Command } from 'commander'
import {
  consumerInfo,
  createQueue,
  type Db,
  dropQueue,
  exactly,
  insertEvents,
  type NewEvent,
  type QueueConfig,
  type QueueInfo,
  queueInfo,
  refuseProtected,
  SkytoolsError,
  setQueueConfig,
  wipe,
} from '../src/index.ts'
import { confirm, table, UsageError, withDb } from './connection.ts'
import { queueTable } from './status.ts'
import { describeWiped } from './wipe.ts'

export function addQueue(program: Command): void {
  const queue = program.command('queue').description('create, drop, list and configure queues, and put events in')
  queue
    .command('create')
    .description('create a queue')
    .argument('<queue>', 'its name: any text')
    .argument('[settings...]', 'as for `queue config`')
    .action((name: string, settings: string[], _options: unknown, command: Command) => {
      const config = parseSettings(settings)
      return withDb(command, async (db, print) => {
        const created = await createQueue(db, name)
        await setQueueConfig(db, name, config)
        print({ queue: name, created }, created ? `created: ${name}` : `there already: ${name}`)
      })
    })
  queue
    .command('drop')
    .description('drop a queue with all its events')
    .argument('<queue>')
    .option(
      '--force [database]',
      'end the subscriptions of its consumers too; with the name of the database where it is protected',
    )
    .option('--dry-run', 'print what would go')
    .action(async (name: string, { force, dryRun }: { force?: true | string; dryRun?: boolean }, command: Command) => {
      if (!dryRun) await confirm(command, `Drop queue ${name} and all its events?`)
      await withDb(command, async (db, print) => {
        await oneQueue(db, name)
        if (dryRun) {
          const found = await wipe(db, { pattern: exactly(name), dryRun })
          print(found, describeWiped(found))
          return
        }
        await refuseProtected(db, 'queue drop', typeof force === 'string' ? force : undefined)
        await dropQueue(db, name, { force: force !== undefined })
        print({ queue: name, dropped: true }, `dropped: ${name}`)
      })
    })
  queue
    .command('list')
    .description('list the queues')
    .action((_options: unknown, command: Command) =>
      withDb(command, async (db, print) => {
        const queues = await queueInfo(db)
        print(queues, queues.length > 0 ? queueTable(queues, { consumers: await consumerInfo(db) }) : 'no queues')
      }),
    )
  queue
    .command('config')
    .description('show the settings of a queue, or change some')
    .argument('<queue>')
    .argument('[settings...]', `name=value: ${Object.keys(settingsByName).join(', ')}`)
    .action((name: string, settings: string[], _options: unknown, command: Command) => {
      const config = parseSettings(settings)
      return withDb(command, async (db, print) => {
        await setQueueConfig(db, name, config)
        const info = await oneQueue(db, name)
        print(info.config, describeConfig(info))
      })
    })
  for (const [verb, tickerPaused, description] of [
    ['pause', true, 'stop the ticks of a queue: events go on coming in, consumers get none of them'],
    ['resume', false, 'let a paused queue tick again'],
  ] as const) {
    queue
      .command(verb)
      .description(description)
      .argument('<queue>')
      .action((name: string, _options: unknown, command: Command) =>
        withDb(command, async (db, print) => {
          await setQueueConfig(db, name, { tickerPaused })
          print({ queue: name, tickerPaused }, `${verb}d: ${name}`)
        }),
      )
  }
  queue
    .command('insert')
    .description('put an event into a queue, or one for each line of standard input')
    .argument('<queue>')
    .argument('<type>', 'what kind of event: any text')
    .argument('[data]', 'its payload: any text; - for one event a line of standard input')
    .option('--extra1 <text>', 'a further field; so are --extra2, --extra3 and --extra4')
    .option('--extra2 <text>')
    .option('--extra3 <text>')
    .option('--extra4 <text>')
    .action((name: string, type: string, data: string | undefined, extras: Partial<NewEvent>, command: Command) =>
      withDb(command, async (db, print) => {
        const payloads = data === '-' ? lines(await readAll(process.stdin)) : [data ?? null]
        const { extra1 = null, extra2 = null, extra3 = null, extra4 = null } = extras
        const events = payloads.map((payload) => ({ type, data: payload, extra1, extra2, extra3, extra4 }))
        const ids = await insertEvents(db, name, events)
        print({ queue: name, ids }, describeInserted(name, ids))
      }),
    )
}

async function oneQueue(db: Db, name: string): Promise<QueueInfo> {
  const [info] = await queueInfo(db, name)
  if (!info) throw new SkytoolsError('PQ001', `No such event queue: ${name}`, 'queues there are: skytools queue list')
  return info
}

type Setting = { readonly key: keyof QueueConfig; readonly read: (text: string) => QueueConfig[keyof QueueConfig] }

const whole = (text: string) => {
  if (!/^\d+$/.test(text)) throw new UsageError(`a whole number is needed, not ${text}`)
  return Number(text)
}
const yesNo = (text: string) => {
  if (/^(true|on|yes)$/.test(text)) return true
  if (/^(false|off|no)$/.test(text)) return false
  throw new UsageError(`true or false is needed, not ${text}`)
}
const interval = (text: string) => (/^\d+(\.\d+)?$/.test(text) ? Number(text) : text)

/** By their names in pgq.queue and pgq.queue_option. */
const settingsByName: Readonly<Record<string, Setting>> = {
  ticker_max_count: { key: 'tickerMaxCount', read: whole },
  ticker_max_lag: { key: 'tickerMaxLag', read: interval },
  ticker_idle_period: { key: 'tickerIdlePeriod', read: interval },
  ticker_paused: { key: 'tickerPaused', read: yesNo },
  rotation_period: { key: 'rotationPeriod', read: interval },
  external_ticker: { key: 'externalTicker', read: yesNo },
  disable_insert: { key: 'disableInsert', read: yesNo },
  wakeup: { key: 'wakeup', read: yesNo },
  per_tx_limit: { key: 'perTransactionLimit', read: (text) => (text === 'none' ? null : whole(text)) },
}

function parseSettings(settings: readonly string[]): QueueConfig {
  const entries = settings.map((text) => {
    const [, name = '', value = ''] = /^([^=]+)=(.*)$/s.exec(text) ?? []
    const setting = settingsByName[name]
    if (!setting) {
      throw new UsageError(`not a setting: ${text} (name=value, with ${Object.keys(settingsByName).join(', ')})`)
    }
    return [setting.key, setting.read(value)]
  })
  return Object.fromEntries(entries) as QueueConfig
}

function describeConfig({ queue, config }: QueueInfo): string {
  const durations: readonly (keyof QueueConfig)[] = ['tickerMaxLag', 'tickerIdlePeriod', 'rotationPeriod']
  return table(
    [queue, ''],
    Object.entries(settingsByName).map(([name, { key }]) => {
      const value = config[key]
      if (value === null) return [name, 'none']
      return [name, durations.includes(key) ? `${value} s` : value]
    }),
  )
}

function describeInserted(queue: string, ids: readonly bigint[]): string {
  if (ids.length === 0) return `nothing to put into ${queue}`
  return ids.length === 1
    ? `event ${ids[0]} in ${queue}`
    : `${ids.length} events in ${queue}: ${ids[0]} to ${ids.at(-1)}`
}

function lines(text: string): string[] {
  return text.split(/\r?\n/).filter((line) => line !== '')
}
