import { rows, value } from '../db/call.ts'
import type { Connectable } from '../db/open.ts'
import { SkytoolsError } from '../errors.ts'
import { duration, type Interval } from '../queue/interval.ts'
import { type BatchOptions, eventColumns, type QueueEvent } from './batch.ts'

export interface CoopOptions extends BatchOptions {
  /** A worker without a sign of life for this long is dead: its batch goes to another one. */
  readonly deadInterval?: Interval | undefined
}

const interval = (given: Interval | undefined) => (given === undefined ? null : duration(given))

/** Gives a worker its next batch of a consumer that several workers share, or the one that it has open. Registers worker and
 * consumer where they are not.
 *
 * @returns the batch's id; undefined when there is nothing to do yet
 * @throws QueueNotFoundError (PQ001); CooperationError (PQ042) the consumer still works without subconsumers
 * @remarks One worker at a time is given a batch: commit before working on it. Needs pgq_reader. */
export async function nextCoopBatch(
  db: Connectable,
  queue: string,
  consumer: string,
  worker: string,
  options: CoopOptions = {},
): Promise<bigint | undefined> {
  const { minLag, minCount, minInterval, deadInterval } = options
  const batch = await value<bigint | null>(
    db,
    'select pgq_coop.next_batch_custom($1, $2, $3, $4, $5, $6, $7) as value',
    [queue, consumer, worker, interval(minLag), minCount ?? null, interval(minInterval), interval(deadInterval)],
  )
  return batch ?? undefined
}

/** Subscribes a consumer that keeps the order of events within a key, while different keys are worked on in parallel.
 *
 * @param partitions at most so many workers are busy at one time; it cannot change later
 * @param key `ev_type`, `ev_data`, `ev_extra1` … `ev_extra4`, or `ev_data.<name>` for a field of JSON data
 * @returns how many partitions were subscribed; 0: all were already
 * @throws QueueNotFoundError (PQ001), InvalidArgumentError (PQ008); CooperationError (PQ042) it has another key or count
 * @remarks Needs pgq_reader. */
export function registerPartitions(
  db: Connectable,
  queue: string,
  consumer: string,
  partitions: number,
  key = 'ev_extra1',
): Promise<number> {
  return value<number>(db, 'select pgq_coop.register_partitions($1, $2, $3, $4) as value', [
    queue,
    consumer,
    partitions,
    key,
  ])
}

/** Gives a worker the next batch of a partition that nobody is working on, or the batch that it has open.
 *
 * @returns the batch's id; undefined when there is nothing to do yet. Its events come from `coopBatchEvents()`
 * @throws NotSubscribedError (PQ002) the consumer is not partitioned
 * @remarks Waits for nobody. Needs pgq_reader. */
export async function nextPartition(
  db: Connectable,
  queue: string,
  consumer: string,
  worker: string,
  deadInterval?: Interval,
): Promise<bigint | undefined> {
  const params = [queue, consumer, worker, interval(deadInterval)]
  return (
    (await value<bigint | null>(db, 'select pgq_coop.next_partition($1, $2, $3, $4) as value', params)) ?? undefined
  )
}

/** The events of an open batch by id; of a partition's batch those that belong to the partition.
 *
 * @throws BatchNotFoundError (PQ003)
 * @remarks Needs pgq_reader. */
export function coopBatchEvents(db: Connectable, batch: bigint): Promise<QueueEvent[]> {
  return rows<QueueEvent & Record<string, unknown>>(db, `select ${eventColumns} from pgq_coop.get_batch_events($1)`, [
    batch,
  ])
}

/** Says that a worker which has a batch open is slow, not dead.
 *
 * @returns false when the batch is not open any more
 * @throws BatchTakenOverError (PQ019)
 * @remarks Needs pgq_reader. */
export async function touchBatch(db: Connectable, batch: bigint, worker: string): Promise<boolean> {
  return (await value<number>(db, 'select pgq_coop.touch($1, $2) as value', [batch, worker])) === 1
}

/** Closes a worker's batch.
 *
 * @throws BatchTakenOverError (PQ019) another worker has it, or BatchNotFoundError (PQ003) it is not open: roll back what was
 * done with its events
 * @remarks Waits while another worker takes it over. Needs pgq_reader. */
export async function finishCoopBatch(db: Connectable, batch: bigint, worker: string): Promise<void> {
  if ((await value<number>(db, 'select pgq_coop.finish_batch($1, $2) as value', [batch, worker])) === 1) return
  throw new SkytoolsError(
    'PQ003',
    `finish_batch: batch ${batch} not found`,
    'it was finished before, or its worker was unregistered: roll back what was done with its events',
  )
}

/** Ends a worker's part in a consumer's work.
 *
 * @param giveUp give up its open batch, whose events are then lost to the consumer; otherwise one refuses
 * @returns false when there is no such worker
 * @throws CooperationError (PQ042) it has a batch open
 * @remarks Needs pgq_reader. */
export async function unregisterWorker(
  db: Connectable,
  queue: string,
  consumer: string,
  worker: string,
  giveUp = false,
): Promise<boolean> {
  const params = [queue, consumer, worker, giveUp ? 1 : 0]
  return (await value<number>(db, 'select pgq_coop.unregister_subconsumer($1, $2, $3, $4) as value', params)) === 1
}
