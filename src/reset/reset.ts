import type { Db } from '../db/db.ts'
import { type Connectable, toDb } from '../db/open.ts'
import { mapErrors } from '../errors.ts'
import type { Interval } from '../queue/interval.ts'
import { install, type SchemaChange, schemaStatus, uninstall } from '../schema/install.ts'
import { preflight } from '../schema/preflight.ts'
import { protection, refuseProtected } from './protect.ts'
import { type Wiped, wipe } from './wipe.ts'

/** What creates the application's queues again: SQL, or a function. */
export type Seed = string | ((db: Db) => Promise<unknown>)

export interface ResetOptions {
  /** Runs after the install. */
  readonly seed?: Seed | undefined
  /** The name of the database, needed where it is protected. It stays protected. */
  readonly database?: string | undefined
  /** How long to wait for transactions that are using the queues; by default 5 seconds. */
  readonly lockTimeout?: Interval | undefined
  /** Only tell what would go. */
  readonly dryRun?: boolean | undefined
}

export interface ResetResult {
  readonly wiped: readonly Wiped[]
  /** Of the install; undefined for a dry run. */
  readonly installed: SchemaChange | undefined
  readonly seconds: number
}

/** A clean start: drops all queues, removes the schemas, installs them anew and runs the seed. Ids begin at 1 again.
 *
 * @throws ProtectedError (PQ021), InUseError (PQ022), OtherDatabaseError (PQ023); ForeignSchemaError (PQ030) the schemas are
 * not of `install`: where the application's own migrations made them, those undo and make them
 * @remarks Each part is a transaction: should one fail, run it again. */
export function reset(connection: Connectable, options: ResetOptions = {}): Promise<ResetResult> {
  const { seed, database, lockTimeout, dryRun } = options
  return mapErrors(async () => {
    const started = performance.now()
    const db = toDb(connection)
    await preflight(db)
    await refuseProtected(db, 'reset', database)
    const { installed: before } = await schemaStatus(db)
    const reason = before ? await protection(db) : undefined
    const wiped = before ? await wipe(db, { database, lockTimeout, dryRun }) : []
    let installed: SchemaChange | undefined
    if (!dryRun) {
      if (before) await uninstall(db, { force: true, database })
      installed = await install(db)
      if (reason !== undefined) await db.query('select skytools.protect($1)', [reason])
      if (typeof seed === 'string') await db.exec(seed)
      else if (seed) await seed(db)
    }
    return { wiped, installed, seconds: (performance.now() - started) / 1000 }
  })
}
