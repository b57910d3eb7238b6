import type { Db } from '../db/db.ts'
import { type Connectable, toDb } from '../db/open.ts'
import { SkytoolsError } from '../errors.ts'
import { refuseProtected } from '../reset/protect.ts'
import { wipe } from '../reset/wipe.ts'
import { type Migration, migrations, packageVersion } from './bundle.ts'
import { preflight } from './preflight.ts'
import { runSteps } from './runner.ts'

export interface SchemaChange {
  /** Version before: undefined when nothing was installed. */
  readonly from: string | undefined
  /** Version after: undefined when it is uninstalled. */
  readonly to: string | undefined
  /** The steps that ran, in order; empty when there was nothing to do. */
  readonly steps: readonly string[]
  /** What was left out or needs a look, in the server's words. */
  readonly warnings: readonly string[]
}

export interface SchemaStatus {
  readonly installed: boolean
  readonly version: string | undefined
  readonly newest: string
  readonly applied: readonly { readonly name: string; readonly at: string }[]
  readonly pending: readonly string[]
}

export interface UpgradeOptions {
  /** A version, or the name of a step; the newest when left out. */
  readonly to?: string | undefined
  /** Another directory with migrations/ and sql/: for tests. */
  readonly root?: string | undefined
}

export interface UninstallOptions {
  /** Drop the queues and their events too, and whatever of others depends on the schemas. */
  readonly force?: boolean | undefined
  /** The name of the database, needed where it is protected. */
  readonly database?: string | undefined
  readonly root?: string | undefined
}

/** Installs the bundle, or brings it to the newest version. Does nothing when it is there already. */
export function install(connection: Connectable, options: { root?: string | undefined } = {}): Promise<SchemaChange> {
  return change(toDb(connection), options.root, (state) => {
    return { direction: 'up', count: state.known.length - state.applied.length }
  })
}

/** Brings an installed bundle to the newest version, or to the one named. */
export function upgrade(connection: Connectable, options: UpgradeOptions = {}): Promise<SchemaChange> {
  return change(toDb(connection), options.root, (state) => {
    if (state.applied.length === 0) throw notInstalled()
    const target = options.to === undefined ? state.known.length : position(state.known, options.to)
    if (target < state.applied.length) {
      throw new SkytoolsError(
        'PQ036',
        `the database is at ${state.applied.at(-1)}, which is newer than ${options.to}`,
        'an upgrade goes forward only; to go back, restore a backup',
      )
    }
    return { direction: 'up', count: target - state.applied.length }
  })
}

/** Takes the newest `count` steps back. For tests of Down sections; people uninstall or restore. */
export function downgrade(connection: Connectable, count: number, options: UninstallOptions = {}) {
  return change(toDb(connection), options.root, (state) => ({ direction: 'down', count: reversible(state, count) }))
}

/** Removes the bundle. Refuses while there are queues, unless forced: then they go too.
 *
 * @throws NotInstalledError (PQ035), QueuesExistError (PQ034), DependentObjectsError (PQ041), ProtectedError (PQ021), InUseError (PQ022) */
export function uninstall(connection: Connectable, options: UninstallOptions = {}): Promise<SchemaChange> {
  return change(
    toDb(connection),
    options.root,
    async (state, tx) => {
      if (state.applied.length === 0) throw notInstalled()
      await refuseProtected(tx, 'uninstall', options.database)
      if (options.force) {
        await tx.query("select set_config('skytools.force', 'on', true)")
        await wipe(tx, { database: options.database })
      }
      return { direction: 'down', count: reversible(state, state.applied.length) }
    },
    async (tx) => tx.exec('drop table skytools.migrations; drop schema skytools'),
  )
}

/** What the ledger says. Changes nothing. */
export async function schemaStatus(connection: Connectable, root?: string): Promise<SchemaStatus> {
  const db = toDb(connection)
  const known = await migrations(root)
  const [found] = await db.query<{ there: boolean }>(
    `select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                     where n.nspname = 'skytools' and c.relname = 'migrations') as there`,
  )
  const applied = found?.there
    ? await db.query<{ name: string; at: string }>(
        `select name::text, to_char(run_on, 'YYYY-MM-DD HH24:MI:SS') as at from skytools.migrations order by id`,
      )
    : []
  const names = new Set(applied.map(({ name }) => name))
  const newest = applied.at(-1)?.name
  return {
    installed: applied.length > 0,
    version: known.find(({ name }) => name === newest)?.version,
    newest: known.at(-1)?.version ?? packageVersion(root),
    applied,
    pending: known.filter(({ name }) => !names.has(name)).map(({ name }) => name),
  }
}

