import { SkytoolsError } from '../errors.ts'
import { type ColumnType, encodeValue } from './encode.ts'

/** Rows from an array, a generator, an async generator or an object stream. */
export type Rows<R> = Iterable<R> | AsyncIterable<R>

/** The rows by chunks of at most so many. */
export async function* chunksOf<R>(rows: Rows<R>, size: number, signal?: AbortSignal): AsyncGenerator<R[]> {
  // Awaiting each would cost as much as all else that is done for a row.
  if (Array.isArray(rows)) {
    for (let start = 0; start < rows.length; start += size) {
      signal?.throwIfAborted()
      yield rows.slice(start, start + size)
    }
    signal?.throwIfAborted()
    return
  }
  let chunk: R[] = []
  for await (const row of rows) {
    chunk.push(row)
    if (chunk.length < size) continue
    signal?.throwIfAborted()
    yield chunk
    chunk = []
  }
  signal?.throwIfAborted()
  if (chunk.length > 0) yield chunk
}

/** The values of a row in the order of the columns. `number` counts from 1. */
export function encodeRow(row: object, columns: readonly ColumnType[], number: number): (string | null)[] {
  const record = row as Readonly<Record<string, unknown>>
  // A loop: this is done for each value of millions.
  const values: (string | null)[] = []
  for (const column of columns) {
    const value = record[column.name]
    if (value === undefined)
      throw new SkytoolsError(
        'PQ066',
        `row ${number} has no column ${column.name}`,
        'give null where there is no value',
      )
    values.push(encodeValue(value, column, number))
  }
  const keys = Object.keys(record)
  if (keys.length > columns.length) {
    const known = new Set(columns.map(({ name }) => name))
    const extra = keys.filter((key) => !known.has(key))
    throw new SkytoolsError(
      'PQ066',
      `row ${number} has columns that the first row has not: ${extra.join(', ')}`,
      'each row of a batch has the same columns',
    )
  }
  return values
}
