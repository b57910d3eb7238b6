import type { Db } from '../db/db.ts'
import { type Connectable, toDb } from '../db/open.ts'
import { mapErrors, SkytoolsError } from '../errors.ts'
import { type ColumnType, copyLine } from './encode.ts'
import { forget, known, prepare, type Statement, type Wanted } from './prepare.ts'
import { allOf, encodeArrays, encodeRow, type Rows, takeFew } from './source.ts'
import {
  type BatchCounts,
  type BatchKind,
  columnTypes,
  quoteIdentifier,
  quoteTable,
  type TableName,
} from './statement.ts'

type Column<R> = Extract<keyof R, string>

/** What all batches have in common. */
export interface BatchRows<R extends object> {
  readonly table: TableName
  /** The columns that identify a row. Default: the primary key. */
  readonly key?: Column<R> | readonly Column<R>[]
  /** Each with the same columns; null where there is no value. */
  readonly rows: Rows<R>
  /** Of rows with one key: an error (the default), or the last or first one counts. */
  readonly fold?: 'error' | 'last' | 'first'
  /** Fold columns by an aggregate: its name, or an SQL expression over s. */
  readonly aggregates?: Partial<Record<Column<R>, string>>
  /** How batches beside each other keep apart. Default: 'on conflict'. */
  readonly concurrency?: 'on conflict' | 'lock' | 'retry'
  /** More rows than this, or more than 8 MB, are sent by COPY into a temporary table. Default: 10,000. */
  readonly copyAbove?: number
  /** Prepares statements for a few rows; default true. False behind a pooler that knows no prepared statements. */
  readonly prepare?: boolean
  readonly signal?: AbortSignal
  /** Called now and then with the number of rows sent so far. */
  readonly onProgress?: (rows: number) => void
}

export interface BatchChanges<R extends object> extends BatchRows<R> {
  /** The columns to set. Default: all that the rows have beside the key. */
  readonly columns?: readonly Column<R>[]
  /** SQL expressions over t (the row there is) and s (yours): `{ n: 't.n + s.n' }`. Code, never data. */
  readonly set?: Readonly<Record<string, string>>
  /** Write rows that would stay as they are, too. */
  readonly rewrite?: boolean
}

export interface BatchUpdateOptions<R extends object> extends BatchChanges<R> {
  /** What to do with rows that the table lacks. Default: 'ignore'. */
  readonly onMissing?: 'ignore' | 'error' | 'insert'
}

export interface BatchDeleteOptions<R extends object> extends BatchRows<R> {
  readonly onMissing?: 'ignore' | 'error'
}

export interface BatchMergeOptions<R extends object> extends BatchChanges<R> {
  /** SQL condition over t: only rows for which it holds are deleted when yours lack them. */
  readonly within?: string
}

interface AnyOptions extends BatchRows<Record<string, unknown>> {
  readonly columns?: readonly string[]
  readonly set?: Readonly<Record<string, string>>
  readonly rewrite?: boolean
  readonly onMissing?: 'ignore' | 'error' | 'insert'
  readonly within?: string
}

/** Updates the rows of a table that yours name by key, in one statement. */
export function batchUpdate<R extends object>(db: Connectable, options: BatchUpdateOptions<R>): Promise<BatchCounts> {
  return run(db, 'update', options as unknown as AnyOptions)
}

/** Updates the rows that there are and inserts the others, in one statement. */
export function batchUpsert<R extends object>(db: Connectable, options: BatchChanges<R>): Promise<BatchCounts> {
  return run(db, 'upsert', options as unknown as AnyOptions)
}

/** Deletes the rows that yours name by key, in one statement. */
export function batchDelete<R extends object>(db: Connectable, options: BatchDeleteOptions<R>): Promise<BatchCounts> {
  return run(db, 'delete', options as unknown as AnyOptions)
}

/** Makes a table, or the part of it that `within` says, like your rows: inserts, updates and deletes. */
export function batchMerge<R extends object>(db: Connectable, options: BatchMergeOptions<R>): Promise<BatchCounts> {
  return run(db, 'merge', options as unknown as AnyOptions)
}