interface State {
  readonly known: readonly Migration[]
  readonly applied: readonly string[]
}
interface Plan {
  readonly direction: 'up' | 'down'
  readonly count: number
}

/** 'skytools' in ASCII: the key of the advisory lock, one for each database. */
const lockKey = BigInt(`0x${Buffer.from('skytools').toString('hex')}`)

async function change(
  db: Db,
  root: string | undefined,
  plan: (state: State, tx: Db) => Plan | Promise<Plan>,
  afterwards?: (tx: Db) => Promise<void>,
): Promise<SchemaChange> {
  const known = await migrations(root)
  // Before the transaction, as a read-only server or an old one would refuse in words of its own.
  await preflight(db)
  return retrying(() =>
    db.transaction(async (tx) => {
      // The one that waits must see, after the wait, what the other has committed.
      await tx.exec('set transaction isolation level read committed')
      await tx.query('select pg_advisory_xact_lock($1)', [lockKey])
      const { ledger } = await preflight(tx)
      const restore = await settings(tx, { search_path: 'pg_catalog, pg_temp', client_min_messages: 'notice' })
      const before = await appliedSteps(tx, ledger, known)
      const warnings: string[] = []
      const planned = await plan({ known, applied: before }, tx)
      const steps = await runSteps(tx, { ...planned, root }, (message) => warnings.push(message))
      const after = planned.direction === 'up' ? before.length + steps.length : before.length - steps.length
      if (afterwards) await afterwards(tx)
      await restore()
      return { from: known[before.length - 1]?.version, to: known[after - 1]?.version, steps, warnings }
    }),
  )
}

/** Settings for the work; back to the caller's afterwards, as the transaction may be the caller's. */
async function settings(tx: Db, wanted: Record<string, string>): Promise<() => Promise<void>> {
  const apply = async (values: Iterable<readonly [string, string]>) => {
    for (const [name, value] of values) await tx.query('select set_config($1, $2, true)', [name, value])
  }
  const names = Object.keys(wanted)
  const before = await tx.query<{ name: string; value: string }>(
    'select name, current_setting(name) as value from unnest($1::text[]) as name',
    [names],
  )
  await apply(Object.entries(wanted))
  return () => apply(before.map(({ name, value }) => [name, value] as const))
}

async function appliedSteps(tx: Db, ledger: boolean, known: readonly Migration[]): Promise<string[]> {
  if (!ledger) return []
  const rows = await tx.query<{ name: string }>('select name::text from skytools.migrations order by run_on, id')
  const applied = rows.map(({ name }) => name)
  const unknown = applied.find((name, index) => known[index]?.name !== name)
  if (unknown !== undefined) {
    throw new SkytoolsError(
      'PQ036',
      `the database has the step ${unknown}, which this version of skytools (${packageVersion()}) does not know`,
      'use the newest: npm install skytools@latest',
    )
  }
  return applied
}

/** Roles belong to the whole server: installs into two of its databases can meet in them. */
async function retrying<T>(work: () => Promise<T>): Promise<T> {
  const passing = new Set(['23505', '42710', 'XX000', '40001', '40P01'])
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : ''
      if (attempt === 5 || !passing.has(code)) throw failed(error)
    }
  }
}

function failed(error: unknown): unknown {
  if (error instanceof SkytoolsError) return error
  const message = error instanceof Error ? error.message : String(error)
  return new SkytoolsError('PQ038', `nothing was changed: ${message}`, 'run the same command again', error)
}

function position(known: readonly Migration[], to: string): number {
  const index = known.findLastIndex(({ name, version }) => name === to || version === to)
  if (index >= 0) return index + 1
  const there = known.map(({ name, version }) => `${version} (${name})`).join(', ')
  throw new SkytoolsError('PQ036', `there is no version or step ${to}`, `there are: ${there}`)
}

function reversible(state: State, count: number): number {
  const steps = state.known.slice(Math.max(0, state.applied.length - count), state.applied.length)
  const stuck = steps.find(({ down }) => down === undefined)
  if (stuck) throw new SkytoolsError('PQ037', `step ${stuck.name} is irreversible`, 'restore a backup from before it')
  return steps.length
}

function notInstalled(): SkytoolsError {
  return new SkytoolsError('PQ035', 'skytools is not installed in this database', 'skytools install')
}
