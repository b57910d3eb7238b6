import { Counter, Gauge, Registry } from 'prom-client'
import { type Connectable, toDb } from '../db/open.ts'
import { type Status, status } from '../status/status.ts'
import type { Trouble } from '../status/troubles.ts'

type Label = 'database' | 'queue' | 'consumer'
type Sample = readonly [labels: Partial<Record<Label, string>>, value: number | bigint | null]

interface Metric {
  readonly name: string
  readonly help: string
  readonly labels: readonly Label[]
  readonly read: (found: Status) => readonly Sample[]
}

const ofQueue = ['database', 'queue'] as const
const ofConsumer = ['database', 'queue', 'consumer'] as const

/** Of each consumer, and of those that are no more but for their dead letters. */
function ofTroubles({ consumers, troubles }: Status, read: (trouble: Trouble) => number | bigint): Sample[] {
  const values = new Map(
    consumers.map(({ queue, consumer }) => [JSON.stringify([queue, consumer]), 0 as number | bigint]),
  )
  for (const trouble of troubles) values.set(JSON.stringify([trouble.queue, trouble.consumer]), read(trouble))
  return [...values].map(([key, value]) => {
    const [queue, consumer] = JSON.parse(key) as [string, string]
    return [{ queue, consumer }, value]
  })
}

/** Every metric, in the order in which it is printed. Names that end in _total only grow: counters. */
const metrics: readonly Metric[] = [
  {
    name: 'skytools_findings',
    help: 'How many things skytools status finds wrong',
    labels: ['database'],
    read: ({ findings }) => [[{}, findings.length]],
  },
  {
    name: 'skytools_queue_events_total',
    help: 'Event ids given out: events inserted, rolled back ones and retries among them',
    labels: ofQueue,
    read: ({ activity }) => activity.queues.map(({ queue, events }) => [{ queue }, events]),
  },
  {
    name: 'skytools_queue_ticks_total',
    help: 'Id of the newest tick',
    labels: ofQueue,
    read: ({ activity }) => activity.queues.map(({ queue, ticks }) => [{ queue }, ticks]),
  },
  {
    name: 'skytools_queue_bytes',
    help: 'Size of the event tables with their indexes',
    labels: ofQueue,
    read: ({ activity }) => activity.queues.map(({ queue, bytes }) => [{ queue }, bytes]),
  },
  {
    name: 'skytools_queue_ticker_lag_seconds',
    help: 'Time since the newest tick',
    labels: ofQueue,
    read: ({ queues }) => queues.map(({ queue, tickerLag }) => [{ queue }, tickerLag]),
  },
  {
    name: 'skytools_queue_new_events',
    help: 'Events since the newest tick',
    labels: ofQueue,
    read: ({ queues }) => queues.map(({ queue, newEvents }) => [{ queue }, newEvents]),
  },
  {
    name: 'skytools_queue_rotation_age_seconds',
    help: 'Time since the event tables rotated',
    labels: ofQueue,
    read: ({ queues }) => queues.map(({ queue, rotationAge }) => [{ queue }, rotationAge]),
  },
  {
    name: 'skytools_queue_rotation_period_seconds',
    help: 'How often the event tables shall rotate',
    labels: ofQueue,
    read: ({ queues }) => queues.map(({ queue, config }) => [{ queue }, config.rotationPeriod]),
  },
  {
    name: 'skytools_queue_retry_events',
    help: 'Events that wait for a retry',
    labels: ofQueue,
    read: ({ queues, retries }) =>
      retries
        ? queues.map(({ queue }) => [{ queue }, retries.find((entry) => entry.queue === queue)?.waiting ?? 0])
        : [],
  },
  {
    name: 'skytools_consumer_events_total',
    help: 'Event id up to which the consumer has consumed',
    labels: ofConsumer,
    read: ({ activity }) => activity.consumers.map(({ queue, consumer, events }) => [{ queue, consumer }, events]),
  },
  {
    name: 'skytools_consumer_lag_seconds',
    help: 'Time since the tick up to which the consumer has consumed',
    labels: ofConsumer,
    read: ({ consumers }) => consumers.map(({ queue, consumer, lag }) => [{ queue, consumer }, lag]),
  },
  {
    name: 'skytools_consumer_pending_events',
    help: 'Events up to the newest tick that the consumer has not consumed: an estimate from above',
    labels: ofConsumer,
    read: ({ consumers }) =>
      consumers.map(({ queue, consumer, pendingEvents }) => [{ queue, consumer }, pendingEvents]),
  },
  {
    name: 'skytools_consumer_last_seen_seconds',
    help: 'Time since the consumer opened or finished a batch',
    labels: ofConsumer,
    read: ({ consumers }) => consumers.map(({ queue, consumer, lastSeen }) => [{ queue, consumer }, lastSeen]),
  },
  {
    name: 'skytools_consumer_paused',
    help: '1 while the consumer is paused',
    labels: ofConsumer,
    read: (found) => ofTroubles(found, ({ paused }) => (paused === null ? 0 : 1)),
  },
  {
    name: 'skytools_consumer_batch_failures',
    help: 'How often in a row the batch of the consumer has failed',
    labels: ofConsumer,
    read: (found) => ofTroubles(found, ({ failures }) => failures),
  },
  {
    name: 'skytools_consumer_dead_letters',
    help: 'Dead letters of the consumer',
    labels: ofConsumer,
    read: (found) => ofTroubles(found, ({ deadLetters }) => deadLetters),
  },
  {
    name: 'skytools_oldest_transaction_seconds',
    help: 'Age of the oldest transaction in the cluster that holds a snapshot or a transaction id',
    labels: ['database'],
    read: ({ transactions }) => [[{}, transactions[0]?.age ?? 0]],
  },
]

