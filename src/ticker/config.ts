import { z } from 'zod'
import { SkytoolsError } from '../errors.ts'

const seconds = z.number().positive()
const name = z.string().min(1)

const schema = z
  .strictObject({
    /** URLs of the databases to tick. */
    databases: z.array(name).min(1).optional(),
    /** Or the URL of any database of a cluster: all of its databases that have skytools are ticked, those made later too. */
    cluster: name.optional(),
    /** Of the cluster only these. */
    only: z.array(name).optional(),
    /** Seconds between ticks, rounds of retries, and rounds of maintenance. */
    period: seconds.default(1),
    retryPeriod: seconds.default(30),
    maintenancePeriod: seconds.default(120),
    /** Seconds between looks for new databases, and for skytools in those without. */
    checkPeriod: seconds.default(60),
    /** Seconds for which due ticks may be missing before a ticker in waiting pushes the leading one aside. */
    takeover: seconds.default(5),
    /** Listens to producers of queues with wake-up on. */
    listen: z.boolean().default(true),
    /** Prepares its statements: not behind a pooler of transactions, where a ticker cannot lead either. */
    prepare: z.boolean().default(true),
    /** Seconds to wait after the first failure of a database, and at most. */
    retry: z.strictObject({ min: seconds.default(0.5), max: seconds.default(30) }).prefault({}),
  })
  .refine(({ databases, cluster }) => (databases === undefined) !== (cluster === undefined), {
    message: 'give either databases or cluster',
  })
  .refine(({ cluster, only }) => only === undefined || cluster !== undefined, { message: 'only needs cluster' })

/** What a ticker ticks, and how often. */
export type TickerConfig = z.output<typeof schema>
/** As it is written: what has a default may be left out. */
export type TickerDaemonOptions = z.input<typeof schema>

/** Checks a configuration and fills in the defaults.
 *
 * @throws TickerConfigError (PQ080) names each key that is wrong */
export function tickerConfig(options: unknown): TickerConfig {
  const result = schema.safeParse(options)
  if (result.success) return result.data
  throw new SkytoolsError('PQ080', `ticker configuration: ${z.prettifyError(result.error)}`, 'see docs/ticker.md')
}
