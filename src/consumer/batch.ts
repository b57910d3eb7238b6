import { rows, value } from '../db/call.ts'
import type { Connectable } from '../db/open.ts'
import { SkytoolsError } from '../errors.ts'
import { duration, type Interval } from '../queue/interval.ts'

export interface Batch {
  readonly id: bigint
  /** The tick that ends it, and the one after which it begins. */
  readonly tick: bigint
  readonly previousTick: bigint
  readonly tickTime: Date
  readonly previousTickTime: Date
}

export interface BatchOptions {
  /** Only events that are at least this old. */
  readonly minLag?: Interval | undefined
  /** Only a batch of about so many events, */
  readonly minCount?: number | undefined
  /** or one that covers so much time; given both, either suffices. */
  readonly minInterval?: Interval | undefined
}

export interface QueueEvent {
  readonly id: bigint
  /** When it was put in: its transaction's begin. */
  readonly time: Date
  readonly txid: bigint
  /** How often it was retried: 0 at the first delivery. */
  readonly retry: number
  readonly type: string | null
  readonly data: string | null
  readonly extra1: string | null
  readonly extra2: string | null
  readonly extra3: string | null
  readonly extra4: string | null
}

/** The columns of a QueueEvent, in SQL over what the batch functions return. */
export const eventColumns = `ev_id as id, ev_time as time, ev_txid as txid, coalesce(ev_retry, 0) as retry, ev_type as type,
  ev_data as data, ev_extra1 as extra1, ev_extra2 as extra2, ev_extra3 as extra3, ev_extra4 as extra4`

/** The columns of a Batch, in SQL over what `pgq.next_batch_custom()` returns, and the arguments of that. */
export const batchColumns = `batch_id as id, cur_tick_id as tick, prev_tick_id as "previousTick", cur_tick_time as "tickTime",
  prev_tick_time as "previousTickTime"`
export function nextBatchArguments(queue: string, consumer: string, options: BatchOptions): unknown[] {
  const interval = (given: Interval | undefined) => (given === undefined ? null : duration(given))
  return [queue, consumer, interval(options.minLag), options.minCount ?? null, interval(options.minInterval)]
}

/** Opens a consumer's next batch, or gives the one that it has open. An open batch stays so until it is finished.
 *
 * @returns undefined when there is nothing to do yet. A batch may be empty; it must be finished all the same
 * @throws NotSubscribedError (PQ002), InconsistentStateError (PQ011)
 * @remarks Waits while another transaction opens or finishes a batch of this consumer. Needs pgq_reader. */
export async function nextBatch(
  db: Connectable,
  queue: string,
  consumer: string,
  options: BatchOptions = {},
): Promise<Batch | undefined> {
  const [batch] = await rows<{ [K in keyof Batch]: Batch[K] | null }>(
    db,
    `select ${batchColumns} from pgq.next_batch_custom($1, $2, $3, $4, $5)`,
    nextBatchArguments(queue, consumer, options),
  )
  return batch && batch.id !== null ? (batch as Batch) : undefined
}

/** The events of an open batch by id: the same each time, as long as it is open.
 *
 * @throws BatchNotFoundError (PQ003)
 * @remarks Takes no locks beyond those of reading. Needs pgq_reader. */
export function batchEvents(db: Connectable, batch: bigint): Promise<QueueEvent[]> {
  return rows<QueueEvent & Record<string, unknown>>(db, `select ${eventColumns} from pgq.get_batch_events($1)`, [batch])
}

/** Has an event of an open batch delivered again, to this consumer alone, by the ticker's maintenance.
 *
 * @param after seconds from now, or the time before which it shall not come
 * @returns true when it was noted, false when it waits already
 * @throws BatchNotFoundError (PQ003), EventNotFoundError (PQ004)
 * @remarks Counts when the transaction commits: finish the batch in the same one. Needs pgq_reader. */
export async function retryEvent(
  db: Connectable,
  batch: bigint,
  event: bigint,
  after: number | Date,
): Promise<boolean> {
  const [type, when] = after instanceof Date ? ['timestamptz', after.toISOString()] : ['integer', Math.ceil(after)]
  return (await value<number>(db, `select pgq.event_retry($1, $2, $3::${type}) as value`, [batch, event, when])) === 1
}

/** Closes a batch: the consumer's position moves on.
 *
 * @throws BatchNotFoundError (PQ003) it is not open: then roll back what was done with its events, somebody else has done it
 * @remarks Waits while another transaction finishes it. Needs pgq_reader. */
export async function finishBatch(db: Connectable, batch: bigint): Promise<void> {
  if ((await value<number>(db, 'select pgq.finish_batch($1) as value', [batch])) === 1) return
  throw new SkytoolsError(
    'PQ003',
    `finish_batch: batch ${batch} not found`,
    'it was finished before, or its consumer was moved or unregistered: roll back what was done with its events',
  )
}
