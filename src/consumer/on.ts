import type { StandardSchemaV1 } from '@standard-schema/spec'
import { SkytoolsError } from '../errors.ts'
import type { EventContext, EventHandler } from './options.ts'

/** A handler for events whose data is JSON of a known shape.
 *
 * @param schema of any library that speaks Standard Schema (standardschema.dev): Zod, Valibot, ArkType …
 * @param handle gets what the schema makes of the data, with its type
 * @remarks Data that does not fit, or is no JSON, makes the event a dead letter at once (EventInvalidError, PQ070): no further
 * try would help. */
export function on<Schema extends StandardSchemaV1>(
  schema: Schema,
  handle: (value: StandardSchemaV1.InferOutput<Schema>, context: EventContext) => unknown,
): EventHandler {
  return async (event, context) => {
    const result = await schema['~standard'].validate(parse(event.data))
    if (result.issues) throw eventInvalid(result.issues.map(describe).join('; '))
    return handle(result.value as StandardSchemaV1.InferOutput<Schema>, context)
  }
}

function parse(data: string | null): unknown {
  if (data === null) return null
  try {
    return JSON.parse(data)
  } catch (error) {
    throw eventInvalid(`no JSON: ${error instanceof Error ? error.message : String(error)}`)
  }
}

function describe({ message, path = [] }: StandardSchemaV1.Issue): string {
  const keys = path.map((part) => String(typeof part === 'object' ? part.key : part))
  return keys.length > 0 ? `${keys.join('.')}: ${message}` : message
}

function eventInvalid(reason: string): SkytoolsError {
  return new SkytoolsError('PQ070', `ev_data is invalid: ${reason}`, 'see who produces it, or widen the schema')
}

/** One handler out of several by event type; `'*'` is for types without one.
 *
 * @remarks A type without any makes the event a dead letter at once (EventTypeUnknownError, PQ071), to be replayed when
 * there is one. */
export function byType(handlers: Readonly<Record<string, EventHandler>>): EventHandler {
  const known = new Map(Object.entries(handlers))
  return (event, context) => {
    const handle = (event.type !== null && known.get(event.type)) || known.get('*')
    if (!handle)
      throw new SkytoolsError(
        'PQ071',
        `no handler for events of type ${event.type}`,
        `give one in handlers, or one for '*'; then: skytools dlq replay`,
      )
    return handle(event, context)
  }
}
