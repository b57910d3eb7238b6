import { SkytoolsError } from '../errors.ts'

/** A column of the target: its type with and without length, the table's oid, and whether that type is an array or JSON. */
export interface ColumnType {
  readonly name: string
  readonly type: string
  readonly full: string
  readonly table: string
  readonly isArray: boolean
  readonly isJson: boolean
}

/** A value as the type's input function reads it. Strings go as they are; an object or array for JSON as its text. */
export function encodeValue(value: unknown, column: ColumnType, row: number): string | null {
  if (value === null) return null
  if (typeof value === 'string') return value
  if (typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean') return String(value)
  if (typeof value === 'object') {
    if (value instanceof Date && !Number.isNaN(value.getTime())) return value.toISOString()
    if (value instanceof Uint8Array) return `\\x${Buffer.from(value).toString('hex')}`
    if (column.isJson) return JSON.stringify(value)
    if (column.isArray && Array.isArray(value)) return arrayLiteral(value, column, row)
    if (!(value instanceof Date)) return JSON.stringify(value)
  }
  throw new SkytoolsError(
    'PQ065',
    `row ${row}, column ${column.name}: a ${value instanceof Date ? 'Date without a time' : typeof value} is no value for ${column.full}`,
    'give null, a string, number, bigint, boolean, Date, Uint8Array, array or object',
  )
}

function arrayLiteral(items: readonly unknown[], column: ColumnType, row: number): string {
  const written = items.map((item) => {
    if (Array.isArray(item)) return arrayLiteral(item, column, row)
    const text = item === undefined ? null : encodeValue(item, column, row)
    return quoteElement(text)
  })
  return `{${written.join(',')}}`
}

/** An element of an array. */
export function quoteElement(text: string | null): string {
  if (text === null) return 'NULL'
  return /[\\"]/.test(text) ? `"${text.replace(/[\\"]/g, '\\$&')}"` : `"${text}"`
}

const escapes: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' }

const special = /[\\\n\r\t]/

/** One line of COPY's text format. */
export function copyLine(values: readonly (string | null)[]): string {
  let line = ''
  for (const value of values) {
    if (value === null) line += '\\N'
    else line += special.test(value) ? value.replace(/[\\\n\r\t]/g, (char) => escapes[char] ?? char) : value
    line += '\t'
  }
  return `${line.slice(0, -1)}\n`
}
