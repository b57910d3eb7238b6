import type { QueueEvent } from '../consumer/batch.ts'
import { type BatchHandler, consumeBatch } from '../consumer/consume.ts'
import { rows, value } from '../db/call.ts'
import { type Connectable, toDb } from '../db/open.ts'
import { mapErrors, SkytoolsError } from '../errors.ts'
import { returnRetries } from '../ticker/maintain.ts'

/** Makes a tick now, whatever the queue's settings: what was committed so far is in the next batch.
 *
 * @returns the tick's id
 * @throws QueueNotFoundError (PQ001); ExternalTickerError (PQ010) the queue is paused, or ticked from elsewhere */
export function tickNow(connection: Connectable, queue: string): Promise<bigint> {
  return mapErrors(() =>
    toDb(connection).transaction(async (tx) => {
      // For the length of this transaction the queue is one that always ticks.
      const [before] = await rows<{ count: number; lag: string; idle: string }>(
        tx,
        `update pgq.queue q set queue_ticker_max_count = 1, queue_ticker_max_lag = '0', queue_ticker_idle_period = '0'
           from pgq.queue o where o.queue_id = q.queue_id and q.queue_name = $1
         returning o.queue_ticker_max_count as count, o.queue_ticker_max_lag::text as lag, o.queue_ticker_idle_period::text as idle`,
        [queue],
      )
      const tick = await value<bigint>(tx, 'select pgq.ticker($1) as value', [queue])
      await tx.query(
        `update pgq.queue set queue_ticker_max_count = $2, queue_ticker_max_lag = $3, queue_ticker_idle_period = $4
          where queue_name = $1`,
        [queue, before?.count, before?.lag, before?.idle],
      )
      return tick
    }),
  )
}

/** Ticks and consumes until nothing is left: what waits for a retry comes back as soon as it is due.
 *
 * @param handler as for `consumeBatch`; without one the events are only taken
 * @returns every event that was delivered, in order
 * @throws what the handler throws; NotSubscribedError (PQ002)
 * @remarks Retries that are due later are left. */
export async function drain(
  connection: Connectable,
  queue: string,
  consumer: string,
  handler: BatchHandler = async () => undefined,
): Promise<QueueEvent[]> {
  const delivered: QueueEvent[] = []
  const db = toDb(connection)
  for (let rounds = 0; rounds < 10_000; rounds += 1) {
    await returnRetries(db)
    await tickNow(db, queue)
    const before = delivered.length
    while (
      await consumeBatch(db, queue, consumer, async (events, context) => {
        await handler(events, context)
        delivered.push(...events)
      })
    );
    if (delivered.length === before) return delivered
  }
  throw new SkytoolsError(
    'PQ085',
    `queue ${queue} does not become empty: its handler puts in, or retries, as much as it takes out`,
    'look at what the handler inserts, or give its retries a delay',
  )
}
