import type { Command } from 'commander'
import {
  type CapturedTable,
  type CaptureOptions,
  capture,
  capturedTables,
  refreshCapture,
  uncapture,
} from '../src/index.ts'
import { table, withDb } from './connection.ts'

interface AddFlags extends Omit<CaptureOptions, 'columns' | 'ignore' | 'key' | 'operations'> {
  readonly columns?: string[]
  readonly ignore?: string[]
  readonly key?: string[]
  readonly operations?: string[]
}

const list = (text: string) => text.split(',').map((name) => name.trim())

export function addCapture(program: Command): void {
  const family = program.command('capture').description('turn the changes of tables into events')
  family
    .command('add')
    .description('capture the changes of a table into a queue')
    .argument('<table>', 'its name as in SQL')
    .argument('<queue>')
    .option('--format <format>', 'json, urlencode or sql')
    .option('--columns <names>', 'the columns to take, with commas between', list)
    .option('--ignore <names>', 'the columns to leave out', list)
    .option('--key <names>', 'the columns that identify a row', list)
    .option('--operations <names>', 'of insert, update, delete, truncate', list)
    .option('--old-row', 'put the old row of an update into extra2')
    .option('--event-type <text>', 'the type of the events; {op} and {table} are replaced')
    .option('--when <condition>', 'SQL over the columns')
    .option('--extra1 <expression>', 'SQL over the columns; so are --extra2, --extra3 and --extra4')
    .option('--extra2 <expression>')
    .option('--extra3 <expression>')
    .option('--extra4 <expression>')
    .option('--level <level>', 'auto, row or statement')
    .action((name: string, queue: string, flags: AddFlags, command: Command) =>
      withDb(command, async (db, print) => {
        const id = await capture(db, name, queue, flags as CaptureOptions)
        print({ capture: id, table: name, queue }, `captured: ${name} into ${queue}`)
      }),
    )
  family
    .command('remove')
    .description('end the capture of a table into a queue')
    .argument('<table>', 'its name as in SQL')
    .argument('<queue>')
    .action((name: string, queue: string, _options: unknown, command: Command) =>
      withDb(command, async (db, print) => {
        const removed = await uncapture(db, name, queue)
        print(
          { table: name, queue, removed },
          `${removed ? 'no longer captured' : 'was not captured'}: ${name} into ${queue}`,
        )
      }),
    )
  family
    .command('list')
    .description('list the captured tables')
    .action((_options: unknown, command: Command) =>
      withDb(command, async (db, print) => {
        const found = await capturedTables(db)
        print(found, found.length > 0 ? describeCaptures(found) : 'no captured tables')
      }),
    )
  family
    .command('refresh')
    .description('generate the code of captures anew whose tables have changed')
    .action((_options: unknown, command: Command) =>
      withDb(command, async (db, print) => {
        const tables = await refreshCapture(db)
        print({ refreshed: tables }, tables.length > 0 ? `refreshed: ${tables.join(', ')}` : 'nothing to do')
      }),
    )
}

function describeCaptures(captures: readonly CapturedTable[]): string {
  return table(
    ['table', 'queue', 'format', 'operations', 'by', ''],
    captures.map(({ table: name, queue, format, operations, level, stale }) => [
      name,
      queue,
      format,
      operations.join(', '),
      level,
      stale ? 'stale: skytools capture refresh' : '',
    ]),
  )
}