async function run(connection: Connectable, kind: BatchKind, options: AnyOptions): Promise<BatchCounts> {
  const db = toDb(connection)
  const { copyAbove = 10_000, signal } = options
  signal?.throwIfAborted()
  const taken = takeFew(options.rows, copyAbove, signal)
  const { first, few, chunks } = taken instanceof Promise ? await taken : taken
  const [sample] = first
  if (!sample && kind !== 'merge') return { inserted: 0n, updated: 0n, unchanged: 0n, deleted: 0n, missing: 0n }
  return mapErrors(async () => {
    const names = sample ? Object.keys(sample) : await primaryKey(db, options)
    // What takes a lock, tries again or looks at the counts before it commits is done by the SQL functions.
    const plain = (options.concurrency ?? 'on conflict') === 'on conflict' && options.onMissing !== 'error'
    if (!plain || !few) {
      const columns = await columnTypes(db, options.table, names)
      return db.transaction((tx) => byCopy(tx, kind, options, columns, allOf(first, chunks)))
    }
    const wanted: Wanted = {
      kind: options.onMissing === 'insert' ? 'upsert' : kind,
      table: options.table,
      names,
      key: keyOf(options),
      options: sqlOptions(kind, options),
      prepare: options.prepare ?? true,
    }
    const before = known(db, wanted)
    const statement = before ?? (await prepare(db, wanted))
    const arrays = encodeArrays(first, statement.columns)
    if (!arrays) return db.transaction((tx) => byCopy(tx, kind, options, statement.columns, allOf(first, chunks)))
    const send = (one: Statement, given: readonly string[]) =>
      // Within the caller's transaction a savepoint keeps that usable.
      db.inTransaction()
        ? db.transaction((tx) => byArrays(tx, one, options.table, given, first.length))
        : byArrays(db, one, options.table, given, first.length)
    const counts = await send(statement, arrays).catch(async (error) => {
      // COPY says in which row and column it met the value that does not fit.
      if (isDataError(error)) await db.transaction((tx) => diagnose(tx, statement.columns, allOf(first, chunks)))
      // The table, or which one its name means, may have changed since the statement was written.
      if (before) forget(db, wanted)
      if (!before || !isOutdated(error)) throw error
      const again = await prepare(db, wanted)
      return send(again, encodeArrays(first, again.columns) ?? arrays)
    })
    options.onProgress?.(first.length)
    return counts
  })
}

/** A merge with no rows at all has no first row to tell its columns. */
async function primaryKey(tx: Db, options: AnyOptions): Promise<readonly string[]> {
  const key = keyOf(options)
  if (key) return key
  const found = await tx.query<{ name: string }>(
    `select a.attname as name from pg_catalog.pg_index i
       join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
      where i.indisprimary and i.indrelid = pg_catalog.to_regclass($1)`,
    [quoteTable(options.table)],
  )
  return found.map(({ name }) => name)
}

function keyOf({ key }: AnyOptions): readonly string[] | undefined {
  return typeof key === 'string' ? [key] : key
}

/** What the SQL depends on beside the key; undefined where all of it is as it is by default. */
function sqlOptions(kind: BatchKind, options: AnyOptions): Record<string, unknown> | undefined {
  const { columns, set, fold, aggregates, rewrite, within, concurrency } = options
  if ((columns ?? set ?? fold ?? aggregates ?? rewrite ?? within ?? concurrency) === undefined) return undefined
  const common = { fold, aggregates, concurrency }
  return kind === 'delete' ? common : { ...common, columns, set, rewrite, within }
}

/** In one round trip, and one statement, which is a transaction of its own where there is none. */
async function byArrays(
  db: Db,
  { sql, prepare }: Statement,
  table: TableName,
  arrays: readonly string[],
  rows: number,
): Promise<BatchCounts> {
  const counts = await db.query<Partial<Record<keyof BatchCounts, bigint>>>(sql, [...arrays, quoteTable(table)], {
    prepare,
  })
  return toCounts(counts, rows)
}

const callArguments: Readonly<Record<string, string>> = {
  key: 'text[]',
  columns: 'text[]',
  set: 'jsonb',
  fold: 'text',
  aggregates: 'jsonb',
  rewrite: 'boolean',
  within: 'text',
  concurrency: 'text',
}

