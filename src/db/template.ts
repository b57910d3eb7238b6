import type { PGlite } from '@electric-sql/pglite'
import type { Db } from './db.ts'
import { type Pglite, pgliteDb } from './pglite.ts'

/** A PGlite in memory that begins as a copy of `dump`; without one it is empty. Closing the Db closes it. */
export async function openCopy(dump?: Blob): Promise<{ db: Db; pglite: PGlite }> {
  const { PGlite } = await import('@electric-sql/pglite')
  const pglite = await PGlite.create(dump ? { loadDataDir: dump } : {})
  return { db: pgliteDb(pglite as unknown as Pglite, () => pglite.close()), pglite }
}

/** What `openCopy()` takes: an empty PGlite after `prepare`. */
export async function makeDump(prepare: (db: Db) => Promise<unknown>): Promise<Blob> {
  const { db, pglite } = await openCopy()
  try {
    await prepare(db)
    return await pglite.dumpDataDir('none')
  } finally {
    await db.close()
  }
}
