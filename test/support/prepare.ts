import type { Db } from '../../src/db/db.ts'
import { bundleSql } from '../../src/schema/bundle.ts'
import { install } from '../../src/schema/install.ts'

/** Where the schema of a test database comes from: `install`, or the files of sql/ loaded directly. */
export type Origin = 'migrations' | 'sql'
export const origins: readonly Origin[] = ['migrations', 'sql']

export async function prepare(db: Db, origin: Origin): Promise<void> {
  if (origin === 'sql') await db.exec(await bundleSql())
  else await install(db)
}
