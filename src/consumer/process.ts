import pLimit from 'p-limit'
import { rows } from '../db/call.ts'
import type { Db, Row } from '../db/db.ts'
import { mapErrors, SkytoolsError } from '../errors.ts'
import { pause } from './backoff.ts'
import { type Batch, finishBatch, nextBatch, type QueueEvent, retryEvent } from './batch.ts'
import { finishCoopBatch, nextCoopBatch } from './coop.ts'
import { buryEvent } from './dead-letter.ts'
import { guard } from './guard.ts'
import { withinLimits } from './limits.ts'
import { byType } from './on.ts'
import type { ConsumerListeners, EventHandler, EventsHandler, HandledBatch, Settings } from './options.ts'
import { openBatch, readBatch } from './read.ts'
import type { Telemetry } from './telemetry.ts'

export interface Work {
  readonly db: Db
  readonly settings: Settings
  readonly listeners: ConsumerListeners
  /** Gives up the batch in hand. */
  readonly signal: AbortSignal
  /** Failures of the batch in a row, so far. */
  readonly failures: number
  readonly onOpen?: (batch: Batch) => void
  readonly telemetry: Telemetry
}

/** What becomes of an event that its handler has not dealt with. */
type Fate = { readonly event: QueueEvent } & ({ readonly after: number } | { readonly reason: string })

/** What is done with a part of a batch; gives the events that need something more. */
type Step = (tx: Db, batch: Batch, events: readonly QueueEvent[]) => Promise<Fate[]>

/** Handles the next batch, if there is one.
 *
 * Transactional: opening it (except a cooperative worker's), what the handlers write, retries, dead letters and finishing are
 * one transaction. Otherwise the handlers run outside, and only what comes after them is one transaction.
 *
 * @returns undefined when there is none
 * @throws what a batch handler throws; the signal's reason */
export function processBatch(work: Work): Promise<HandledBatch | undefined> {
  const { db, settings, onOpen, telemetry } = work
  return mapErrors(async () => {
    if (!settings.transactional || settings.coop) {
      const batch = await open(db, settings)
      if (!batch) return undefined
      onOpen?.(batch)
      return telemetry.batch(batch, () =>
        settings.transactional
          ? db.transaction((tx) => handle(work, tx, batch, readBatch(tx, batch.id, settings.chunk)))
          : handleOutside(work, batch),
      )
    }
    return db.transaction(async (tx) => {
      const opened = await openBatch(tx, settings.queue, settings.consumer, settings.batch, settings.chunk)
      if (!opened) return undefined
      onOpen?.(opened.batch)
      return telemetry.batch(opened.batch, () => handle(work, tx, opened.batch, opened.parts))
    })
  })
}

async function handle(work: Work, tx: Db, batch: Batch, parts: AsyncGenerator<QueueEvent[]>): Promise<HandledBatch> {
  const { settings } = work
  // A statement that hangs in the handler's name would hold up the rollback too.
  if (settings.timeout !== undefined)
    await tx.query(`select set_config('statement_timeout', $1, true)`, [`${Math.ceil(settings.timeout * 1000)}`])
  const step = stepOf(work)
  const counts = { events: 0, retries: 0, dead: 0 }
  for await (const events of parts) {
    counts.events += events.length
    add(counts, await settle(tx, batch, await step(tx, batch, events)))
  }
  await finish(tx, settings, batch)
  return { batch, ...counts }
}

async function handleOutside(work: Work, batch: Batch): Promise<HandledBatch> {
  const { db, settings } = work
  const step = stepOf(work)
  const fates: Fate[] = []
  let count = 0
  const read = async (tx: Db) => {
    for await (const events of readBatch(tx, batch.id, settings.chunk)) {
      count += events.length
      fates.push(...(await step(db, batch, events)))
    }
  }
  if (db.pooled) await db.transaction(read)
  else {
    // The only connection is the handler's: the events are read first.
    const all = await db.transaction(async (tx) => {
      const parts: QueueEvent[][] = []
      for await (const events of readBatch(tx, batch.id, settings.chunk)) parts.push(events)
      return parts
    })
    for (const events of all) {
      count += events.length
      fates.push(...(await step(db, batch, events)))
    }
  }
  const settled = await db.transaction(async (tx) => {
    const done = await settle(tx, batch, fates)
    await finish(tx, settings, batch)
    return done
  })
  return { batch, events: count, ...settled }
}

function stepOf(work: Work): Step {
  const { batchHandler, handlers, handler, transactional, batchAttempts } = work.settings
  const single = handler ?? (handlers && byType(handlers))
  if (single) return transactional ? oneByOne(work, single) : atOnce(work, single)
  if (!batchHandler) throw new Error('settings() lets no consumer without a handler through')
  return work.failures < batchAttempts ? together(work, batchHandler) : isolated(work, batchHandler)
}

