import { parse } from 'yaml'
import { z } from 'zod'
import { SkytoolsError } from '../errors.ts'

const seconds = z.number().positive()
const name = z.string().min(1)

const source = z.union([
  z.strictObject({
    /** What its events say about where they come from. */
    name,
    url: name,
  }),
  z.strictObject({
    /** Any database of the server: where the others are looked up. */
    server: name,
    /** A pattern of database names: * and ? stand for any text and any character. */
    databases: name,
  }),
])

const route = z.strictObject({
  /** Patterns; those left out fit all. */
  source: name.optional(),
  queue: name.optional(),
  type: name.optional(),
  extra1: name.optional(),
  extra2: name.optional(),
  extra3: name.optional(),
  extra4: name.optional(),
  /** The destination queue; {source} and {queue} stand for where the event comes from, {type} and {extra1} … for its fields. */
  to: name,
})

const schema = z.strictObject({
  /** Where the events come from. */
  sources: z.array(source).min(1),
  /** Where they go; without it each source is its own target. */
  target: name.optional(),
  /** The first that fits decides where an event goes. */
  routes: z.array(route).min(1),
  /** What becomes of an event that no route fits: `error` stops at its batch, `drop` leaves it out. */
  unmatched: z.enum(['error', 'drop']).default('error'),
  /** The consumer's name at the sources, and in pgq_ext at the target. */
  consumer: name.default('mover'),
  /** Where a new subscription begins: at the newest tick, or at the oldest that is still there. */
  start: z.enum(['newest', 'oldest']).default('newest'),
  /** The field that tells an event's origin, where the event has nothing in it itself. */
  origin: z.enum(['extra1', 'extra2', 'extra3', 'extra4', 'none']).default('extra4'),
  /** Create destination queues that are missing. */
  createQueues: z.boolean().default(false),
  /** Connections to sources at one time. */
  connections: z.int().positive().default(16),
  /** Connections to the target. */
  targetConnections: z.int().positive().default(4),
  /** Events read and written at one time: bounds the memory. */
  chunk: z.int().positive().default(2000),
  /** Seconds between two looks at a source that had nothing. */
  poll: seconds.default(1),
  /** Seconds between two looks for new databases and queues. */
  refresh: seconds.default(60),
  /** Seconds to wait after the first failure of a source, and at most. */
  retry: z.strictObject({ min: seconds.default(1), max: seconds.default(60) }).prefault({}),
})

/** What a mover moves, from where to where. */
export type MoverConfig = z.output<typeof schema>
/** As it is written: what has a default may be left out. */
export type MoverOptions = z.input<typeof schema>

/** Checks a configuration and fills in the defaults.
 *
 * @throws MoverConfigError (PQ060) names each key that is wrong */
export function moverConfig(options: unknown): MoverConfig {
  const result = schema.safeParse(options)
  if (result.success) return result.data
  throw new SkytoolsError(
    'PQ060',
    `mover configuration: ${z.prettifyError(result.error)}`,
    'see docs/mover.md',
    result.error,
  )
}

/** Reads a configuration from YAML or JSON; ${NAME} in a string stands for an environment variable.
 *
 * @throws MoverConfigError (PQ060) */
export function parseMoverConfig(text: string, environment: Readonly<Record<string, string | undefined>>): MoverConfig {
  let parsed: unknown
  try {
    parsed = parse(text)
  } catch (error) {
    throw new SkytoolsError('PQ060', `mover configuration: ${String(error)}`, 'it must be YAML or JSON', error)
  }
  return moverConfig(expand(parsed, environment))
}

function expand(value: unknown, environment: Readonly<Record<string, string | undefined>>): unknown {
  if (Array.isArray(value)) return value.map((item) => expand(item, environment))
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, expand(item, environment)]))
  }
  if (typeof value !== 'string') return value
  return value.replaceAll(/\$\{(\w+)\}/g, (_, variable: string) => {
    const found = environment[variable]
    if (found === undefined) {
      throw new SkytoolsError('PQ060', `mover configuration: \${${variable}} is not set`, `export ${variable}=…`)
    }
    return found
  })
}
