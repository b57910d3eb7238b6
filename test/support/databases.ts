import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { PGlite } from '@electric-sql/pglite'
import pg from 'pg'
import { inject } from 'vitest'
import type { Db } from '../../src/db/db.ts'
import { toDb } from '../../src/db/open.ts'
import type { Pglite } from '../../src/db/pglite.ts'
import type { ServerEntry } from './global-setup.ts'
import type { Origin } from './prepare.ts'

export type Connection = Db & AsyncDisposable
export interface TestDb extends Connection {
  /** Another connection to the same database. PGlite has none: it throws. */
  connect(): Promise<Connection>
  /** Of this database, on a server. */
  readonly url?: string
}
export interface TestDatabase {
  readonly name: string
  readonly kind: 'pglite' | 'server'
  /** The server's major version; PGlite's is 17 or above. */
  readonly version?: number
  /** A fresh database with the bundle installed. */
  open(from?: Origin): Promise<TestDb>
  /** A fresh database without the bundle; of an encoding other than UTF8 on a server only. */
  openEmpty(encoding?: string): Promise<TestDb>
}

const pgliteDumps = inject('pglite').dumps

const pglite: TestDatabase = {
  name: 'PGlite',
  kind: 'pglite',
  open: (from = 'migrations') => loadPglite(from),
  openEmpty: () => loadPglite('empty'),
}

async function loadPglite(from: keyof typeof pgliteDumps): Promise<TestDb> {
  const dump = pgliteDumps[from]
  if ('problem' in dump) throw new Error(`${from} did not install on PGlite: ${dump.problem}`)
  return pgliteTestDb(await PGlite.create({ loadDataDir: new Blob([await readFile(dump.file)]) }))
}

function pgliteTestDb(database: PGlite): TestDb {
  const close = async () => {
    if (!database.closed) await database.close()
  }
  return {
    ...toDb(database as unknown as Pglite),
    close,
    [Symbol.asyncDispose]: close,
    connect: () => Promise.reject(new Error('PGlite has one connection only: use `servers` for this test')),
  }
}

function server(entry: ServerEntry): TestDatabase {
  return {
    name: entry.name,
    kind: 'server',
    version: entry.version,
    open(from = 'migrations') {
      const template = entry.templates[from]
      if ('problem' in template) throw new Error(`${from} did not install on ${entry.name}: ${template.problem}`)
      return serverTestDb(entry, `template ${template.database}`)
    },
    openEmpty: (encoding) =>
      serverTestDb(entry, `template template0${encoding ? ` encoding '${encoding}' lc_collate 'C' lc_ctype 'C'` : ''}`),
  }
}

async function serverTestDb(entry: ServerEntry, clause: string): Promise<TestDb> {
  const database = `skytools_test_${randomBytes(6).toString('hex')}`
  await administer(entry.url, `create database ${database} ${clause}`)
  const target = new URL(entry.url)
  target.pathname = database
  const url = target.href
  const main = await connect(url)
  let closed = false
  const close = async () => {
    if (closed) return
    closed = true
    await main.close()
    await administer(entry.url, `drop database if exists ${database} with (force)`)
  }
  return { ...main, url, close, [Symbol.asyncDispose]: close, connect: () => connect(url) }
}

async function administer(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(sql)
  } finally {
    await client.end()
  }
}

/** One connection to a database by its URL. */
export async function connect(url: string): Promise<Connection> {
  const client = new pg.Client({ connectionString: url })
  // Tests end backends on purpose: the query that was running reports it.
  client.on('error', () => undefined)
  await client.connect()
  let ended: Promise<void> | undefined
  const close = () => {
    ended ??= client.end()
    return ended
  }
  return { ...toDb(client), close, [Symbol.asyncDispose]: close }
}

export const servers: readonly TestDatabase[] = inject('servers').map(server)
export const databases: readonly TestDatabase[] = [pglite, ...servers]
