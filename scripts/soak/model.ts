import fc from 'fast-check'
import pg from 'pg'
import type { Db } from '../../src/db/db.ts'
import { openDb, toDb } from '../../src/db/open.ts'
import { bundleSql } from '../../src/schema/bundle.ts'
import { openArena, runSchedule } from '../../test/property/runner.ts'
import { schedule } from '../../test/property/schedule.ts'
import { type Server, startServer } from '../../test/support/server.ts'

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

/** Random schedules against the model, in rounds with a seed each, until the time is up; false: one has failed. */
export async function soakModel(end: number, first: number, server: string, url: string | undefined): Promise<boolean> {
  const { open, disconnect, remove } = await place(server, url)
  let total = 0
  try {
    for (let seed = first; Date.now() < end; seed++) {
      const arena = await openArena(open, server === 'pglite' ? 'pglite' : 'server')
      const property = fc.asyncProperty(schedule, (steps) => runSchedule(arena, steps))
      // A failed schedule leaves its connections in the middle of something: the first counterexample is the one to read.
      const result = await fc.check(property, { seed, numRuns: schedulesPerRound, endOnFailure: true })
      total += result.numRuns
      if (result.failed) {
        const message =
          result.errorInstance instanceof Error ? result.errorInstance.message : String(result.errorInstance)
        process.stdout.write(`seed ${seed}: failed after ${total} schedules\n${message}\n`)
        return false
      }
      process.stdout.write(`seed ${seed}: ${total} schedules, ${JSON.stringify(Object.fromEntries(arena.seen))}\n`)
      await disconnect()
    }
    return true
  } finally {
    await remove()
  }
}
