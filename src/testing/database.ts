import { createHash } from 'node:crypto'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import type { Db } from '../db/db.ts'
import { makeDump, openCopy } from '../db/template.ts'
import { createQueue } from '../queue/queue.ts'
import type { Seed } from '../reset/reset.ts'
import { bundleSql, packageVersion } from '../schema/bundle.ts'
import { install } from '../schema/install.ts'

export interface QueueDatabaseOptions {
  /** Queues to create. */
  readonly queues?: readonly string[]
  /** Runs after that: SQL, or a function. */
  readonly seed?: Seed
}

/** A database of one's own, closed by `await using` or `close()`. */
export interface QueueDatabase extends Db, AsyncDisposable {
  /** For what wants PGlite itself, such as an ORM's driver. */
  readonly pglite: Awaited<ReturnType<typeof openCopy>>['pglite']
}

/** A fresh PGlite in memory with skytools installed, in well under a second: the installed database is made once on each
 * machine, kept in the folder for temporary files, and cloned.
 *
 * @remarks Safe in test runners that run files side by side. */
export async function withQueueDatabase(options: QueueDatabaseOptions = {}): Promise<QueueDatabase> {
  const { db, pglite } = await openCopy(await template())
  for (const queue of options.queues ?? []) await createQueue(db, queue)
  if (typeof options.seed === 'string') await db.exec(options.seed)
  else if (options.seed) await options.seed(db)
  return { ...db, pglite, [Symbol.asyncDispose]: () => db.close() }
}

let inProcess: Promise<Blob> | undefined

function template(): Promise<Blob> {
  inProcess ??= load().catch((error: unknown) => {
    inProcess = undefined
    throw error
  })
  return inProcess
}

async function load(): Promise<Blob> {
  const require = createRequire(import.meta.url)
  const { version } = JSON.parse(
    await readFile(join(require.resolve('@electric-sql/pglite'), '..', '..', 'package.json'), 'utf8'),
  ) as {
    version: string
  }
  const bundle = createHash('sha256')
    .update(await bundleSql())
    .digest('hex')
    .slice(0, 16)
  const folder = join(tmpdir(), `skytools-testing-${userInfo().username}`)
  const file = join(folder, `skytools-${packageVersion()}-${bundle}-pglite-${version}.tar`)
  const kept = await readFile(file).catch(() => undefined)
  if (kept) return new Blob([kept])
  const dump = await makeDump(install)
  await mkdir(folder, { recursive: true, mode: 0o700 })
  // Under its name only when it is whole: another process may be reading.
  const part = `${file}.${process.pid}`
  await writeFile(part, Buffer.from(await dump.arrayBuffer()))
  await rename(part, file)
  return dump
}
