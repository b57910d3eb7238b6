import type { Db } from '../db/db.ts'
import type { ColumnType } from './encode.ts'
import { type BatchKind, columnTypes, quoteTable, type TableName, unnestSource } from './statement.ts'

/** A statement for a table, from arrays of these columns. */
export interface Statement {
  readonly sql: string
  readonly columns: readonly ColumnType[]
  readonly until: number
  readonly prepare: boolean
}

interface Wanted {
  readonly kind: BatchKind
  readonly table: TableName
  readonly names: readonly string[]
  /** As skytools._batch_sql() takes them. */
  readonly options: Readonly<Record<string, unknown>>
  readonly prepare: boolean
}

/** Milliseconds for which a statement that was written for a table is used again. */
const lifetime = 60_000
/** Statements that a connection keeps prepared: expressions may make ever new ones. */
const most = 100

interface Known {
  readonly statements: Map<string, Statement>
  /** The texts that are prepared there. */
  readonly prepared: Set<string>
}
const origins = new WeakMap<object, Known>()

/** The statement for these options, written by the server, or from not long ago. `forget` tells whether it was old. */
export async function prepare(db: Db, wanted: Wanted): Promise<{ readonly statement: Statement; forget(): boolean }> {
  const { statements, prepared } = knownAt(db.origin)
  const key = JSON.stringify(wanted)
  const old = statements.get(key)
  if (old && old.until > Date.now()) return { statement: old, forget: () => statements.delete(key) }
  const { kind, table, names, options } = wanted
  const columns = await columnTypes(db, table, names)
  const [built] = await db.query<{ sql: string }>(
    'select skytools._batch_sql($1, $2::regclass, $3, $4::text[], $5::jsonb) as sql',
    [kind, quoteTable(table), unnestSource(columns), names, JSON.stringify(options)],
  )
  if (!built) throw new Error('no statement came back')
  const { sql } = built
  const keep = wanted.prepare && (prepared.size < most || prepared.has(sql))
  if (keep) prepared.add(sql)
  const statement = { sql, columns, until: Date.now() + lifetime, prepare: keep }
  if (statements.size > 1000) statements.clear()
  statements.set(key, statement)
  return { statement, forget: () => false }
}

function knownAt(origin: object): Known {
  const known = origins.get(origin) ?? { statements: new Map(), prepared: new Set() }
  origins.set(origin, known)
  return known
}
