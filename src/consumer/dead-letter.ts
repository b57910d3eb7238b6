import { rows, value } from '../db/call.ts'
import type { Connectable } from '../db/open.ts'

/** An event that a consumer gave up. */
export interface DeadLetter {
  readonly queue: string
  readonly consumer: string
  /** When it was given up, and why. */
  readonly time: Date
  readonly error: string | null
  /** How often it was delivered. */
  readonly tries: number
  readonly id: bigint
  readonly eventTime: Date
  readonly type: string | null
  readonly data: string | null
  readonly extra1: string | null
  readonly extra2: string | null
  readonly extra3: string | null
  readonly extra4: string | null
}

export interface DeadLetterFilter {
  readonly consumer?: string | undefined
  /** The id of one event. */
  readonly event?: bigint | undefined
  /** Given up before this time. */
  readonly before?: Date | undefined
}

/** Puts an event of an open batch among the dead letters of its consumer.
 *
 * @param error why, for people
 * @throws BatchNotFoundError (PQ003), EventNotFoundError (PQ004)
 * @remarks Counts when the transaction commits: finish the batch in the same one. Needs pgq_reader. */
export async function buryEvent(db: Connectable, batch: bigint, event: bigint, error: string | null): Promise<void> {
  await value<number>(db, 'select pgq.event_dead($1, $2, $3) as value', [batch, event, error])
}

/** The dead letters, by queue, consumer and event.
 *
 * @param queue that queue alone; null: all
 * @param options.limit at most so many
 * @remarks Takes no locks beyond those of reading. Needs pgq_reader. */
export function deadLetters(
  db: Connectable,
  queue?: string | null,
  options: DeadLetterFilter & { readonly limit?: number | undefined } = {},
): Promise<DeadLetter[]> {
  const { consumer, event, before, limit } = options
  return rows<DeadLetter & Record<string, unknown>>(
    db,
    `select queue_name as queue, consumer_name as consumer, dead_time as time, error, tries, ev_id as id,
            ev_time as "eventTime", ev_type as type, ev_data as data, ev_extra1 as extra1, ev_extra2 as extra2,
            ev_extra3 as extra3, ev_extra4 as extra4
       from pgq.dead_letter
      where ($1::text is null or queue_name = $1) and ($2::text is null or consumer_name = $2)
        and ($3::bigint is null or ev_id = $3) and ($4::timestamptz is null or dead_time < $4)
      order by queue_name, consumer_name, ev_id limit $5`,
    [queue ?? null, consumer ?? null, event ?? null, before?.toISOString() ?? null, limit ?? null],
  )
}

/** Has dead letters delivered again, to their consumer alone, as if never tried, by the ticker's maintenance.
 *
 * @param event the id of one; else all that the consumer has in this queue
 * @returns how many
 * @throws NotSubscribedError (PQ002)
 * @remarks Needs pgq_admin. */
export function replayDeadLetters(db: Connectable, queue: string, consumer: string, event?: bigint): Promise<number> {
  return value<number>(db, 'select pgq.dead_letter_replay($1, $2, $3) as value', [queue, consumer, event ?? null])
}

/** Deletes dead letters for good.
 *
 * @returns how many
 * @remarks Needs pgq_admin. */
export function purgeDeadLetters(db: Connectable, queue: string, filter: DeadLetterFilter = {}): Promise<number> {
  const { consumer, event, before } = filter
  return value<number>(db, 'select pgq.dead_letter_purge($1, $2, $3, $4) as value', [
    queue,
    consumer ?? null,
    event ?? null,
    before?.toISOString() ?? null,
  ])
}
