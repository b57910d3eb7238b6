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

export interface Wanted {
  readonly kind: BatchKind
  readonly table: TableName
  readonly names: readonly string[]
  /** Undefined: the primary key. */
  readonly key: readonly string[] | undefined
  /** As skytools._batch_sql() takes them; undefined where each is as it is by default. */
  readonly options: Readonly<Record<string, unknown>> | undefined
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

/** The statement for these options from not long ago, if there is one. */
export function known(db: Db, wanted: Wanted): Statement | undefined {
  const statement = knownAt(db.origin).statements.get(markOf(wanted))
  return statement && statement.until > Date.now() ? statement : undefined
}

/** It is out of date: the next one is written anew. */
export function forget(db: Db, wanted: Wanted): void {
  knownAt(db.origin).statements.delete(markOf(wanted))
}

/** The statement for these options, written by the server. */
export async function prepare(db: Db, wanted: Wanted): Promise<Statement> {
  const { statements, prepared } = knownAt(db.origin)
  const { kind, table, names, options } = wanted
  const columns = await columnTypes(db, table, names)
  const [built] = await db.query<{ sql: string }>(
    'select skytools._batch_sql($1, $2::regclass, $3, $4::text[], $5::jsonb) as sql',
    [kind, quoteTable(table), unnestSource(columns), names, JSON.stringify({ ...options, key: wanted.key, few: true })],
  )
  if (!built) throw new Error('no statement came back')
  const { sql } = built
  const keep = wanted.prepare && (prepared.size < most || prepared.has(sql))
  if (keep) prepared.add(sql)
  const statement = { sql, columns, until: Date.now() + lifetime, prepare: keep }
  if (statements.size > 1000) statements.clear()
  statements.set(markOf(wanted), statement)
  return statement
}

/** What tells one statement from another. No name has a zero in it, and none is empty. */
function markOf({ kind, table, names, key, options, prepare }: Wanted): string {
  const where = typeof table === 'string' ? table : table.join('\0')
  const mark = `${kind}\0${prepare}\0${typeof table}\0${where}\0\0${names.join('\0')}\0\0${key?.join('\0')}`
  return options ? `${mark}\0\0${JSON.stringify(options)}` : mark
}

function knownAt(origin: object): Known {
  const known = origins.get(origin) ?? { statements: new Map(), prepared: new Set() }
  origins.set(origin, known)
  return known
}
