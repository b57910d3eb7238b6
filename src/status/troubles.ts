import { rows } from '../db/call.ts'
import type { Db, Row } from '../db/db.ts'

/** A consumer that stands still by intent or by failing, or has given events up. */
export interface Trouble {
  readonly queue: string
  readonly consumer: string
  /** Seconds since it was paused; null: it is not. */
  readonly paused: number | null
  /** How often in a row its batch has failed, with the last error; 0: it has not. */
  readonly failures: number
  readonly error: string | null
  /** Seconds since the first of those failures; null: it has not failed. */
  readonly failing: number | null
  readonly deadLetters: bigint
  /** Seconds since the newest of them; null: there is none. */
  readonly lastDead: number | null
}

/** The consumers with a trouble. Where the role may not read failures and dead letters (pgq_reader may), only the paused ones. */
export async function troubles(db: Db): Promise<Trouble[]> {
  const [right] = await rows<{ readable: boolean }>(
    db,
    `select has_table_privilege('pgq.consumer_failure', 'select') and has_table_privilege('pgq.dead_letter', 'select') as readable`,
  )
  const readable = `where ${right?.readable ?? false}`
  return rows<Trouble & Row>(
    db,
    `with named as (
       select q.queue_name as queue, c.co_name as consumer, s.sub_key from pgq.subscriber s
         join pgq.queue q on q.queue_id = s.sub_queue join pgq.consumer c on c.co_id = s.sub_consumer),
     all_of as (
       select n.queue, n.consumer, extract(epoch from now() - p.paused_time)::float8 as paused, 0 as failures,
              null::text as error, null::float8 as failing, 0 as dead, null::float8 as last_dead
         from pgq.paused_consumer p join named n using (sub_key)
       union all
       select n.queue, n.consumer, null, f.attempts, f.error, extract(epoch from now() - f.first_time)::float8, 0, null
         from (select * from pgq.consumer_failure ${readable}) f join named n using (sub_key)
       union all
       select d.queue_name, d.consumer_name, null, 0, null, null, count(*), extract(epoch from now() - max(d.dead_time))::float8
         from (select * from pgq.dead_letter ${readable}) d group by 1, 2)
     select queue, consumer, max(paused) as paused, max(failures) as failures, max(error) as error, max(failing) as failing,
            sum(dead)::bigint as "deadLetters", min(last_dead) as "lastDead"
       from all_of group by 1, 2 order by 1, 2`,
  )
}
