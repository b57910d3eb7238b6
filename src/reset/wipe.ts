import { rows } from '../db/call.ts'
import type { Connectable } from '../db/open.ts'
import { duration, type Interval } from '../queue/interval.ts'

/** Something that went, or would go. */
export interface Wiped {
  readonly kind: 'capture' | 'subconsumer' | 'consumer' | 'queue'
  readonly queue: string
  readonly name: string
}

export interface WipeOptions {
  /** Queues whose names are like it: % stands for any text, _ for any character, a backslash before them for themselves. */
  readonly pattern?: string | undefined
  /** The name of the database, needed where it is protected. */
  readonly database?: string | undefined
  /** How long to wait for transactions that are using the queues; by default 5 seconds. */
  readonly lockTimeout?: Interval | undefined
  /** Only tell what would go. */
  readonly dryRun?: boolean | undefined
}

/** Drops queues with all that belongs to them: events, captures, consumers, subconsumers and their open batches; all or nothing.
 * Producers and consumers may be connected: they are told that there is no such queue.
 *
 * @returns what went, or would go, in that order
 * @throws ProtectedError (PQ021), InUseError (PQ022) names who is using them, OtherDatabaseError (PQ023)
 * @remarks Locks the set of queues, and their tables ACCESS EXCLUSIVE. Needs pgq_admin. */
export function wipe(db: Connectable, options: WipeOptions = {}): Promise<Wiped[]> {
  const { pattern = '%', database, lockTimeout = 5, dryRun } = options
  return dryRun
    ? rows<Wiped & Record<string, unknown>>(db, 'select kind, queue, name from skytools.wipe_list($1)', [pattern])
    : rows<Wiped & Record<string, unknown>>(db, 'select kind, queue, name from skytools.wipe($1, $2, $3)', [
        pattern,
        database ?? null,
        duration(lockTimeout),
      ])
}

/** A pattern that only this name is like. */
export function exactly(queue: string): string {
  return queue.replaceAll(/[\\%_]/g, String.raw`\$&`)
}
