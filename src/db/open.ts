import pg from 'pg'
import type { Db } from './db.ts'
import { type Foreign, foreignDb, isForeign } from './foreign.ts'
import { type DefaultParser, isPool, type PgClient, type PgPool, pgDb, survive } from './pg.ts'
import {
  isPglite,
  isPgliteTransaction,
  type Pglite,
  type PgliteTransaction,
  pgliteDb,
  pgliteTransactionDb,
} from './pglite.ts'

/** What every function of skytools takes as its first argument. */
export type Connectable = Db | PgPool | PgClient | PgliteTransaction | Foreign

const defaults = pg.types.getTypeParser as unknown as DefaultParser

function isDb(value: Connectable): value is Db {
  return 'kind' in value && 'exec' in value && 'transaction' in value
}

/** The caller's connection as a Db: closing that Db leaves the connection open. */
export function toDb(connection: Connectable): Db {
  if (isDb(connection)) return connection
  if (isPglite(connection)) return pgliteDb(connection)
  if (isForeign(connection)) return foreignDb(connection)
  if (isPgliteTransaction(connection)) return pgliteTransactionDb(connection)
  return pgDb(isPool(connection) ? connection : connection, defaults)
}

export interface OpenOptions {
  /** Connections at one time. */
  readonly max?: number
  /** Seconds after which a connection that is not used is closed. */
  readonly idleSeconds?: number
}

/** A pool on a server; for 'pglite:<folder>' a PGlite kept there; without a URL an empty PGlite in memory. */
export async function openDb(url: string | undefined, options: OpenOptions = {}): Promise<Db> {
  if (url === undefined || url.startsWith('pglite:')) {
    // Loaded when it is needed, which is seldom in an application.
    const { PGlite } = await import('@electric-sql/pglite')
    const pglite = await PGlite.create(url?.slice('pglite:'.length) || 'memory://')
    return pgliteDb(pglite as unknown as Pglite, () => pglite.close())
  }
  // 'postgres://' alone leaves everything to the PG* variables.
  const where = url === 'postgres://' ? {} : { connectionString: url }
  const { max, idleSeconds } = options
  const pool = new pg.Pool({
    ...where,
    application_name: 'skytools',
    ...(max !== undefined && { max }),
    ...(idleSeconds !== undefined && { idleTimeoutMillis: idleSeconds * 1000 }),
  })
  // An idle connection that breaks is dropped by the pool; without a listener it would end the process.
  pool.on('error', (error) => process.emitWarning(error))
  pool.on('connect', (client) => survive(client as unknown as PgClient))
  try {
    const client = await pool.connect()
    client.release()
  } catch (error) {
    await pool.end()
    throw error
  }
  return pgDb(pool as unknown as PgPool, defaults, () => pool.end())
}
