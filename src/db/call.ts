import { mapErrors } from '../errors.ts'
import type { Row } from './db.ts'
import { type Connectable, toDb } from './open.ts'

/** Runs one statement; errors of our SQL come out as SkytoolsError. */
export function rows<R extends Row>(connection: Connectable, sql: string, params?: readonly unknown[]): Promise<R[]> {
  return mapErrors(() => toDb(connection).query<R>(sql, params))
}

/** The column `value` of a statement that gives one row. */
export async function value<T>(connection: Connectable, sql: string, params?: readonly unknown[]): Promise<T> {
  const [row] = await rows<{ value: T }>(connection, sql, params)
  if (!row) throw new Error(`no row came back from: ${sql}`)
  return row.value
}
