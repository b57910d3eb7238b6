import type { RunnerOption } from 'node-pg-migrate'
import type { Db } from '../db/db.ts'
import { SkytoolsError, toSkytoolsError } from '../errors.ts'
import { migrationsDirectory, packageRoot } from './bundle.ts'

export interface Step {
  readonly direction: 'up' | 'down'
  readonly count: number
  readonly root?: string | undefined
}

type MigrationClient = Extract<RunnerOption, { dbClient: unknown }>['dbClient']

/** Runs steps of migrations/ by node-pg-migrate, inside a transaction that is open, and returns their names. */
export async function runSteps(tx: Db, step: Step, onWarning: (message: string) => void): Promise<string[]> {
  const { direction, count, root = packageRoot() } = step
  if (count === 0) return []
  try {
    // Loaded when it is needed: most processes never migrate.
    const { runner } = await import('node-pg-migrate')
    const done = await runner({
      dbClient: migrationClient(tx, onWarning),
      dir: migrationsDirectory(root),
      ignorePattern: '(?!.*\\.sql).*',
      direction,
      count,
      migrationsSchema: 'skytools',
      migrationsTable: 'migrations',
      createMigrationsSchema: true,
      singleTransaction: true,
      checkOrder: true,
      // The caller holds a lock of ours to the end of the transaction.
      noLock: true,
      logger: silent,
    })
    return done.map(({ name }) => name)
  } catch (error) {
    throw stepError(error)
  }
}

/** The driver's error, thrown on as ours, says what node-pg-migrate would log. */
const silent = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined }

/** A Db as node-pg-migrate wants a pg Client. It is in a transaction: begin and commit are the caller's. */
function migrationClient(tx: Db, onWarning: (message: string) => void): MigrationClient {
  const query = async (text: string): Promise<{ rows: unknown[] }> => {
    if (/^(begin|commit|rollback);?$/i.test(text)) return { rows: [] }
    if (/^select\s/i.test(text)) return { rows: await tx.query(text) }
    await tx.exec(text, {
      onNotice: ({ severity, message }) => {
        if (severity === 'WARNING' || (severity === 'NOTICE' && !message.endsWith(', skipping'))) onWarning(message)
      },
    })
    return { rows: [] }
  }
  return { query } as unknown as MigrationClient
}

function stepError(error: unknown): unknown {
  const ours = toSkytoolsError(error)
  if (ours instanceof SkytoolsError) return ours
  const { code, message } = error instanceof Error ? (error as Error & { code?: string }) : { code: '', message: '' }
  if (code === '42501') {
    const hint = 'connect as the role that owns the schemas pgq and skytools, or as one with CREATE on the database'
    return new SkytoolsError('PQ031', `not allowed: ${message}`, hint, error)
  }
  if (code === '25006') return new SkytoolsError('PQ032', message, 'connect to the primary server, read-write', error)
  return error
}
