import { parseArgs } from 'node:util'
import fc from 'fast-check'
import pg from 'pg'
import type { Db } from '../src/db/db.ts'
import { openDb, toDb } from '../src/db/open.ts'
import { bundleSql } from '../src/schema/bundle.ts'
import { openArena, runSchedule } from '../test/property/runner.ts'
import { schedule } from '../test/property/schedule.ts'
import { type Server, startServer } from '../test/support/server.ts'

const usage = `npm run test:soak -- [--minutes N] [--seed N] [--server 14|18|pglite] [--database-url URL]
Runs random schedules against the model until the time is up; prints the seed of each round, and stops at a failure.
  --minutes N         how long (default 10)
  --seed N            seed of the first round; the others follow by adding 1
  --server V          server binaries from npm (default 18), or pglite
  --database-url URL  a database that has pgq already, instead`

/** A backend keeps the code of each queue that it has used: each round gets new ones. */
const schedulesPerRound = 20

/** How to open connections to a database with pgq in it, to end them, and to be rid of the database. */
async function place(
  version: string,
  url: string | undefined,
): Promise<{ open(): Promise<Db>; disconnect(): Promise<void>; remove(): Promise<void> }> {
  if (version === 'pglite') {
    const db = await openDb(undefined)
    await db.exec(await bundleSql())
    return { open: async () => db, disconnect: async () => undefined, remove: () => db.close() }
  }
  let server: Server | undefined
  if (url === undefined) server = await startServer(version === '14' ? 14 : 18)
  const clients: pg.Client[] = []
  const open = async (): Promise<Db> => {
    const client = new pg.Client({ connectionString: url ?? server?.url })
    await client.connect()
    clients.push(client)
    return toDb(client)
  }
  const disconnect = async (): Promise<void> => {
    await Promise.all(clients.splice(0).map((client) => client.end()))
  }
  if (server) await (await open()).exec(await bundleSql())
  return {
    open,
    disconnect,
    async remove() {
      await disconnect()
      await server?.remove()
    },
  }
}

async function soak(): Promise<number> {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '10' },
      seed: { type: 'string' },
      server: { type: 'string', default: '18' },
      'database-url': { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help || !(Number(values.minutes) > 0) || !['14', '18', 'pglite'].includes(values.server)) {
    process.stdout.write(`${usage}\n`)
    return values.help ? 0 : 2
  }
  const end = Date.now() + Number(values.minutes) * 60_000
  const { open, disconnect, remove } = await place(values.server, values['database-url'])
  let seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31))
  let total = 0
  try {
    for (; Date.now() < end; seed++) {
      const arena = await openArena(open, values.server === 'pglite' ? 'pglite' : 'server')
      const property = fc.asyncProperty(schedule, (steps) => runSchedule(arena, steps))
      // A failed schedule leaves its connections in the middle of something: the first counterexample is the one to read.
      const result = await fc.check(property, { seed, numRuns: schedulesPerRound, endOnFailure: true })
      total += result.numRuns
      if (result.failed) {
        const message =
          result.errorInstance instanceof Error ? result.errorInstance.message : String(result.errorInstance)
        process.stdout.write(`seed ${seed}: failed after ${total} schedules\n${message}\n`)
        return 1
      }
      process.stdout.write(`seed ${seed}: ${total} schedules, ${JSON.stringify(Object.fromEntries(arena.seen))}\n`)
      await disconnect()
    }
    return 0
  } finally {
    await remove()
  }
}

process.exitCode = await soak()
