import { type Attributes, context, metrics, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import type { Batch, QueueEvent } from './batch.ts'
import type { HandledBatch } from './options.ts'

/** Spans and metrics of a consumer, named as OpenTelemetry's conventions for messaging have it. Where the application has no
 * OpenTelemetry they go nowhere.
 *
 * @see https://opentelemetry.io/docs/specs/semconv/messaging/ */
export interface Telemetry {
  /** A span from the opening of a batch to its end, and what came of its events. */
  batch(batch: Batch, work: () => Promise<HandledBatch>): Promise<HandledBatch>
  /** A span for one event, where its batch's is recorded. */
  event<T>(event: QueueEvent, work: () => Promise<T>): Promise<T>
}

export function telemetry(queue: string, consumer: string): Telemetry {
  const attributes = {
    'messaging.system': 'skytools',
    'messaging.operation.name': 'process',
    'messaging.operation.type': 'process',
    'messaging.destination.name': queue,
    'messaging.consumer.group.name': consumer,
  }
  const inSpan = async <T>(name: string, more: Attributes, work: (end: (more: Attributes) => void) => Promise<T>) => {
    const span = trace.getTracer('skytools').startSpan(name, {
      kind: SpanKind.CONSUMER,
      attributes: { ...attributes, ...more },
    })
    try {
      return await context.with(trace.setSpan(context.active(), span), () => work((last) => span.setAttributes(last)))
    } catch (error) {
      span.recordException(error instanceof Error ? error : String(error))
      span.setStatus({ code: SpanStatusCode.ERROR, message: String(error) })
      throw error
    } finally {
      span.end()
    }
  }
  return {
    async batch(batch, work) {
      const { handled, duration, retried, buried } = instruments()
      const started = performance.now()
      const failed: Attributes = {}
      try {
        return await inSpan(`process ${queue}`, { 'skytools.batch.id': String(batch.id) }, async (end) => {
          const done = await work()
          end({ 'messaging.batch.message_count': done.events })
          handled.add(done.events, attributes)
          retried.add(done.retries, attributes)
          buried.add(done.dead, attributes)
          return done
        })
      } catch (error) {
        failed['error.type'] = error instanceof Error ? error.name : 'other'
        throw error
      } finally {
        duration.record((performance.now() - started) / 1000, { ...attributes, ...failed })
      }
    },
    event: (event, work) =>
      trace.getActiveSpan()?.isRecording()
        ? inSpan(`process ${queue} ${event.type ?? ''}`.trim(), { 'messaging.message.id': String(event.id) }, work)
        : work(),
  }
}

function make() {
  const meter = metrics.getMeter('skytools')
  return {
    handled: meter.createCounter('messaging.client.consumed.messages', { unit: '{message}' }),
    duration: meter.createHistogram('messaging.process.duration', { unit: 's' }),
    retried: meter.createCounter('skytools.consumer.retries', { unit: '{message}' }),
    buried: meter.createCounter('skytools.consumer.dead_letters', { unit: '{message}' }),
  }
}

let made: ReturnType<typeof make> | undefined

/** Made at the first batch: the application has set its telemetry up by then. */
function instruments() {
  made ??= make()
  return made
}
