import { value } from '../db/call.ts'
import type { Connectable } from '../db/open.ts'
import { fields, type NewEvent } from './events.ts'
import { duration, type Interval } from './interval.ts'

/** Puts an event into a queue at a later time, by the ticker's maintenance, if the caller's transaction commits.
 *
 * @returns a number for `cancelEventAt`; the event gets its id when it is put into the queue
 * @throws QueueNotFoundError (PQ001)
 * @remarks Needs pgq_writer. */
export async function insertEventAt(db: Connectable, queue: string, time: Date, event: NewEvent): Promise<bigint> {
  const params = [queue, time.toISOString(), ...fields(event)]
  return BigInt(await value<bigint>(db, 'select pgq.insert_event_at($1, $2, $3, $4, $5, $6, $7, $8) as value', params))
}

/** Withdraws an event that waits for its time.
 *
 * @returns false when it does not wait (any more)
 * @remarks Waits for a maintenance round that is just putting it into the queue. Needs pgq_writer. */
export async function cancelEventAt(db: Connectable, queue: string, delayed: bigint): Promise<boolean> {
  return (await value<number>(db, 'select pgq.cancel_event_at($1, $2) as value', [queue, delayed])) === 1
}

/** Puts an event into a queue unless one with the same key was put in within the window. A rollback frees the key.
 *
 * @returns the event's id; null for a duplicate
 * @throws QueueNotFoundError (PQ001), InsertDisabledError (PQ006), InvalidArgumentError (PQ008)
 * @remarks Waits while another transaction with the same key is open. Needs pgq_writer. */
export async function insertEventOnce(
  db: Connectable,
  queue: string,
  key: string,
  window: Interval,
  event: NewEvent,
): Promise<bigint | null> {
  const params = [queue, key, duration(window), ...fields(event)]
  const sql = 'select pgq.insert_event_once($1, $2, $3, $4, $5, $6, $7, $8, $9) as value'
  const id = await value<bigint | null>(db, sql, params)
  return id === null ? null : BigInt(id)
}
