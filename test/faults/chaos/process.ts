import { setTimeout as delay } from 'node:timers/promises'
import { openDb } from '../../../src/index.ts'
import { play, type Role } from './roles.ts'

/** Plays the role of its first argument on the database of its second, until SIGTERM. */
const [role = '', url = ''] = process.argv.slice(2)
const stop = new AbortController()
process.once('SIGTERM', () => stop.abort())
process.stdout.write('ready\n')

const open = async () => {
  for (;;) {
    try {
      return await openDb(url, { max: 4 })
    } catch (error) {
      // The server is just starting again.
      if (stop.signal.aborted) throw error
      await delay(50)
    }
  }
}
const db = await open()
await play(JSON.parse(role) as Role, url, db, stop.signal)
await db.close()
