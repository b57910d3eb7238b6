import { rows, value } from '../db/call.ts'
import type { Connectable } from '../db/open.ts'
import { seconds } from '../queue/interval.ts'

export interface RegisterOptions {
  /** Id of the tick after which its events begin; moves a consumer that is subscribed already, and drops its open batch. */
  readonly at?: bigint | undefined
}

/** Subscribes a consumer to a queue: it gets every event that is committed after the queue's newest tick.
 *
 * @returns true when it is new, false when it was subscribed
 * @throws QueueNotFoundError (PQ001), TickNotFoundError (PQ005), NoTickError (PQ012)
 * @remarks Locks the queue's row FOR SHARE and the consumer's row until the transaction ends. Needs pgq_reader. */
export async function registerConsumer(
  db: Connectable,
  queue: string,
  consumer: string,
  options: RegisterOptions = {},
): Promise<boolean> {
  const params = [queue, consumer, options.at ?? null]
  return (await value<number>(db, 'select pgq.register_consumer_at($1, $2, $3) as value', params)) === 1
}

/** Ends a consumer's subscription; its open batch and the events that wait for a retry are given up.
 *
 * @returns how many subscriptions ended, subconsumers included; 0 when there was none
 * @remarks Locks the subscription's and the consumer's row until the transaction ends. Needs pgq_reader. */
export function unregisterConsumer(db: Connectable, queue: string, consumer: string): Promise<number> {
  return value<number>(db, 'select pgq.unregister_consumer($1, $2) as value', [queue, consumer])
}

export interface ConsumerInfo {
  readonly queue: string
  readonly consumer: string
  /** Seconds since the tick up to which it has consumed; null for a subconsumer without a batch. */
  readonly lag: number | null
  /** Seconds since it opened or finished a batch. */
  readonly lastSeen: number
  readonly lastTick: bigint | null
  /** The open batch, and the tick that ends it. */
  readonly batch: bigint | null
  readonly nextTick: bigint | null
  /** Events up to the newest tick that it has not consumed: an estimate from above. */
  readonly pendingEvents: bigint | null
}

/** State of the subscriptions, by queue and consumer.
 *
 * @param queue that queue alone; null: all
 * @param consumer that consumer alone
 * @remarks Takes no locks. Everybody may call it. */
export function consumerInfo(db: Connectable, queue?: string | null, consumer?: string): Promise<ConsumerInfo[]> {
  return rows<ConsumerInfo & Record<string, unknown>>(
    db,
    `select queue_name as queue, consumer_name as consumer, ${seconds('lag')} as lag, ${seconds('last_seen')} as "lastSeen",
            last_tick as "lastTick", current_batch as batch, next_tick as "nextTick", pending_events as "pendingEvents"
       from pgq.get_consumer_info($1, $2)`,
    [queue ?? null, consumer ?? null],
  )
}