export interface Metrics {
  /** Of prom-client: give it to what serves metrics already, such as an application's own endpoint. */
  readonly registry: Registry
  /** All metrics in the text format of Prometheus, read from the databases now. */
  text(): Promise<string>
}

export interface MetricsOptions {
  /** By the name that the label `database` shows. */
  readonly databases: Readonly<Record<string, Connectable>>
  /** A database that could not be read; its `skytools_up` is 0 then, and it has no other metric. */
  readonly onError?: (error: unknown, database: string) => void
}

/** Metrics of queues and consumers for Prometheus.
 *
 * @remarks Each reading runs what `status()` runs, once for each database. It takes no locks. */
export function createMetrics({ databases, onError }: MetricsOptions): Metrics {
  const registry = new Registry()
  let reading: Promise<unknown> | undefined
  // prom-client asks each metric for itself; all that are asked at once share one reading.
  const collect = async () => {
    reading ??= readAll().finally(() => {
      reading = undefined
    })
    await reading
  }
  const readAll = () => {
    for (const { clear } of [...targets, up]) clear()
    return Promise.all(Object.entries(databases).map(([database, connection]) => read(database, connection)))
  }
  const read = async (database: string, connection: Connectable) => {
    try {
      const found = await status(toDb(connection))
      for (const { read, set } of targets) {
        for (const [labels, value] of read(found)) if (value !== null) set({ database, ...labels }, Number(value))
      }
      up.set({ database }, 1)
    } catch (error) {
      up.set({ database }, 0)
      onError?.(error, database)
    }
  }
  const target = ({ name, help, labels, read }: Metric) => {
    const options = { name, help, labelNames: labels, registers: [registry], collect }
    if (!name.endsWith('_total')) {
      const gauge = new Gauge(options)
      return { read, clear: () => gauge.reset(), set: (of: Sample[0], value: number) => gauge.set(of, value) }
    }
    const counter = new Counter(options)
    return { read, clear: () => counter.reset(), set: (of: Sample[0], value: number) => counter.inc(of, value) }
  }
  const up = target({
    name: 'skytools_up',
    help: 'Whether the database could be read',
    labels: ['database'],
    read: () => [],
  })
  const targets = metrics.map(target)
  return { registry, text: () => registry.metrics() }
}
