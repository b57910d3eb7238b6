import { rows } from './call.ts'
import { openDb } from './open.ts'

/** The databases of a cluster that take connections, templates left out, by name. */
export async function clusterDatabases(url: string): Promise<string[]> {
  const db = await openDb(url, { max: 1 })
  try {
    const found = await rows<{ name: string }>(
      db,
      'select datname as name from pg_database where not datistemplate and datallowconn order by datname',
    )
    return found.map(({ name }) => name)
  } finally {
    await db.close()
  }
}

/** The URL of another database of the same cluster. */
export function withDatabase(url: string, database: string): string {
  // Not by the class URL: that has no empty host, which a socket's folder in ?host= goes with.
  return url.replace(/^(\w+:\/\/[^/?]*)(\/[^?]*)?/, `$1/${encodeURIComponent(database).replaceAll('$', '$$$$')}`)
}

/** A URL that may be shown. */
export function withoutPassword(url: string): string {
  return url.replace(/(\/\/[^:@/]*):[^@/]*@/, '$1@')
}
