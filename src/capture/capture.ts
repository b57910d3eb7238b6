import { rows, value } from '../db/call.ts'
import type { Connectable } from '../db/open.ts'

export type CaptureFormat = 'json' | 'urlencode' | 'sql'
export type CaptureOperation = 'insert' | 'update' | 'delete' | 'truncate'

export interface CaptureOptions {
  /** How a row is written into the event's data; default json. */
  readonly format?: CaptureFormat | undefined
  /** The columns to take; default all. The key must be among them. */
  readonly columns?: readonly string[] | undefined
  /** The columns to leave out, instead of `columns`; an update of nothing else makes no event. */
  readonly ignore?: readonly string[] | undefined
  /** The columns that identify a row; default the primary key, else the replica identity, else all columns. */
  readonly key?: readonly string[] | undefined
  /** What to capture; default all four. */
  readonly operations?: readonly CaptureOperation[] | undefined
  /** Put the old row of an update into extra2. */
  readonly oldRow?: boolean | undefined
  /** The event's type, in which {op} and {table} are replaced; default as PgQ's trigger functions have it. */
  readonly eventType?: string | undefined
  /** A condition in SQL over the row's columns, or over new and old; evaluated as whoever changes the table. */
  readonly when?: string | undefined
  /** Expressions in SQL for the further fields, as `when`. */
  readonly extra1?: string | undefined
  readonly extra2?: string | undefined
  readonly extra3?: string | undefined
  readonly extra4?: string | undefined
  /** By statement or by row; default by statement wherever that catches every change. */
  readonly level?: 'auto' | 'row' | 'statement' | undefined
}

/** Turns every change of a table into an event in a queue, in the transaction of the change.
 *
 * @param table its name as in SQL: quoted where it needs to be
 * @returns the number of the capture; a table that is captured into that queue already gets the new options
 * @throws QueueNotFoundError (PQ001)
 * @throws CaptureStaleError (PQ014) the table has no column of that name
 * @throws CaptureOptionError (PQ043)
 * @throws NotCapturableError (PQ044) a view, say
 * @remarks Locks the table against changes until the transaction ends. Needs pgq_admin and the table's owner. */
export function capture(db: Connectable, table: string, queue: string, options: CaptureOptions = {}): Promise<number> {
  const { oldRow, eventType, ...rest } = options
  return value<number>(db, 'select pgq.capture($1::regclass, $2, $3::jsonb) as value', [
    table,
    queue,
    JSON.stringify({ ...rest, old_row: oldRow, event_type: eventType }),
  ])
}

/** Ends the capture of a table into a queue. The events that there are stay.
 *
 * @returns false when there was none
 * @remarks Locks the table. Needs pgq_admin. */
export async function uncapture(db: Connectable, table: string, queue: string): Promise<boolean> {
  return (await value<number>(db, 'select pgq.uncapture($1::regclass, $2) as value', [table, queue])) === 1
}

/** Generates the code of captures anew whose tables have changed: without it they are captured rightly, but slower.
 *
 * @returns the names of those tables
 * @throws CaptureStaleError (PQ014) the options of a capture name a column that its table has no more
 * @remarks Needs pgq_admin. */
export async function refreshCapture(db: Connectable): Promise<string[]> {
  const found = await rows<{ name: string }>(db, 'select t::text as name from pgq.refresh_capture() t')
  return found.map(({ name }) => name)
}

export interface CapturedTable {
  /** With its schema, unquoted: as it stands in the events. */
  readonly table: string
  readonly queue: string
  readonly format: CaptureFormat
  readonly operations: readonly CaptureOperation[]
  readonly level: 'row' | 'statement'
  /** As they are stored, under their names in SQL. */
  readonly options: Readonly<Record<string, unknown>>
  /** The table has changed since the code was generated. */
  readonly stale: boolean
}

/** The tables that are captured, by name. */
export async function capturedTables(db: Connectable): Promise<CapturedTable[]> {
  return (await rows(
    db,
    `select table_name as table, queue_name as queue, format, operations, level, options, stale
       from pgq.captured_table order by table_name, queue_name`,
  )) as unknown as CapturedTable[]
}
