import { spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { createMover, createQueue, type Db, insertEvents, type MoverOptions } from '../../src/index.ts'
import { packageRoot } from '../../src/schema/bundle.ts'
import { servers } from '../support/databases.ts'
import { busyQueue, tick } from '../support/queues.ts'
import { tsx } from '../support/tsx.ts'

/** More by SKYTOOLS_KILLS=50. */
const kills = Number(process.env.SKYTOOLS_KILLS ?? 8)

/** Runs the command until it has said that it started and so many milliseconds have passed, then kills it. */
function runAndKill(config: string, after: number): Promise<void> {
  const script = join(packageRoot(), 'scripts', 'skytools.ts')
  const child = spawn(process.execPath, [...tsx, script, 'mover', '--config', config], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.stdout.once('data', () => setTimeout(() => child.kill('SIGKILL'), after))
    child.on('close', (code, signal) => (signal === 'SIGKILL' ? resolve() : reject(new Error(`it ended with ${code}`))))
  })
}

async function produce(db: Db, queue: string, signal: AbortSignal): Promise<string[]> {
  const sent: string[] = []
  for (let n = 0; !signal.aborted; n += 1) {
    const events = Array.from({ length: 1 + (n % 40) }, (_, m) => `${queue} ${n} ${m}`)
    await insertEvents(
      db,
      queue,
      events.map((data) => ({ data })),
    )
    await tick(db, queue)
    sent.push(...events)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  return sent
}

describe.each(servers.slice(-1))('a mover that is killed on $name', ({ open }) => {
  it(`loses nothing and moves nothing twice: ${kills} times, at random moments under load`, {
    timeout: 60_000 + kills * 10_000,
  }, async () => {
    await using one = await open()
    await using two = await open()
    await using target = await open()
    const folder = await mkdtemp(join(tmpdir(), 'skytools-mover-'))
    try {
      for (const db of [one, two]) await busyQueue(db, 'q')
      await createQueue(target, 'all')
      const options: MoverOptions = {
        sources: [
          { name: 'one', url: one.url ?? '' },
          { name: 'two', url: two.url ?? '' },
        ],
        target: target.url ?? '',
        routes: [{ to: 'all' }],
        start: 'oldest',
        poll: 0.01,
        chunk: 10,
      }
      const config = join(folder, 'mover.json')
      await writeFile(config, JSON.stringify(options))
      const stop = new AbortController()
      const producing = Promise.all([produce(one, 'q', stop.signal), produce(two, 'q', stop.signal)])
      for (let n = 0; n < kills; n += 1) await runAndKill(config, Math.random() * 500)
      stop.abort()
      const [fromOne, fromTwo] = await producing
      const before = await target.query<{ n: bigint }>('select count(*) as n from pgq.event_template')
      expect(before[0]?.n).toBeGreaterThan(0n)
      await createMover(options).once()
      const moved = await target.query<{ data: string; source: string }>(
        `select ev_data as data, ev_extra4::json->>'source' as source from pgq.event_1 order by ev_id`,
      )
      expect(moved.filter(({ source }) => source === 'one').map(({ data }) => data)).toEqual(fromOne)
      expect(moved.filter(({ source }) => source === 'two').map(({ data }) => data)).toEqual(fromTwo)
    } finally {
      await rm(folder, { recursive: true })
    }
  })
})
