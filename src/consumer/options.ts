import type { Db } from '../db/db.ts'
import type { Connectable } from '../db/open.ts'
import { SkytoolsError } from '../errors.ts'
import type { Backoff } from './backoff.ts'
import type { Batch, BatchOptions, QueueEvent } from './batch.ts'

export interface HandlerContext {
  readonly batch: Batch
  /** The consumer's transaction: what is written through it commits with the batch, so that each event takes effect once.
   * Without `transactional` it is the `db` of the consumer, and an event may be handled again after a crash. */
  readonly tx: Db
  /** Aborted when the handler has taken too long, when the consumer shall end, or when another worker has the batch. */
  readonly signal: AbortSignal
}

export interface EventContext extends HandlerContext {
  readonly event: QueueEvent
  /** 1 at the first delivery. */
  readonly attempt: number
  /** Has the event delivered again after so many seconds; it counts as handled now. */
  retry(after: number): void
  /** Puts the event among the dead letters. */
  bury(reason: string): void
}

/** Handles one event; when it throws, the event is retried, and what it wrote through `tx` is undone. */
export type EventHandler = (event: QueueEvent, context: EventContext) => unknown

export interface EventsContext extends HandlerContext {
  /** 1 at the first delivery of the batch to this process. */
  readonly attempt: number
  retry(event: QueueEvent, after: number): void
  bury(event: QueueEvent, reason: string): void
}

/** Handles the events of a batch, `chunk` of them at a time; when it throws, the whole batch comes again. */
export type EventsHandler = (events: readonly QueueEvent[], context: EventsContext) => unknown

export interface CoopWorker {
  /** This worker's name, its own among the consumer's workers. */
  readonly worker: string
  /** Seconds without a sign of life after which another worker takes its batch; default 60. */
  readonly deadInterval?: number | undefined
  /** Seconds between signs of life; default a quarter of deadInterval. */
  readonly heartbeat?: number | undefined
}

/** How to deal with an event whose handler throws. */
export interface RetryOptions extends Backoff {
  /** Deliveries after which the event becomes a dead letter; default 10. */
  readonly limit?: number | undefined
}

export interface ConsumerOptions extends BatchOptions {
  /** A pool, for anything beyond one transaction at a time; or one connection, or a PGlite. */
  readonly db: Connectable
  readonly queue: string
  readonly consumer: string
  /** Exactly one of the three: for each event, */
  readonly handler?: EventHandler | undefined
  /** for each event by its type, `'*'` for all other types, */
  readonly handlers?: Readonly<Record<string, EventHandler>> | undefined
  /** for many events at a time. */
  readonly batchHandler?: EventsHandler | undefined
  /** Handlers write through the transaction that finishes the batch: exactly once. False: at least once. Default true. */
  readonly transactional?: boolean | undefined
  /** Shares the consumer's batches with other workers. */
  readonly coop?: CoopWorker | undefined
  /** Subscribes the consumer where it is not; default true. */
  readonly register?: boolean | undefined
  /** Events that are fetched, and handed to `batchHandler`, at a time; default 5000. */
  readonly chunk?: number | undefined
  /** Events that are handled at a time; above 1 only without `transactional`. Default 1. */
  readonly concurrency?: number | undefined
  /** Seconds that one call of a handler may take; default: as long as it likes. */
  readonly timeout?: number | undefined
  /** Seconds between looks for a batch while there is none; default 0.5. */
  readonly poll?: number | undefined
  /** Is told of ticks where the queue has wake-up on, by one connection of the pool that all its consumers share; default
   * true. False where notifications do not come through, as behind a pooler of transactions. */
  readonly listen?: boolean | undefined
  /** Prepares its statements; default true. False behind a pooler of transactions that knows no prepared statements. */
  readonly prepare?: boolean | undefined
  /** Seconds that the batch in hand has to end after the signal; then it is rolled back, to come again. Default 30. */
  readonly drain?: number | undefined
  readonly retry?: RetryOptions | undefined
  /** Failures of a batch in a row after which `batchHandler` gets its events one by one, so that only those that fail are
   * retried; default 3. */
  readonly batchAttempts?: number | undefined
  /** Pause after a batch, or the connection, has failed. */
  readonly backoff?: Backoff | undefined
}

export interface ConsumerListeners {
  readonly onBatch?: (batch: HandledBatch) => void
  readonly onRetry?: (event: QueueEvent, error: unknown, after: number) => void
  readonly onDead?: (event: QueueEvent, error: unknown) => void
  /** A batch failed, or the connection; it is tried again after so many seconds. */
  readonly onError?: (error: unknown, after: number) => void
}

export interface HandledBatch {
  readonly batch: Batch
  readonly events: number
  readonly retries: number
  readonly dead: number
}

export type Settings = ReturnType<typeof settings>

const nonEmpty = (name: string, value: string) => {
  if (typeof value !== 'string' || value === '') throw invalid(`${name} is missing`, `give the name of the ${name}`)
}

/** With the defaults; throws ConsumerOptionError (PQ074). */
export function settings(options: ConsumerOptions) {
  const { handler, handlers, batchHandler, transactional = true, concurrency = 1, coop } = options
  nonEmpty('queue', options.queue)
  nonEmpty('consumer', options.consumer)
  if ([handler, handlers, batchHandler].filter((given) => given !== undefined).length !== 1)
    throw invalid('a consumer needs exactly one of handler, handlers and batchHandler', 'leave the others out')
  if (concurrency > 1 && (transactional || batchHandler))
    throw invalid(
      `concurrency ${concurrency} needs transactional: false and a handler for single events`,
      'one transaction does one thing at a time; cooperative workers share a queue instead: coop',
    )
  if (coop) nonEmpty('worker', coop.worker)
  const numbers = {
    chunk: options.chunk ?? 5000,
    concurrency,
    poll: options.poll ?? 0.5,
    drain: options.drain ?? 30,
    batchAttempts: options.batchAttempts ?? 3,
    timeout: options.timeout,
    'retry.limit': options.retry?.limit ?? 10,
    'coop.deadInterval': coop?.deadInterval,
    'coop.heartbeat': coop?.heartbeat,
  }
  for (const [name, value] of Object.entries(numbers)) {
    const whole = ['chunk', 'concurrency', 'batchAttempts', 'retry.limit'].includes(name)
    if (value === undefined || (value > 0 && (!whole || Number.isInteger(value))) || (name === 'drain' && value === 0))
      continue
    throw invalid(`${name} is ${value}`, `give ${whole ? 'a whole number' : 'seconds'} above 0`)
  }
  const { chunk, poll, drain, batchAttempts, timeout } = numbers
  return {
    ...{ queue: options.queue, consumer: options.consumer, handler, handlers, batchHandler },
    ...{ transactional, concurrency, chunk, poll, drain, batchAttempts, timeout },
    register: options.register ?? true,
    listen: options.listen ?? true,
    batch: { minLag: options.minLag, minCount: options.minCount, minInterval: options.minInterval },
    retry: { ...options.retry, limit: options.retry?.limit ?? 10 },
    backoff: { max: 60, ...options.backoff },
    coop: coop && workerSettings(coop),
  }
}

function workerSettings({ worker, deadInterval = 60, heartbeat = deadInterval / 4 }: CoopWorker) {
  return { worker, deadInterval, heartbeat }
}

function invalid(message: string, hint: string): SkytoolsError {
  return new SkytoolsError('PQ074', message, hint)
}
