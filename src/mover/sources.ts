import { rows } from '../db/call.ts'
import { clusterDatabases, withDatabase, withoutPassword } from '../db/cluster.ts'
import type { Db } from '../db/db.ts'
import { SkytoolsError } from '../errors.ts'
import type { MoverConfig } from './config.ts'
import { glob } from './route.ts'

export interface Source {
  readonly name: string
  readonly url: string
}

/** The sources that a configuration names, looked up on their servers where it gives patterns.
 *
 * @returns also what could not be looked up, so that the others can go on
 * @throws MoverConfigError (PQ060) two sources have one name */
export async function findSources(
  config: Pick<MoverConfig, 'sources'>,
): Promise<{ sources: Source[]; failures: { server: string; error: unknown }[] }> {
  const failures: { server: string; error: unknown }[] = []
  const found = await Promise.all(
    config.sources.map(async (source) => {
      if ('url' in source) return [source]
      try {
        return await onServer(source.server, glob(source.databases))
      } catch (error) {
        failures.push({ server: withoutPassword(source.server), error })
        return []
      }
    }),
  )
  const sources = found.flat()
  const twice = sources.find(({ name }, index) => sources.findIndex((other) => other.name === name) !== index)
  if (twice) throw new SkytoolsError('PQ060', `two sources have the name ${twice.name}`, 'give each a name of its own')
  return { sources, failures }
}

async function onServer(server: string, fits: (database: string) => boolean): Promise<Source[]> {
  const names = (await clusterDatabases(server)).filter(fits)
  return names.map((name) => ({ name, url: withDatabase(server, name) }))
}

/** A queue of a source, as long as it exists. */
export interface SourceQueue {
  readonly queue: string
  readonly identity: string
}

/** The queues of a source. A source without skytools has none: it may be being installed. */
export async function sourceQueues(db: Db, source: string): Promise<SourceQueue[]> {
  const [schema] = await rows<{ there: boolean }>(db, `select to_regclass('pgq.queue') is not null as there`)
  if (!schema?.there) return []
  // The parent table's oid tells a queue from one of the same name and id before the database was reset.
  const found = await rows<{ queue: string; table: string }>(
    db,
    `select queue_name as queue, queue_data_pfx::regclass::oid::text as table from pgq.queue order by queue_name`,
  )
  return found.map(({ queue, table }) => ({ queue, identity: `${source}/${queue}/${table}` }))
}
