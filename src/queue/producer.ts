import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { Connectable } from '../db/open.ts'
import { SkytoolsError } from '../errors.ts'
import { insertEventAt, insertEventOnce } from './delayed.ts'
import { insertEvent, insertEvents, type NewEvent } from './events.ts'
import type { Interval } from './interval.ts'

/** What each type of event has for data: a schema of any library that speaks Standard Schema. */
export type EventSchemas = Readonly<Record<string, StandardSchemaV1>>

/** An event of one of these types, with data that fits. */
export type TypedEvent<Schemas extends EventSchemas> = {
  [Type in keyof Schemas & string]: Omit<NewEvent, 'type' | 'data'> & {
    readonly type: Type
    readonly data: StandardSchemaV1.InferInput<Schemas[Type]>
  }
}[keyof Schemas & string]

export interface ProducerOptions<Schemas extends EventSchemas> {
  readonly queue: string
  /** By event type; without them any event may be put in. */
  readonly schemas?: Schemas | undefined
}

/** Puts events into one queue. Each method takes the transaction that the event shall be part of: a pg client, a PGlite or its
 * transaction, or a transaction of Kysely, Drizzle, Knex or Prisma. */
export interface Producer<Event> {
  /** See `insertEvent`. */
  insert(tx: Connectable, event: Event): Promise<bigint>
  /** See `insertEvents`. */
  insertMany(tx: Connectable, events: readonly Event[]): Promise<bigint[]>
  /** See `insertEventAt`. */
  insertAt(tx: Connectable, time: Date, event: Event): Promise<bigint>
  /** See `insertEventOnce`. */
  insertOnce(tx: Connectable, key: string, window: Interval, event: Event): Promise<bigint | null>
}

/** A producer for one queue, whose events are checked before they are stored when there are schemas. Data is stored as what the schema
 * takes, not as what it makes of it: the consumer's schema does that.
 *
 * @throws each method: EventInvalidError (PQ070), EventTypeUnknownError (PQ071), and what the function of its name throws */
export function createProducer(options: { readonly queue: string; readonly schemas?: undefined }): Producer<NewEvent>
export function createProducer<Schemas extends EventSchemas>(
  options: ProducerOptions<Schemas> & { readonly schemas: Schemas },
): Producer<TypedEvent<Schemas>>
export function createProducer({ queue, schemas }: ProducerOptions<EventSchemas>): Producer<NewEvent> {
  const check = async (event: NewEvent): Promise<void> => {
    if (!schemas) return
    const schema = Object.hasOwn(schemas, event.type ?? '') ? schemas[event.type ?? ''] : undefined
    if (!schema)
      throw new SkytoolsError('PQ071', `queue ${queue} has no events of type ${event.type}`, 'add it to the schemas')
    const { issues } = await schema['~standard'].validate(event.data)
    if (issues)
      throw new SkytoolsError(
        'PQ070',
        `data of a ${event.type} event: ${issues.map(({ message }) => message).join('; ')}`,
        'give what the schema asks for',
      )
  }
  return {
    async insert(tx, event) {
      await check(event)
      return insertEvent(tx, queue, event)
    },
    async insertMany(tx, events) {
      for (const event of events) await check(event)
      return insertEvents(tx, queue, events)
    },
    async insertAt(tx, time, event) {
      await check(event)
      return insertEventAt(tx, queue, time, event)
    },
    async insertOnce(tx, key, window, event) {
      await check(event)
      return insertEventOnce(tx, queue, key, window, event)
    },
  }
}
