import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Db } from '../db/db.ts'
import { type Connectable, toDb } from '../db/open.ts'
import { SkytoolsError } from '../errors.ts'
import { packageRoot } from './bundle.ts'
import { compareFingerprints, type Difference, type Fingerprint, fingerprint } from './fingerprint.ts'
import { schemaStatus } from './install.ts'

export interface CheckResult {
  /** The installed version. */
  readonly version: string | undefined
  /** Steps of this package that the database lacks: their objects are among the differences. */
  readonly pending: readonly string[]
  /** Roles that the server lacks; what would be granted to them is not compared. */
  readonly missingRoles: readonly string[]
  readonly differences: readonly Difference[]
  /** Captured tables that have changed since the code for them was generated. */
  readonly staleCaptures: readonly string[]
}

/** The fingerprint that ships with the package. `npm run generate` writes it, a test holds it to sql/. */
export function expectedPath(root = packageRoot()): string {
  return join(root, 'src', 'schema', 'expected.json')
}

export async function expectedFingerprint(root?: string): Promise<Fingerprint> {
  return JSON.parse(await readFile(expectedPath(root), 'utf8')) as Fingerprint
}

/** Tells, object by object, what in the database differs from the bundle. Changes nothing. */
export async function check(connection: Connectable): Promise<CheckResult> {
  const db = toDb(connection)
  const { installed, version, pending } = await schemaStatus(db)
  if (!installed) throw new SkytoolsError('PQ035', 'skytools is not installed in this database', 'skytools install')
  const [expected, found] = await Promise.all([expectedFingerprint(), fingerprint(db)])
  const missingRoles = Object.keys(expected).filter((object) => object.startsWith('role ') && !found[object])
  const names = missingRoles.map((object) => object.slice('role '.length))
  return {
    version,
    pending,
    missingRoles: names,
    differences: compareFingerprints(withoutRoles(expected, names), found),
    staleCaptures: await staleCaptures(db),
  }
}

/** An installed version may be so old that it has no captures. */
async function staleCaptures(db: Db): Promise<string[]> {
  const [view] = await db.query<{ found: boolean }>(`select to_regclass('pgq.captured_table') is not null as found`)
  if (!view?.found) return []
  const rows = await db.query<{ name: string }>(
    'select table_name as name from pgq.captured_table where stale order by table_name, queue_name',
  )
  return rows.map(({ name }) => name)
}

function withoutRoles(print: Fingerprint, roles: readonly string[]): Fingerprint {
  if (roles.length === 0) return print
  const kept = (list: string) =>
    list
      .split(', ')
      .filter((entry) => !roles.includes(entry.replace(/=.*/, '')))
      .join(', ')
  const objects = Object.entries(print).filter(([object]) => !roles.includes(object.replace(/^role /, '')))
  return Object.fromEntries(
    objects.map(([object, properties]) => {
      const entries = Object.entries(properties).map(([name, value]) =>
        name === 'privileges' || name === 'member of' ? [name, kept(value)] : [name, value],
      )
      return [object, Object.fromEntries(entries.filter(([, value]) => value !== ''))]
    }),
  )
}
