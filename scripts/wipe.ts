import type { Command } from 'commander'
import { type Wiped, wipe } from '../src/index.ts'
import { confirm, positiveSeconds, table, withDb } from './connection.ts'

interface Options {
  readonly force?: string
  readonly dryRun?: boolean
  readonly lockTimeout: number
}

export function addWipe(program: Command): void {
  program
    .command('wipe')
    .description('drop queues with their events, captures, consumers and subconsumers, all or nothing')
    .argument('[pattern]', 'queues whose names are like it (%, _); all when left out', '%')
    .option('--force <database>', 'the name of the database, where it is protected')
    .option('--dry-run', 'print what would go')
    .option(
      '--lock-timeout <seconds>',
      'how long to wait for transactions that are using the queues',
      positiveSeconds,
      5,
    )
    .action(async (pattern: string, { force, dryRun, lockTimeout }: Options, command: Command) => {
      if (!dryRun) await confirm(command, pattern === '%' ? 'Drop all queues?' : `Drop all queues like ${pattern}?`)
      await withDb(command, async (db, print) => {
        const found = await wipe(db, { pattern, database: force, dryRun, lockTimeout })
        print(found, describeWiped(found))
      })
    })
}

/** The same for what went and what would go. */
export function describeWiped(found: readonly Wiped[]): string {
  if (found.length === 0) return 'nothing to drop'
  return table(
    ['what', 'queue', 'name'],
    found.map(({ kind, queue, name }) => [kind, queue, name]),
  )
}
