import { SingleBar } from 'cli-progress'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { type BatchCounts, batchDelete, batchUpdate, batchUpsert, type Db } from '../src/index.ts'
import { withDb } from './connection.ts'
import { type InputRecord, openSource } from './records.ts'

type Kind = 'update' | 'upsert' | 'delete'

interface BatchFlags {
  readonly table: string
  readonly key?: string[]
  readonly columns?: string[]
  readonly set?: Readonly<Record<string, string>>
  readonly fold?: 'error' | 'last' | 'first'
  readonly onMissing?: 'ignore' | 'error' | 'insert'
  readonly concurrency?: 'on conflict' | 'lock' | 'retry'
  readonly null: string
  readonly dryRun?: boolean
}

const run: Readonly<Record<Kind, typeof batchUpdate>> = {
  update: batchUpdate,
  upsert: batchUpsert,
  delete: batchDelete as typeof batchUpdate,
}

export function addBatch(program: Command): void {
  const batch = program.command('batch').description('change many rows in one statement, from CSV or NDJSON')
  add(batch, 'update', 'update the rows of a table that the input names by key')
    .option('--columns <names>', 'columns to set, with commas between; default: all of the input beside the key', list)
    .option(
      '--set <column=sql>',
      'an expression over t (the row there is) and s (the input); can be given again',
      setting,
    )
    .addOption(missing(['ignore', 'error', 'insert']))
  add(batch, 'upsert', 'update the rows that there are and insert the others')
    .option('--columns <names>', 'columns to set, with commas between; default: all of the input beside the key', list)
    .option(
      '--set <column=sql>',
      'an expression over t (the row there is) and s (the input); can be given again',
      setting,
    )
  add(batch, 'delete', 'delete the rows that the input names by key').addOption(missing(['ignore', 'error']))
}

function add(batch: Command, kind: Kind, description: string): Command {
  return batch
    .command(kind)
    .description(description)
    .argument('[file]', 'CSV with a header line, or NDJSON; - is standard input', '-')
    .requiredOption('--table <name>', 'the table: name, or schema.name')
    .option('--key <names>', 'columns that identify a row, with commas between; default: the primary key', list)
    .addOption(new Option('--fold <which>', 'of rows with one key').choices(['error', 'last', 'first']))
    .addOption(new Option('--concurrency <way>', 'beside other writers').choices(['on conflict', 'lock', 'retry']))
    .option('--null <text>', 'what stands for null in CSV', '')
    .option('--dry-run', 'tell what would be done, and change nothing')
    .action((file: string, flags: BatchFlags, command: Command) =>
      withDb(command, async (db, print) => {
        const started = performance.now()
        const { rows, ...counts } = await load(db, kind, file, flags)
        const seconds = (performance.now() - started) / 1000
        const done = Object.entries(counts).map(([name, count]) => `${count.toLocaleString('en')} ${name}`)
        const rate = `${Math.round(rows / seconds).toLocaleString('en')} rows/s`
        print(
          { table: flags.table, rows, ...counts, seconds, dryRun: flags.dryRun ?? false },
          `${flags.table}${flags.dryRun ? ', nothing changed (--dry-run)' : ''}: ${rows.toLocaleString('en')} rows: ${done.join(', ')}; ${rate}`,
        )
      }),
    )
}

const list = (value: string) => value.split(',').map((name) => name.trim())

function missing(choices: readonly string[]): Option {
  return new Option('--on-missing <what>', 'to do with rows that the table lacks').choices(choices)
}

function setting(value: string, before: Readonly<Record<string, string>> = {}): Record<string, string> {
  const [, column, expression] = /^([^=]+)=(.+)$/s.exec(value) ?? []
  if (!column || !expression) throw new InvalidArgumentError('a column, =, and an SQL expression: --set n=t.n+s.n')
  return { ...before, [column.trim()]: expression }
}

/** In one transaction, which a dry run rolls back. */
async function load(db: Db, kind: Kind, file: string, flags: BatchFlags): Promise<BatchCounts & { rows: number }> {
  const { null: nullText, dryRun, ...options } = flags
  const source = await openSource(file)
  const bar = new SingleBar({
    format: '{rows} rows, {speed} rows/s',
    stream: process.stderr,
    noTTYOutput: false,
    clearOnComplete: true,
    hideCursor: true,
  })
  const started = performance.now()
  let sent = 0
  const onProgress = () => {
    const speed = Math.round((sent * 1000) / (performance.now() - started))
    bar.update(sent, { rows: sent.toLocaleString('en'), speed: speed.toLocaleString('en') })
  }
  const counted = async function* () {
    for await (const record of source.records) {
      sent += 1
      yield source.format === 'CSV' ? withNulls(record, nullText) : record
    }
  }
  let counts: BatchCounts | undefined
  bar.start(0, 0, { rows: 0, speed: 0 })
  try {
    await db.transaction(async (tx) => {
      counts = await run[kind](tx, { ...options, rows: counted(), onProgress })
      if (dryRun) throw new DryRun()
    })
  } catch (error) {
    if (!(error instanceof DryRun)) throw error
  } finally {
    bar.stop()
  }
  if (!counts) throw new Error('no counts came back')
  return { rows: sent, ...counts }
}

class DryRun extends Error {}

function withNulls(record: InputRecord, text: string): InputRecord {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, value === text ? null : value]))
}
