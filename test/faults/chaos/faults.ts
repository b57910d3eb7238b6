import { setTimeout as delay } from 'node:timers/promises'
import type { Db } from '../../../src/index.ts'
import type { Server } from '../../support/server.ts'
import type { Actors } from './actors.ts'

export const faults = ['terminate', 'kill', 'freeze', 'restart'] as const
export type Fault = (typeof faults)[number]

/** How often each comes among the others. */
const weights: Record<Fault, number> = { terminate: 5, kill: 4, freeze: 4, restart: 1 }

/** Numbers from 0 to 1 that are the same for the same seed (mulberry32). */
export function random(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Does harm for so many seconds, in the order that the seed tells; in the end everything runs again.
 *
 * @returns how often each was done */
export async function harm(
  { server, db, actors, log }: { server: Server; db: Db; actors: Actors; log: (line: string) => void },
  seed: number,
  seconds: number,
): Promise<Record<Fault, number>> {
  const next = random(seed)
  const between = (low: number, high: number) => low + (high - low) * next()
  const counts: Record<Fault, number> = { terminate: 0, kill: 0, freeze: 0, restart: 0 }
  // Each comes as often as it weighs, before any comes again.
  let bag: Fault[] = []
  const draw = (): Fault => {
    if (bag.length === 0) bag = faults.flatMap((fault) => Array.from({ length: weights[fault] }, () => fault))
    return bag.splice(Math.floor(next() * bag.length), 1)[0] ?? 'terminate'
  }
  const later: Promise<void>[] = []
  const started = performance.now()
  const deeds: Record<Fault, () => Promise<string>> = {
    async terminate() {
      const count = Math.ceil(between(0, 1) ** 3 * 10)
      const found = await db.query(
        `select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
          order by md5(pid::text || $1) limit $2`,
        [`${next()}`, count],
      )
      return `${found.length} backends`
    },
    async kill() {
      const name = actors.names[Math.floor(next() * actors.names.length)] ?? ''
      const pause = between(0, 1)
      await actors.kill(name)
      later.push(delay(pause * 1000).then(() => actors.start(name)))
      return `${name}, again after ${pause.toFixed(1)} s`
    },
    async freeze() {
      const name = actors.names[Math.floor(next() * actors.names.length)] ?? ''
      const pause = between(0.1, 3)
      actors.freeze(name)
      later.push(delay(pause * 1000).then(() => actors.thaw(name)))
      return `${name} for ${pause.toFixed(1)} s`
    },
    async restart() {
      await server.restart('immediate')
      return 'the server'
    },
  }
  try {
    while (performance.now() < started + seconds * 1000) {
      await delay(between(100, 700))
      const fault = draw()
      const what = await deeds[fault]()
      counts[fault] += 1
      log(`${fault} ${what}`)
    }
  } finally {
    await Promise.all(later)
  }
  return counts
}
