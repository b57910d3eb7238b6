import { metrics, SpanStatusCode, trace } from '@opentelemetry/api'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createConsumer, insertEvent } from '../../../src/index.ts'
import { databases } from '../../support/databases.ts'
import { busyQueue, tick } from '../../support/queues.ts'

interface Recorded {
  readonly name: string
  readonly attributes: Record<string, unknown>
  status?: number
  ended?: boolean
}
const spans: Recorded[] = []
const counted: Record<string, number> = {}

/** What an application's SDK would register, as far as it is called. */
beforeAll(() => {
  const startSpan = (name: string, { attributes }: { attributes: Record<string, unknown> }) => {
    const span: Recorded = { name, attributes: { ...attributes } }
    spans.push(span)
    return {
      setAttributes: (more: object) => Object.assign(span.attributes, more),
      setStatus: ({ code }: { code: number }) => {
        span.status = code
      },
      recordException: () => undefined,
      isRecording: () => true,
      end: () => {
        span.ended = true
      },
    }
  }
  trace.setGlobalTracerProvider({ getTracer: () => ({ startSpan }) } as never)
  const count = (name: string) => ({
    add: (n: number) => {
      counted[name] = (counted[name] ?? 0) + n
    },
    record: () => {
      counted[name] = (counted[name] ?? 0) + 1
    },
  })
  metrics.setGlobalMeterProvider({ getMeter: () => ({ createCounter: count, createHistogram: count }) } as never)
})
afterAll(() => {
  trace.disable()
  metrics.disable()
})

describe.each(databases.slice(0, 1))('telemetry of a consumer on $name', ({ open }) => {
  it('is a span for each batch, also for one that fails, and counters of its events', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    for (const data of ['1', '2']) await insertEvent(db, 'q', { data })
    await tick(db, 'q')
    let fail = true
    const consumer = createConsumer({
      db,
      queue: 'q',
      consumer: 'c',
      batchHandler: (events, { retry }) => {
        if (fail) throw new TypeError('not yet')
        for (const event of events.slice(1)) retry(event, 60)
      },
    })
    await expect(consumer.once()).rejects.toThrow('not yet')
    fail = false
    await consumer.once()
    const common = { 'messaging.destination.name': 'q', 'messaging.consumer.group.name': 'c' }
    expect(spans).toMatchObject([
      { name: 'process q', ended: true, status: SpanStatusCode.ERROR, attributes: common },
      { name: 'process q', ended: true, attributes: { ...common, 'messaging.batch.message_count': 2 } },
    ])
    expect(counted).toEqual({
      'messaging.client.consumed.messages': 2,
      'messaging.process.duration': 2,
      'skytools.consumer.retries': 1,
      'skytools.consumer.dead_letters': 0,
    })
  })
})
