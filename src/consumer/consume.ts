import type { Db } from '../db/db.ts'
import { type Connectable, toDb } from '../db/open.ts'
import { mapErrors } from '../errors.ts'
import {
  type Batch,
  type BatchOptions,
  batchEvents,
  finishBatch,
  nextBatch,
  type QueueEvent,
  retryEvent,
} from './batch.ts'

export interface BatchContext {
  readonly batch: Batch
  /** The batch's transaction: what is done through it commits together with the batch, or not at all. */
  readonly tx: Db
  /** Have an event delivered again after so many seconds, or at that time. */
  retry(event: QueueEvent, after: number | Date): Promise<void>
}

export type BatchHandler = (events: readonly QueueEvent[], context: BatchContext) => Promise<void>

export interface ConsumedBatch {
  readonly batch: Batch
  readonly events: number
  readonly retries: number
}

/** Consumes one batch in one transaction: opens it, gives its events to `handler`, finishes it. What the handler writes
 * through `context.tx` commits with the batch, so that each event takes effect once. When the handler throws, everything
 * is rolled back and the same events come again. An empty batch is finished without a call of the handler.
 *
 * @returns undefined when there was nothing to do yet
 * @throws what the handler throws
 * @throws NotSubscribedError (PQ002); BatchNotFoundError (PQ003) when the consumer was moved meanwhile
 * @remarks A second worker of the same consumer waits until the first has committed. Needs pgq_reader. */
export function consumeBatch(
  db: Connectable,
  queue: string,
  consumer: string,
  handler: BatchHandler,
  options: BatchOptions = {},
): Promise<ConsumedBatch | undefined> {
  return mapErrors(() =>
    toDb(db).transaction(async (tx) => {
      const batch = await nextBatch(tx, queue, consumer, options)
      if (!batch) return undefined
      const events = await batchEvents(tx, batch.id)
      let retries = 0
      const retry = async (event: QueueEvent, after: number | Date) => {
        if (await retryEvent(tx, batch.id, event.id, after)) retries += 1
      }
      if (events.length > 0) await handler(events, { batch, tx, retry })
      await finishBatch(tx, batch.id)
      return { batch, events: events.length, retries }
    }),
  )
}
