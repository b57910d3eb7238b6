import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PGlite } from '@electric-sql/pglite'
import pg from 'pg'
import type { TestProject } from 'vitest/node'
import { toDb } from '../../src/db/open.ts'
import type { Pglite } from '../../src/db/pglite.ts'
import { type Origin, origins, prepare } from './prepare.ts'
import { type Server, startServer } from './server.ts'

export interface ServerEntry {
  readonly name: string
  readonly url: string
  readonly version: number
  /** Template database, or why there is none. */
  readonly templates: Record<Origin, { database: string } | { problem: string }>
}
export interface PgliteEntry {
  readonly dumps: Record<Origin | 'empty', { file: string } | { problem: string }>
}

declare module 'vitest' {
  interface ProvidedContext {
    servers: ServerEntry[]
    pglite: PgliteEntry
  }
}

export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const scratch = mkdtempSync(join(tmpdir(), 'skytools-test-'))
  const given = process.env.DATABASE_URL
  const own: Server[] = given ? [] : await Promise.all([startServer(14), startServer(18)])
  const places = given
    ? [{ name: 'server', url: given }]
    : own.map(({ version, url }) => ({ name: `Postgres ${version}`, url }))
  const entries: ServerEntry[] = []
  for (const place of places) entries.push(await prepareServer(place.name, place.url))
  project.provide('servers', entries)
  project.provide('pglite', { dumps: await preparePglite(scratch) })
  return async () => {
    for (const entry of entries) if (given) await dropTemplates(entry)
    await Promise.all(own.map((server) => server.remove()))
    rmSync(scratch, { recursive: true, force: true })
  }
}

async function prepareServer(name: string, url: string): Promise<ServerEntry> {
  const admin = new pg.Client({ connectionString: url })
  await admin.connect()
  const templates = {} as ServerEntry['templates']
  try {
    const { rows } = await admin.query("select current_setting('server_version_num')::int / 10000 as version")
    for (const origin of origins) {
      const database = `skytools_template_${origin}_${process.pid}`
      await admin.query(`create database ${database}`)
      const target = new URL(url)
      target.pathname = database
      const client = new pg.Client({ connectionString: target.href })
      await client.connect()
      templates[origin] = await attempt({ database }, () => prepare(toDb(client), origin))
      await client.end()
    }
    return { name, url, version: rows[0].version, templates }
  } finally {
    await admin.end()
  }
}

async function preparePglite(scratch: string): Promise<PgliteEntry['dumps']> {
  const dumps = {} as PgliteEntry['dumps']
  for (const origin of ['empty', ...origins] as const) {
    const file = join(scratch, `pglite-${origin}.tar`)
    const empty = origin === 'empty' ? undefined : join(scratch, 'pglite-empty.tar')
    const pglite = await PGlite.create(empty ? { loadDataDir: new Blob([readFileSync(empty)]) } : {})
    dumps[origin] = await attempt({ file }, async () => {
      if (origin !== 'empty') await prepare(toDb(pglite as unknown as Pglite), origin)
    })
    const dump = await pglite.dumpDataDir('none')
    writeFileSync(file, new Uint8Array(await dump.arrayBuffer()))
    await pglite.close()
  }
  return dumps
}

async function attempt<T>(result: T, work: () => Promise<void>): Promise<T | { problem: string }> {
  try {
    await work()
    return result
  } catch (error) {
    return { problem: error instanceof Error ? error.message : String(error) }
  }
}

async function dropTemplates(entry: ServerEntry): Promise<void> {
  const admin = new pg.Client({ connectionString: entry.url })
  await admin.connect()
  for (const origin of origins) {
    await admin.query(`drop database if exists skytools_template_${origin}_${process.pid}`)
  }
  await admin.end()
}
