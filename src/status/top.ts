import type { Status } from './status.ts'

/** A consumer's or queue's rate over the time between two looks. */
export interface Rates {
  /** Events/s put in, by queue. */
  readonly in: ReadonlyMap<string, number>
  /** Events/s consumed; the key is `consumerKey()`. */
  readonly out: ReadonlyMap<string, number>
}

export function consumerKey({ queue, consumer }: { readonly queue: string; readonly consumer: string }): string {
  return JSON.stringify([queue, consumer])
}

/** Rates between two looks at the same database.
 *
 * @param seconds between them */
export function rates(earlier: Status, later: Status, seconds: number): Rates {
  const before = new Map(earlier.activity.queues.map(({ queue, events }) => [queue, events]))
  const consumed = new Map(earlier.activity.consumers.map((entry) => [consumerKey(entry), entry.events]))
  return {
    in: new Map(
      later.activity.queues.flatMap(({ queue, events }) => {
        const from = before.get(queue)
        return from === undefined ? [] : [[queue, Number(events - from) / seconds] as const]
      }),
    ),
    out: new Map(
      later.activity.consumers.flatMap((entry) => {
        const from = consumed.get(consumerKey(entry))
        if (from === undefined || from === null || entry.events === null) return []
        return [[consumerKey(entry), Number(entry.events - from) / seconds] as const]
      }),
    ),
  }
}
