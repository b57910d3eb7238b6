import { rows, value } from '../db/call.ts'
import type { Db } from '../db/db.ts'
import { type Connectable, toDb } from '../db/open.ts'

/** An event to be. What is left out is null. */
export interface NewEvent {
  readonly type?: string | null
  /** A string is stored as it is, everything else as its JSON text. */
  readonly data?: unknown
  readonly extra1?: string | null
  readonly extra2?: string | null
  readonly extra3?: string | null
  readonly extra4?: string | null
}

/** Puts an event into a queue. Given a transaction, it is part of that: it exists when that commits.
 *
 * @returns the event's id
 * @throws QueueNotFoundError (PQ001), InsertDisabledError (PQ006), TransactionLimitError (PQ007)
 * @remarks Locks like a plain INSERT. Needs pgq_writer. */
export async function insertEvent(db: Connectable, queue: string, event: NewEvent): Promise<bigint> {
  const params = [queue, ...fields(event)]
  // Another library's driver may give an int8 as text or as a number.
  return BigInt(await value<bigint>(db, 'select pgq.insert_event($1, $2, $3, $4, $5, $6, $7) as value', params))
}

/** What is stored of an event, in the order of the parameters of pgq.insert_event(). */
export function fields(event: NewEvent): (string | null)[] {
  const { type, extra1, extra2, extra3, extra4 } = event
  return [type, payload(event.data), extra1, extra2, extra3, extra4].map((field) => field ?? null)
}

/** So many go to the server in one statement: some megabytes of ordinary events. */
const chunk = 10_000
const columns = ['type', 'data', 'extra1', 'extra2', 'extra3', 'extra4'] as const

/** Puts many events into a queue, all of them or none, in their order; several times as fast as one by one.
 *
 * @returns the events' ids, ascending, in the order given
 * @throws QueueNotFoundError (PQ001), InsertDisabledError (PQ006), TransactionLimitError (PQ007)
 * @remarks Locks like a plain INSERT. Needs pgq_writer. */
export async function insertEvents(db: Connectable, queue: string, events: readonly NewEvent[]): Promise<bigint[]> {
  if (events.length <= chunk) return insertChunk(db, queue, events)
  return toDb(db).transaction(async (tx) => {
    const ids: bigint[] = []
    for (let start = 0; start < events.length; start += chunk) {
      ids.push(...(await insertChunk(tx, queue, events.slice(start, start + chunk))))
    }
    return ids
  })
}

async function insertChunk(db: Connectable | Db, queue: string, events: readonly NewEvent[]): Promise<bigint[]> {
  const fields = columns.map((column) => {
    const list = events.map((event) => (column === 'data' ? payload(event.data) : (event[column] ?? null)))
    // A null in place of an array of nulls spares the server the reading. The first two say how many events there are.
    return column === 'type' || column === 'data' || list.some((field) => field !== null) ? list : null
  })
  const found = await rows<{ id: bigint }>(
    db,
    'select id from pgq.insert_events($1, $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) as id',
    [queue, ...fields],
  )
  return found.map(({ id }) => BigInt(id))
}

function payload(data: unknown): string | null {
  if (data === undefined || data === null) return null
  return typeof data === 'string' ? data : JSON.stringify(data)
}
