import { type Bell, bell } from '../db/bell.ts'
import { rows, value } from '../db/call.ts'
import { prepared } from '../db/db.ts'
import { connectionLost, transient } from '../db/lost.ts'
import { toDb } from '../db/open.ts'
import { mapErrors, SkytoolsError } from '../errors.ts'
import { pause } from './backoff.ts'
import type { Batch } from './batch.ts'
import { registerConsumer } from './consumer.ts'
import { touchBatch, unregisterWorker } from './coop.ts'
import { type ConsumerListeners, type ConsumerOptions, type HandledBatch, settings } from './options.ts'
import { pace } from './pace.ts'
import { describe, processBatch } from './process.ts'
import { telemetry } from './telemetry.ts'

export interface ConsumerStats {
  readonly batches: number
  readonly events: number
  readonly retries: number
  readonly dead: number
  /** Failures in a row, of the batch or the connection; 0: all is well. */
  readonly failures: number
}

export interface Consumer {
  /** Handles batches until the signal. The batch in hand is ended, within the seconds of `drain`.
   *
   * @throws only what no further try mends: NotSubscribedError (PQ002) without `register`, QueueNotFoundError (PQ001),
   * CooperationError (PQ042) */
  run(signal: AbortSignal): Promise<void>
  /** Handles what there is now, and ends.
   *
   * @throws what a batch handler throws */
  once(): Promise<ConsumerStats>
  stats(): ConsumerStats
}

/** Errors after which the consumer ends, rather than trying the same for ever. */
const fatal = ['PQ001', 'PQ002', 'PQ035', 'PQ042']

/** A consumer that handles events of a queue as they come: fetches batches, calls handlers, retries what fails with growing
 * pauses, puts what fails for good among the dead letters, and survives the loss of its connection.
 *
 * Exactly once: with `transactional` (the default) a handler that writes through `context.tx` has each event take effect once,
 * as its writes commit with the batch. Anything else that a handler does (a mail, a call of another service) may happen again
 * after a crash: at least once.
 *
 * @throws ConsumerOptionError (PQ074)
 * @remarks Needs pgq_reader. See docs/consumers.md. */