/** Each event in a savepoint of its own, in order. */
function oneByOne(work: Work, handler: EventHandler): Step {
  return async (tx, batch, events) => {
    const fates: Fate[] = []
    for (const event of events) {
      const { db, keep, undo, close } = guard(tx, true)
      try {
        const fate = await callFor(work, handler, db, batch, event)
        await (fate.failed ? undo() : keep())
        fates.push(...fate.fates)
      } finally {
        close()
      }
    }
    return fates
  }
}

/** So many events at a time, outside of any transaction. */
function atOnce(work: Work, handler: EventHandler): Step {
  const limit = pLimit(work.settings.concurrency)
  return async (db, batch, events) => {
    const called = await Promise.allSettled(
      events.map((event) => limit(() => callFor(work, handler, db, batch, event))),
    )
    // Nothing may go on behind the back of what comes next: all have ended when the first reason to stop is thrown.
    const stopped = called.find((result) => result.status === 'rejected')
    if (stopped) throw stopped.reason
    return called.flatMap((result) => (result.status === 'fulfilled' ? result.value.fates : []))
  }
}

/** All events of the part in one call. */
function together(work: Work, handler: EventsHandler): Step {
  return async (tx, batch, events) => {
    const fates: Fate[] = []
    const { db, keep } = guard(tx, false)
    try {
      await withinLimits(work.signal, work.settings.timeout, (signal) =>
        handler(events, {
          ...{ batch, tx: db, signal, attempt: work.failures + 1 },
          retry: (event, after) => fates.push({ event, after }),
          bury: (event, reason) => fates.push({ event, reason }),
        }),
      )
    } finally {
      await keep()
    }
    return fates
  }
}

/** The batch has failed as a whole too often: its events one by one, so that only those suffer which are to blame. */
function isolated(work: Work, handler: EventsHandler): Step {
  const single: EventHandler = (event, context) =>
    handler([event], {
      ...{ batch: context.batch, tx: context.tx, signal: context.signal, attempt: work.failures + 1 },
      retry: (_, after) => context.retry(after),
      bury: (_, reason) => context.bury(reason),
    })
  return work.settings.transactional ? oneByOne(work, single) : atOnce(work, single)
}

async function callFor(
  { settings, listeners, telemetry, signal: stop }: Work,
  handler: EventHandler,
  tx: Db,
  batch: Batch,
  event: QueueEvent,
): Promise<{ failed: boolean; fates: Fate[] }> {
  const attempt = event.retry + 1
  const fates: Fate[] = []
  try {
    await telemetry.event(event, () =>
      withinLimits(stop, settings.timeout, (signal) =>
        handler(event, {
          ...{ event, batch, tx, signal, attempt },
          retry: (after) => fates.splice(0, 1, { event, after }),
          bury: (reason) => fates.splice(0, 1, { event, reason }),
        }),
      ),
    )
    return { failed: false, fates }
  } catch (error) {
    if (stop.aborted) throw error
    if (hopeless(error) || attempt >= settings.retry.limit) {
      listeners.onDead?.(event, error)
      return { failed: true, fates: [{ event, reason: describe(error) }] }
    }
    const after = pause(settings.retry, attempt)
    listeners.onRetry?.(event, error, after)
    return { failed: true, fates: [{ event, after }] }
  }
}

/** No further try would end otherwise. */
function hopeless(error: unknown): boolean {
  return error instanceof SkytoolsError && (error.code === 'PQ070' || error.code === 'PQ071')
}

export function describe(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error)
}

async function settle(tx: Db, batch: Batch, fates: readonly Fate[]): Promise<{ retries: number; dead: number }> {
  const counts = { retries: 0, dead: 0 }
  for (const fate of fates) {
    if ('after' in fate) {
      await retryEvent(tx, batch.id, fate.event.id, fate.after)
      counts.retries += 1
    } else {
      await buryEvent(tx, batch.id, fate.event.id, fate.reason)
      counts.dead += 1
    }
  }
  return counts
}

function add(counts: { retries: number; dead: number }, more: { retries: number; dead: number }): void {
  counts.retries += more.retries
  counts.dead += more.dead
}

async function open(db: Db, { queue, consumer, coop, batch }: Settings): Promise<Batch | undefined> {
  if (!coop) return nextBatch(db, queue, consumer, batch)
  const { worker, deadInterval } = coop
  const id = await nextCoopBatch(db, queue, consumer, worker, { ...batch, deadInterval })
  if (id === undefined) return undefined
  const [info] = await rows<Omit<Batch, 'id'> & Row>(
    db,
    `select tick_id as tick, prev_tick_id as "previousTick", batch_end as "tickTime", batch_start as "previousTickTime"
       from pgq.get_batch_info($1)`,
    [id],
  )
  return info && { ...info, id }
}

function finish(tx: Db, { coop }: Settings, batch: Batch): Promise<void> {
  return coop ? finishCoopBatch(tx, batch.id, coop.worker) : finishBatch(tx, batch.id)
}
