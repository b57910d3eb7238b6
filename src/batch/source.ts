import { SkytoolsError } from '../errors.ts'
import { type ColumnType, encodeValue, quoteElement } from './encode.ts'

/** Rows from an array, a generator, an async generator or an object stream. */
export type Rows<R> = Iterable<R> | AsyncIterable<R>

const chunkSize = 1000
/** Of rows that are awaited one by one: what is gathered meanwhile outlives the young garbage, and so fills the memory. */
const awaitedSize = 100

/** Characters that go as arrays at the most, whatever the number of rows: they are in memory several times on their way. */
const longest = 8_000_000

/** The rows by chunks. */
async function* chunksOf<R>(rows: Rows<R>, signal?: AbortSignal): AsyncGenerator<R[]> {
  // Awaiting each row would cost as much as all else that is done for it.
  yield* Symbol.asyncIterator in rows ? chunksAwaited(rows, signal) : chunksAtHand(rows, signal)
}

function* chunksAtHand<R>(rows: Iterable<R>, signal?: AbortSignal): Generator<R[]> {
  let chunk: R[] = []
  for (const row of rows) {
    chunk.push(row)
    if (chunk.length < chunkSize) continue
    signal?.throwIfAborted()
    yield chunk
    chunk = []
  }
  signal?.throwIfAborted()
  if (chunk.length > 0) yield chunk
}

async function* chunksAwaited<R>(rows: AsyncIterable<R>, signal?: AbortSignal): AsyncGenerator<R[]> {
  let chunk: R[] = []
  for await (const row of rows) {
    chunk.push(row)
    if (chunk.length < awaitedSize) continue
    signal?.throwIfAborted()
    yield chunk
    chunk = []
  }
  signal?.throwIfAborted()
  if (chunk.length > 0) yield chunk
}

interface Taken<R> {
  readonly first: readonly R[]
  readonly few: boolean
  readonly chunks: AsyncGenerator<R[]>
}

/** The first rows: all of them, if they are so few that they may go as arrays. */
export function takeFew<R extends object>(
  rows: Rows<R>,
  copyAbove: number,
  signal: AbortSignal | undefined,
): Taken<R> | Promise<Taken<R>> {
  // A short array is all there is: no need to go through it chunk by chunk, nor to wait.
  if (isArray(rows) && rows.length <= copyAbove) return { first: rows, few: true, chunks: chunksOf<R>([]) }
  return takeChunks(rows, copyAbove, signal)
}

async function takeChunks<R extends object>(
  rows: Rows<R>,
  copyAbove: number,
  signal: AbortSignal | undefined,
): Promise<Taken<R>> {
  const chunks = chunksOf(rows, signal)
  const first: R[] = []
  let length = 0
  while (first.length <= copyAbove && length <= longest) {
    const { value, done } = await chunks.next()
    if (done) return { first, few: true, chunks }
    first.push(...value)
    length += textLength(value)
  }
  return { first, few: false, chunks }
}

function isArray<R>(rows: Rows<R>): rows is readonly R[] & Rows<R> {
  return Array.isArray(rows)
}

function textLength(rows: readonly object[]): number {
  let length = 0
  for (const row of rows) for (const value of Object.values(row)) length += typeof value === 'string' ? value.length : 8
  return length
}

/** The first rows, and then the others, by chunks. */
export async function* allOf<R>(first: readonly R[], chunks: AsyncGenerator<R[]>): AsyncGenerator<R[]> {
  yield* chunksOf(first)
  yield* chunks
}

/** The values of a row in the order of the columns. `number` counts from 1. */
export function encodeRow(row: object, columns: readonly ColumnType[], number: number): (string | null)[] {
  const record = row as Readonly<Record<string, unknown>>
  // A loop: this is done for each value of millions.
  const values: (string | null)[] = []
  for (const column of columns) {
    const value = record[column.name]
    if (value === undefined) throw noColumn(column, number)
    values.push(encodeValue(value, column, number))
  }
  refuseOthers(record, columns, number)
  return values
}

/** One array for each column of these rows, as Postgres reads it; undefined if they are too long. */
export function encodeArrays(rows: readonly object[], columns: readonly ColumnType[]): string[] | undefined {
  let length = 0
  const arrays: string[] = []
  // Column by column, with no call for what most values are: a batch of a few rows is often over before this is compiled.
  for (const column of columns) {
    const { name } = column
    let text = '{'
    let number = 0
    for (const row of rows) {
      const value = (row as Readonly<Record<string, unknown>>)[name]
      number += 1
      if (value === undefined) throw noColumn(column, number)
      if (number > 1) text += ','
      text += typeof value === 'number' ? value : quoteElement(encodeValue(value, column, number))
      if (length + text.length > longest) return undefined
    }
    length += text.length
    arrays.push(`${text}}`)
  }
  let number = 0
  for (const row of rows) refuseOthers(row as Readonly<Record<string, unknown>>, columns, ++number)
  return arrays
}

function noColumn({ name }: ColumnType, number: number): SkytoolsError {
  return new SkytoolsError('PQ066', `row ${number} has no column ${name}`, 'give null where there is no value')
}

function refuseOthers(record: Readonly<Record<string, unknown>>, columns: readonly ColumnType[], number: number): void {
  const keys = Object.keys(record)
  if (keys.length <= columns.length) return
  const known = new Set(columns.map(({ name }) => name))
  const extra = keys.filter((key) => !known.has(key))
  throw new SkytoolsError(
    'PQ066',
    `row ${number} has columns that the first row has not: ${extra.join(', ')}`,
    'each row of a batch has the same columns',
  )
}
