import type { Command } from 'commander'
import {
  consumerInfo,
  exactly,
  pauseConsumer,
  refuseProtected,
  registerConsumer,
  resumeConsumer,
  SkytoolsError,
  seekConsumer,
  unregisterConsumer,
  wipe,
} from '../src/index.ts'
import { confirm, UsageError, withDb } from './connection.ts'
import { consumerTable } from './status.ts'
import { describeWiped } from './wipe.ts'

export function addConsumer(program: Command): void {
  const consumer = program.command('consumer').description('register, unregister, list, pause and move consumers')
  consumer
    .command('register')
    .description('subscribe a consumer to a queue: it gets what is committed from now on')
    .argument('<queue>')
    .argument('<consumer>', 'its name: any text')
    .option('--at <tick>', 'begin after this tick instead; moves a consumer that is registered', tickId)
    .action((queue: string, name: string, { at }: { at?: bigint }, command: Command) =>
      withDb(command, async (db, print) => {
        const registered = await registerConsumer(db, queue, name, { at })
        const done = at === undefined ? 'there already' : `moved to tick ${at}`
        print({ queue, consumer: name, registered }, `${registered ? 'registered' : done}: ${name} of ${queue}`)
      }),
    )
  consumer
    .command('unregister')
    .description('end a subscription; its open batch and its retries are given up')
    .argument('<queue>')
    .argument('<consumer>')
    .option('--force <database>', 'the name of the database, where it is protected')
    .option('--dry-run', 'print what would go')
    .action(async (queue: string, name: string, options: { force?: string; dryRun?: boolean }, command: Command) => {
      const { force, dryRun } = options
      if (!dryRun) await confirm(command, `End the subscription of ${name} to ${queue}?`)
      await withDb(command, async (db, print) => {
        const all = await wipe(db, { pattern: exactly(queue), dryRun: true })
        const going = all.filter(
          (entry) =>
            (entry.kind === 'consumer' && entry.name === name) ||
            (entry.kind === 'subconsumer' && (entry.name === name || entry.name.startsWith(`${name}.`))),
        )
        if (going.length === 0) {
          const hint = 'consumers there are: skytools consumer list'
          throw new SkytoolsError('PQ002', `${name} is not subscribed to ${queue}`, hint)
        }
        if (dryRun) {
          print(going, describeWiped(going))
          return
        }
        await refuseProtected(db, 'consumer unregister', force)
        const ended = await unregisterConsumer(db, queue, name)
        print({ queue, consumer: name, ended }, `unregistered: ${name} of ${queue}`)
      })
    })
  consumer
    .command('list')
    .description('list the consumers')
    .argument('[queue]', 'those of this queue alone')
    .action((queue: string | undefined, _options: unknown, command: Command) =>
      withDb(command, async (db, print) => {
        const consumers = await consumerInfo(db, queue)
        print(consumers, consumers.length > 0 ? consumerTable(consumers) : 'no consumers')
      }),
    )
  for (const [verb, change, description] of [
    ['pause', pauseConsumer, 'give a consumer nothing until it is resumed; its queue keeps all that it has not seen'],
    ['resume', resumeConsumer, 'let a paused consumer go on where it was'],
  ] as const) {
    consumer
      .command(verb)
      .description(description)
      .argument('<queue>')
      .argument('<consumer>')
      .action((queue: string, name: string, _options: unknown, command: Command) =>
        withDb(command, async (db, print) => {
          await change(db, queue, name)
          print({ queue, consumer: name, paused: verb === 'pause' }, `${verb}d: ${name} of ${queue}`)
        }),
      )
  }
  consumer
    .command('seek')
    .description('move a consumer back or forward, as far as the events are still there; drops its open batch')
    .argument('<queue>')
    .argument('<consumer>')
    .argument('<to>', 'the id of a tick, or a time', tickOrTime)
    .action((queue: string, name: string, to: bigint | Date, _options: unknown, command: Command) =>
      withDb(command, async (db, print) => {
        const tick = await seekConsumer(db, queue, name, to)
        print({ queue, consumer: name, tick }, `moved to tick ${tick}: ${name} of ${queue}`)
      }),
    )
}

function tickId(text: string): bigint {
  if (!/^\d+$/.test(text)) throw new UsageError(`the id of a tick is needed, not ${text}`)
  return BigInt(text)
}

export function wholeNumber(text: string): bigint {
  if (!/^\d+$/.test(text)) throw new UsageError(`a whole number is needed, not ${text}`)
  return BigInt(text)
}

export function timestamp(text: string): Date {
  const time = new Date(text)
  if (Number.isNaN(time.getTime())) throw new UsageError(`a time is needed, such as 2030-01-31T12:00:00Z, not ${text}`)
  return time
}

function tickOrTime(text: string): bigint | Date {
  return /^\d+$/.test(text) ? BigInt(text) : timestamp(text)
}
