import type { Db } from '../../src/db/db.ts'
import { literal, quoted, type Table, tableName } from './capture-tables.ts'

interface Event extends Record<string, unknown> {
  type: string
  data: string
  extra1: string
  extra2: string | null
}
type Fields = ReadonlyMap<string, string | null>

/** Applies captured events to the copy, as a consumer would who knows nothing but the table. */
export async function replay(db: Db, format: string, queue: string, definition: Table): Promise<number> {
  const [found] = await db.query<{ parent: string }>(
    'select queue_data_pfx as parent from pgq.queue where queue_name = $1',
    [queue],
  )
  const events = await db.query<Event>(
    `select ev_type as type, ev_data as data, ev_extra1 as extra1, ev_extra2 as extra2 from ${found?.parent} order by ev_id`,
  )
  for (const event of events) {
    if (event.extra1 !== `public.${definition.name}`)
      throw new Error(`the event says that its table is ${event.extra1}`)
    const sql = format === 'sql' ? ofSql(definition, event) : await ofRow(db, format, definition, event)
    await db.exec(sql)
  }
  return events.length
}

function ofSql(definition: Table, { type, data }: Event): string {
  const copy = tableName(definition, true)
  if (type === 'I') return `insert into ${copy} ${data}`
  if (type === 'U') return `update ${copy} set ${data}`
  if (type === 'D') return `delete from ${copy} where ${data}`
  return `truncate ${copy}`
}

async function ofRow(db: Db, format: string, definition: Table, { type, data, extra2 }: Event): Promise<string> {
  const copy = tableName(definition, true)
  const decode = (text: string) => (format === 'json' ? ofJson(db, text) : Promise.resolve(ofUrl(text)))
  const op = format === 'json' ? (JSON.parse(type) as { op: string }).op.charAt(0) : type.charAt(0)
  if (op === 'R' || op === 'T') return `truncate ${copy}`
  const row = await decode(data)
  const stored = definition.columns.filter(({ name }) => row.has(name))
  const values = stored.map(({ name, type: of }) => `${literal(row.get(name) ?? null)}::${of}`)
  if (op === 'I') return `insert into ${copy} (${stored.map(quoted).join(', ')}) values (${values.join(', ')})`
  const old = extra2 === null ? row : await decode(extra2)
  if (op === 'D') return `delete from ${copy} where ${condition(definition, row)}`
  return `update ${copy} set ${stored.map((column, n) => `${quoted(column)} = ${values[n]}`).join(', ')} where ${condition(definition, old)}`
}

function condition({ columns, key }: Table, row: Fields): string {
  return columns
    .slice(0, key || columns.length)
    .map((column) => {
      const text = row.get(column.name) ?? null
      return `${quoted(column)}::text is not distinct from (${literal(text)}::${column.type})::text`
    })
    .join(' and ')
}

async function ofJson(db: Db, text: string): Promise<Fields> {
  const rows = await db.query<{ key: string; value: string | null }>(
    'select key, value from json_each_text($1::json)',
    [text],
  )
  return new Map(rows.map(({ key, value }) => [key, value]))
}

function ofUrl(text: string): Fields {
  const decode = (part: string) => decodeURIComponent(part.replaceAll('+', ' '))
  return new Map(
    text.split('&').map((pair) => {
      const [name = '', value] = pair.split('=')
      return [decode(name), value === undefined ? null : decode(value)]
    }),
  )
}