async function byCopy(
  tx: Db,
  kind: BatchKind,
  options: AnyOptions,
  columns: readonly ColumnType[],
  chunks: AsyncIterable<Record<string, unknown>[]>,
): Promise<BatchCounts> {
  const source = await load(tx, columns, chunks, options)
  const given = {
    key: keyOf(options),
    ...sqlOptions(kind, options),
    ...(options.onMissing && { on_missing: options.onMissing }),
  }
  const names = Object.entries(given).filter(([, value]) => value !== undefined)
  const list = names.map(([name], index) => `, ${name} => $${index + 3}::${callArguments[name] ?? 'text'}`)
  const counts = await tx.query<Record<keyof BatchCounts, bigint>>(
    `select * from skytools.batch_${kind}($1::regclass, $2::text${list.join('')})`,
    [
      quoteTable(options.table),
      source,
      ...names.map(([name, value]) => (callArguments[name] === 'jsonb' ? JSON.stringify(value) : value)),
    ],
  )
  await tx.exec(`drop table ${source}`)
  return toCounts(counts, 0)
}

/** COPY into a temporary table, a chunk at a time. Returns its name. */
async function load(
  tx: Db,
  columns: readonly ColumnType[],
  chunks: AsyncIterable<Record<string, unknown>[]>,
  { onProgress }: Pick<AnyOptions, 'onProgress'>,
): Promise<string> {
  const source = 'pg_temp.skytools_batch'
  const list = columns.map(({ name, full }) => `${quoteIdentifier(name)} ${full}`)
  await tx.exec(`create temp table skytools_batch (${list.join(', ')}) on commit drop`)
  let sent = 0
  let copied = 0
  const lines = async function* (source: AsyncIterable<Record<string, unknown>[]>) {
    for await (const chunk of source) {
      yield chunk.map((row) => copyLine(encodeRow(row, columns, ++sent))).join('')
      onProgress?.(sent)
    }
  }
  try {
    // PGlite copies from memory: a chunk at a time bounds it.
    if (tx.kind === 'pg') await tx.copyIn(source, lines(chunks))
    else
      for await (const chunk of chunks) {
        await tx.copyIn(source, lines(one(chunk)))
        copied = sent
      }
  } catch (error) {
    throw namedValue(error, copied) ?? error
  }
  return source
}

/** Throws the error that names the value, if there is one that its column does not take. */
async function diagnose(
  tx: Db,
  columns: readonly ColumnType[],
  chunks: AsyncIterable<Record<string, unknown>[]>,
): Promise<void> {
  const source = await load(tx, columns, chunks, {})
  await tx.exec(`drop table ${source}`)
}

async function* one<T>(value: T): AsyncGenerator<T> {
  yield value
}

function isDataError(error: unknown): error is { code: string; message: string; where?: string } {
  return hasState(error, /^22/)
}

/** Names or types that are no more what they were: nothing was done. */
function isOutdated(error: unknown): boolean {
  return hasState(error, /^(42|0A)/)
}

function hasState(error: unknown, state: RegExp): boolean {
  return typeof error === 'object' && error !== null && 'code' in error && state.test(String(error.code))
}

/** `COPY skytools_batch, line 3, column n: "abc"`, as an error that names row, column and value. */
function namedValue(error: unknown, before: number): SkytoolsError | undefined {
  if (!isDataError(error) || !error.where) return undefined
  const [, line, column, value] = /line (\d+)(?:, column (.*?): (.*))?$/m.exec(error.where) ?? []
  if (line === undefined) return undefined
  const at = column === undefined ? '' : `, column ${column}, value ${value}`
  return new SkytoolsError('PQ065', `row ${before + Number(line)}${at}: ${error.message}`, undefined, error)
}

function toCounts([row]: readonly Partial<Record<keyof BatchCounts, bigint>>[], rows: number): BatchCounts {
  if (!row) throw new Error('no counts came back')
  const { inserted = 0n, updated = 0n, deleted = 0n, missing = 0n } = row
  const { unchanged = BigInt(rows) - updated - missing } = row
  return { inserted, updated, unchanged, deleted, missing }
}
