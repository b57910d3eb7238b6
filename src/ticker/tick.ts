import { value } from '../db/call.ts'
import type { Connectable } from '../db/open.ts'

/** Makes a tick for every queue that is due; queues that are paused, or ticked from elsewhere, are left out.
 *
 * @returns how many queues got one
 * @throws InconsistentStateError (PQ011) transaction ids have gone back: the database was restored into a younger cluster
 * @remarks A queue that another ticker is just ticking is left to it. Needs pgq_admin. */
export async function tick(db: Connectable): Promise<number> {
  return Number(await value<bigint>(db, 'select pgq.ticker() as value'))
}

/** Makes a tick for one queue, if it is due.
 *
 * @returns the tick's id; undefined when none was due
 * @throws QueueNotFoundError (PQ001), ExternalTickerError (PQ010) external or paused, InconsistentStateError (PQ011)
 * @remarks Waits for another ticker of the queue. Needs pgq_admin. */
export async function tickQueue(db: Connectable, queue: string): Promise<bigint | undefined> {
  return (await value<bigint | null>(db, 'select pgq.ticker($1) as value', [queue])) ?? undefined
}
