import { type Batch, finishBatch, nextBatch, type QueueEvent } from '../consumer/batch.ts'
import { readBatch } from '../consumer/read.ts'
import { value } from '../db/call.ts'
import type { Db } from '../db/db.ts'
import { insertEvents } from '../queue/events.ts'
import type { MoverConfig } from './config.ts'
import type { Origin, Router } from './route.ts'

export interface Move {
  readonly origin: Origin
  readonly source: Db
  /** Undefined: the destination queues are in the source database. */
  readonly target: Db | undefined
  readonly router: Router
  readonly config: Pick<MoverConfig, 'consumer' | 'chunk' | 'origin'>
  /** What tells this queue from any other in pgq_ext, a later one of the same name too. */
  readonly identity: string
}

export interface MovedBatch {
  readonly batch: bigint
  /** By destination queue. */
  readonly events: ReadonlyMap<string, number>
}

/** Moves one batch, exactly once whatever is killed when.
 *
 * To another database: the events and the note in pgq_ext that the batch is done commit together there; a batch that is
 * noted but not finished is only finished. Within one database all of it is one transaction.
 *
 * @returns undefined when there was none */
export function moveBatch(move: Move): Promise<MovedBatch | undefined> {
  return move.target ? across(move, move.target) : within(move)
}

async function across(move: Move, target: Db): Promise<MovedBatch | undefined> {
  const { source, origin, config, identity } = move
  const batch = await nextBatch(source, origin.queue, config.consumer)
  if (!batch) return undefined
  const events = await target.transaction(async (tx) => {
    // First, because it locks: a second mover with the same batch waits here, and then finds it done.
    const isNew = await value<boolean>(tx, 'select pgq_ext.set_batch_done($1, $2, $3) as value', [
      config.consumer,
      identity,
      batch.id,
    ])
    return isNew ? source.transaction((reader) => copy(move, batch, reader, tx)) : new Map<string, number>()
  })
  await finishBatch(source, batch.id)
  return { batch: batch.id, events }
}

function within(move: Move): Promise<MovedBatch | undefined> {
  const { source, origin, config } = move
  return source.transaction(async (tx) => {
    const batch = await nextBatch(tx, origin.queue, config.consumer)
    if (!batch) return undefined
    const events = await copy(move, batch, tx, tx)
    await finishBatch(tx, batch.id)
    return { batch: batch.id, events }
  })
}

async function copy(move: Move, batch: Batch, reader: Db, writer: Db): Promise<Map<string, number>> {
  const counts = new Map<string, number>()
  for await (const part of readBatch(reader, batch.id, move.config.chunk)) {
    for (const [queue, events] of byDestination(move, part)) {
      await insertEvents(writer, queue, events)
      counts.set(queue, (counts.get(queue) ?? 0) + events.length)
    }
  }
  return counts
}

function byDestination({ router, origin, config }: Move, events: readonly QueueEvent[]): Map<string, QueueEvent[]> {
  const groups = new Map<string, QueueEvent[]>()
  for (const event of events) {
    const queue = router.destination(origin, event)
    if (queue === undefined) continue
    const group = groups.get(queue)
    const moved =
      config.origin === 'none'
        ? event
        : { ...event, [config.origin]: event[config.origin] ?? noteOrigin(origin, event) }
    if (group) group.push(moved)
    else groups.set(queue, [moved])
  }
  return groups
}

/** Where an event was first: JSON, as names may hold any character. */
function noteOrigin({ source, queue }: Origin, { id, time }: QueueEvent): string {
  return JSON.stringify({ source, queue, id: Number(id), time: time.toISOString() })
}
