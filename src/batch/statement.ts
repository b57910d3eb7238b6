import type { Db, Row } from '../db/db.ts'
import { SkytoolsError } from '../errors.ts'
import type { ColumnType } from './encode.ts'

/** What was done: rows by what happened to them. */
export interface BatchCounts {
  readonly inserted: bigint
  readonly updated: bigint
  readonly unchanged: bigint
  readonly deleted: bigint
  readonly missing: bigint
}

export type BatchKind = 'update' | 'upsert' | 'delete' | 'merge'

/** A table as its name, `schema.name`, or both apart (for names with a dot in them). */
export type TableName = string | readonly [schema: string, name: string]

export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

export function quoteTable(table: TableName): string {
  const dot = typeof table === 'string' ? table.indexOf('.') : -1
  const parts = typeof table !== 'string' ? table : dot < 0 ? [table] : [table.slice(0, dot), table.slice(dot + 1)]
  return parts.map(quoteIdentifier).join('.')
}

/** The types of these columns, from the catalog. */
export async function columnTypes(db: Db, table: TableName, names: readonly string[]): Promise<ColumnType[]> {
  const found = await db.query<Row & ColumnType>(
    `select a.attname as name, pg_catalog.format_type(a.atttypid, -1) as type,
            pg_catalog.format_type(a.atttypid, a.atttypmod) as full, a.attrelid::text as table,
            coalesce(b.typcategory, t.typcategory) = 'A' as "isArray", coalesce(b.typname, t.typname) in ('json', 'jsonb') as "isJson"
       from pg_catalog.pg_attribute a
       join pg_catalog.pg_type t on t.oid = a.atttypid
       left join pg_catalog.pg_type b on b.oid = t.typbasetype
      where a.attrelid = pg_catalog.to_regclass($1) and a.attnum > 0 and not a.attisdropped`,
    [quoteTable(table)],
  )
  const types = new Map(found.map((column) => [column.name, column]))
  return names.map((name) => {
    const column = types.get(name)
    if (column) return column
    throw new SkytoolsError(
      'PQ024',
      found.length === 0 ? `no such table: ${quoteTable(table)}` : `table ${quoteTable(table)} has no column ${name}`,
      found.length === 0 ? 'name it with its schema: schema.table' : `it has: ${[...types.keys()].join(', ')}`,
    )
  })
}

/**
 * A source of rows that come as one array a column, as texts: the parameters $1, $2 and so on. The parameter after them is the
 * table's name, which must mean the same table as when the statement was written.
 */
export function unnestSource(columns: readonly ColumnType[]): string {
  const list = (each: (column: ColumnType, index: number) => string) => columns.map(each).join(', ')
  // unnest() of an array of arrays would give their elements. A sub-select hides from the planner how many there are, so that
  // it does the same for all: looks them up by the index.
  const arrays = list(({ type, isArray }, index) => `(select $${index + 1}::${isArray ? 'text' : type}[])`)
  const values = list(({ type, isArray }, index) => (isArray ? `u.c${index}::${type}` : `u.c${index}`))
  const names = list((_column, index) => `c${index}`)
  const table = `$${columns.length + 1}::text`
  const same = `pg_catalog.to_regclass(${table})::oid is not distinct from ${columns[0]?.table ?? '0'}`
  return `(select ${values} from unnest(${arrays}) u (${names}) where (select ${same} or skytools._batch_moved(${table})))`
}
