import type { Command } from 'commander'
import { deadLetters, purgeDeadLetters, replayDeadLetters } from '../src/index.ts'
import { confirm, table, withDb } from './connection.ts'
import { timestamp, wholeNumber } from './consumer.ts'

interface Selection {
  readonly consumer?: string
  readonly event?: bigint
  readonly before?: Date
  readonly limit?: bigint
}

export function addDlq(program: Command): void {
  const dlq = program.command('dlq').description('dead letters: events that a consumer gave up')
  dlq
    .command('list')
    .description('list dead letters, with their errors')
    .argument('[queue]', 'those of this queue alone')
    .option('--consumer <name>', 'those of one consumer')
    .option('--event <id>', 'one event', wholeNumber)
    .option('--before <time>', 'those that were given up before this time', timestamp)
    .option('--limit <n>', 'at most so many', wholeNumber)
    .action((queue: string | undefined, { limit, ...filter }: Selection, command: Command) =>
      withDb(command, async (db, print) => {
        const found = await deadLetters(db, queue, { ...filter, limit: limit === undefined ? 1000 : Number(limit) })
        const lines = found.map(({ queue, consumer, id, type, tries, time, error }) => [
          queue,
          consumer,
          id,
          type,
          tries,
          time.toISOString(),
          error,
        ])
        const head = ['queue', 'consumer', 'event', 'type', 'tries', 'since', 'error']
        print(found, found.length > 0 ? table(head, lines) : 'no dead letters')
      }),
    )
  dlq
    .command('replay')
    .description('have dead letters delivered again, to their consumer alone, as if never tried')
    .argument('<queue>')
    .argument('<consumer>')
    .option('--event <id>', 'one event; else all', wholeNumber)
    .action((queue: string, consumer: string, { event }: Selection, command: Command) =>
      withDb(command, async (db, print) => {
        const replayed = await replayDeadLetters(db, queue, consumer, event)
        print({ queue, consumer, replayed }, `replayed: ${replayed} of ${consumer} of ${queue}`)
      }),
    )
  dlq
    .command('purge')
    .description('delete dead letters for good')
    .argument('<queue>')
    .option('--consumer <name>', 'those of one consumer; else of all')
    .option('--event <id>', 'one event', wholeNumber)
    .option('--before <time>', 'those that were given up before this time', timestamp)
    .action(async (queue: string, filter: Selection, command: Command) => {
      await confirm(command, `Delete dead letters of queue ${queue} for good?`)
      await withDb(command, async (db, print) => {
        const purged = await purgeDeadLetters(db, queue, filter)
        print({ queue, purged }, `purged: ${purged} of ${queue}`)
      })
    })
}