export function createConsumer(options: ConsumerOptions & ConsumerListeners): Consumer {
  const config = settings(options)
  const { queue, consumer, coop } = config
  const db = options.prepare === false ? toDb(options.db) : prepared(toDb(options.db))
  const { onBatch, onError } = options
  const subscription = coop ? `${consumer}.${coop.worker}` : consumer
  const traced = telemetry(queue, consumer)
  const counts = { batches: 0, events: 0, retries: 0, dead: 0 }
  let failures = 0
  let opened = false
  let registered = !config.register
  // What an earlier process has noted is cleared by the first success.
  let noted = true

  // Who has said how large batches shall be gets them so.
  const wanted = config.batch.minCount !== undefined || config.batch.minInterval !== undefined
  const speed = pace(config.chunk)

  const prepare = async (): Promise<void> => {
    if (registered) return
    if (!coop) await registerConsumer(db, queue, consumer)
    registered = true
  }
  const count = (done: HandledBatch): void => {
    counts.batches += 1
    counts.events += done.events
    counts.retries += done.retries
    counts.dead += done.dead
    onBatch?.(done)
  }
  const succeeded = async (): Promise<void> => {
    failures = 0
    if (!noted) return
    await mapErrors(() => value(db, 'select pgq.clear_failure($1, $2) as value', [queue, subscription]))
    noted = false
  }
  const failed = async (error: unknown): Promise<void> => {
    failures += 1
    speed.missed()
    if (connectionLost(error) || transient(error)) return
    noted = true
    // Whoever looks at the queue shall see it; that it cannot be noted is no reason to give up.
    await value(db, 'select pgq.note_failure($1, $2, $3) as value', [queue, subscription, describe(error)]).catch(
      () => undefined,
    )
  }
  /** Handles one batch; returns whether there was one. */
  const step = async (stop: AbortSignal): Promise<boolean> => {
    opened = false
    await prepare()
    // Not AbortSignal.any(): of a signal that lives on, it keeps something for each batch.
    const lost = new AbortController()
    const end = () => lost.abort(stop.reason)
    stop.addEventListener('abort', end)
    if (stop.aborted) end()
    let beat: NodeJS.Timeout | undefined
    const onOpen = ({ id }: Batch) => {
      opened = true
      if (coop && db.pooled) beat = setInterval(() => void touch(id, coop.worker, lost), coop.heartbeat * 1000)
    }
    try {
      const work = {
        db,
        settings: config,
        listeners: options,
        signal: lost.signal,
        failures,
        onOpen,
        telemetry: traced,
      }
      const minCount = wanted ? undefined : speed.minCount()
      let done: HandledBatch | undefined
      if (minCount !== undefined)
        done = await processBatch({ ...work, settings: { ...config, batch: { ...config.batch, minCount } } })
      if (minCount !== undefined && !done) speed.missed()
      done ??= await processBatch(work)
      if (!done) {
        speed.missed()
        return false
      }
      speed.handled(done.events)
      await succeeded()
      count(done)
      return true
    } finally {
      clearInterval(beat)
      stop.removeEventListener('abort', end)
    }
  }
  /** A sign of life of a cooperative worker. Where it comes too late, the work is given up. */
  const touch = async (batch: bigint, worker: string, lost: AbortController): Promise<void> => {
    try {
      await touchBatch(db, batch, worker)
    } catch (error) {
      if (error instanceof SkytoolsError && error.code === 'PQ019') lost.abort(error)
    }
  }

  /** Ticks of the queue ring, where it has wake-up on; where nothing can be heard, the consumer only polls. */
  const hear = async (ticked: Bell): Promise<() => Promise<void>> => {
    const nothing = async () => undefined
    if (!config.listen || (db.kind === 'pg' && !db.pooled)) return nothing
    const [found] = await rows<{ id: number }>(db, 'select queue_id as id from pgq.queue where queue_name = $1', [
      queue,
    ])
    const ring = (payload: string | undefined) => {
      if (payload === undefined || payload === String(found?.id)) ticked.ring()
    }
    return db.listen('pgq_tick', ring).catch(() => nothing)
  }

  const run = async (given: AbortSignal): Promise<void> => {
    // Its own: many consumers may share one, and Node takes many listeners for a leak.
    const signal = AbortSignal.any([given])
    const stop = new AbortController()
    let late: NodeJS.Timeout | undefined
    const drain = () => {
      const reason = new Error(`the consumer was to end, and its batch has not within ${config.drain} s`)
      late = setTimeout(() => stop.abort(reason), config.drain * 1000)
    }
    signal.addEventListener('abort', drain, { once: true })
    const ticked = bell()
    let deaf: (() => Promise<void>) | undefined
    try {
      while (!signal.aborted) {
        try {
          ticked.clear()
          if (await step(stop.signal)) continue
          deaf ??= await hear(ticked)
          await ticked.wait(config.poll, signal)
        } catch (error) {
          // The same error out of a handler is the handler's.
          if (!opened && error instanceof SkytoolsError && fatal.includes(error.code)) throw error
          if (stop.signal.aborted) break
          await failed(error)
          const after = pause(config.backoff, failures)
          onError?.(error, after)
          await bell().wait(after, signal)
        }
      }
    } finally {
      clearTimeout(late)
      signal.removeEventListener('abort', drain)
      await deaf?.()
      if (coop) await unregisterWorker(db, queue, consumer, coop.worker).catch(() => undefined)
    }
  }

  const once = async (): Promise<ConsumerStats> => {
    const { signal } = new AbortController()
    try {
      while (await step(signal));
    } catch (error) {
      await failed(error)
      throw error
    }
    return stats()
  }
  const stats = (): ConsumerStats => ({ ...counts, failures })
  return { run, once, stats }
}
