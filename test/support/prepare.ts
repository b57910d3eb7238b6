import type { Db } from '../../src/db/db.ts'
import { bundleSql, migrations } from '../../src/schema/bundle.ts'

/** Where the schema of a test database comes from. */
export type Origin = 'migrations' | 'sql'
export const origins: readonly Origin[] = ['migrations', 'sql']

export async function prepare(db: Db, origin: Origin): Promise<void> {
  const steps = await migrations()
  if (origin === 'sql' || steps.length === 0) await db.exec(await bundleSql())
  else await db.exec(await bundleSql())
}
