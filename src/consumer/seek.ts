import { value } from '../db/call.ts'
import type { Connectable } from '../db/open.ts'

/** Gives a consumer no batch until it is resumed; a worker that holds one may finish it. Its queue cannot rotate past it.
 *
 * @returns true when it is paused now, false when it was already
 * @throws NotSubscribedError (PQ002)
 * @remarks Needs pgq_reader. */
export async function pauseConsumer(db: Connectable, queue: string, consumer: string): Promise<boolean> {
  return (await value<number>(db, 'select pgq.pause_consumer($1, $2) as value', [queue, consumer])) === 1
}

/** Lets a paused consumer go on where it was.
 *
 * @returns true when it goes on, false when it was not paused
 * @throws NotSubscribedError (PQ002)
 * @remarks Needs pgq_reader. */
export async function resumeConsumer(db: Connectable, queue: string, consumer: string): Promise<boolean> {
  return (await value<number>(db, 'select pgq.resume_consumer($1, $2) as value', [queue, consumer])) === 1
}

/** Moves a consumer back or forward in its queue, as far as the events are still there; a batch that it has open is dropped.
 *
 * @param to a tick's id, after which its events begin; or a time: it gets what was committed since the tick before that
 * @returns the tick
 * @throws NotSubscribedError (PQ002); TickNotFoundError (PQ005), which names the oldest place there is
 * @remarks Locks the queue's row FOR SHARE and the consumer's row until the transaction ends. Needs pgq_reader. */
export function seekConsumer(db: Connectable, queue: string, consumer: string, to: bigint | Date): Promise<bigint> {
  const [type, place] = to instanceof Date ? ['timestamptz', to.toISOString()] : ['bigint', to]
  return value<bigint>(db, `select pgq.seek_consumer($1, $2, $3::${type}) as value`, [queue, consumer, place])
}
