import { rows } from '../db/call.ts'
import type { Connectable } from '../db/open.ts'

/** Counters that only grow, from which a reader makes rates: by queue, and by consumer. */
export interface Activity {
  readonly queues: readonly QueueActivity[]
  readonly consumers: readonly ConsumerActivity[]
}

export interface QueueActivity {
  readonly queue: string
  /** Event ids given out so far: events inserted, those rolled back and those that came back for a retry among them. */
  readonly events: bigint
  readonly ticks: bigint
  /** Of all its event tables, with indexes. */
  readonly bytes: bigint
}

export interface ConsumerActivity {
  readonly queue: string
  readonly consumer: string
  /** The queue's event id up to which it has consumed; null for a subconsumer without a batch. */
  readonly events: bigint | null
}

/** What queues and consumers have done so far.
 *
 * @remarks Takes no locks. Everybody may call it. */
export async function activity(db: Connectable): Promise<Activity> {
  const queues = await rows<QueueActivity & Record<string, unknown>>(
    db,
    `select i.queue_name as queue, t.tick_event_seq + i.ev_new as events, i.last_tick_id as ticks,
            (select sum(pg_total_relation_size(h.inhrelid))::bigint from pg_inherits h
              where h.inhparent = q.queue_data_pfx::regclass) as bytes
       from pgq.get_queue_info() i join pgq.queue q using (queue_name)
       join pgq.tick t on t.tick_queue = q.queue_id and t.tick_id = i.last_tick_id
      order by i.queue_name`,
  )
  const consumers = await rows<ConsumerActivity & Record<string, unknown>>(
    db,
    `select q.queue_name as queue, c.co_name as consumer, t.tick_event_seq as events
       from pgq.subscription s join pgq.queue q on q.queue_id = s.sub_queue join pgq.consumer c on c.co_id = s.sub_consumer
       left join pgq.tick t on t.tick_queue = s.sub_queue and t.tick_id = s.sub_last_tick
      order by q.queue_name, c.co_name`,
  )
  return { queues, consumers }
}
