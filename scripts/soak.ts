import { parseArgs } from 'node:util'
import { soakChaos } from './soak/chaos.ts'
import { soakFastForward } from './soak/fast-forward.ts'
import { soakModel } from './soak/model.ts'

const usage = `npm run soak -- [model|chaos|fast-forward] [--minutes N] [--seed N] [--server 14|18|pglite] [--database-url URL]
Runs one of the long tests until the time is up; prints the seed of each round, and stops at a failure.
  model               random schedules of SQL against the model (default)
  chaos               producers, tickers and consumers as processes that are killed and frozen, on a server that crashes
  fast-forward        rotations, retries and all else as fast as they go: nothing may grow
  --minutes N         how long (default 10)
  --seed N            seed of the first round; the others follow by adding 1
  --server V          for the model: server binaries from npm (default 18), or pglite
  --database-url URL  for the model: a database that has pgq already, instead`

async function soak(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      minutes: { type: 'string', default: '10' },
      seed: { type: 'string', default: `${Math.floor(Math.random() * 2 ** 31)}` },
      server: { type: 'string', default: '18' },
      'database-url': { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  const end = Date.now() + Number(values.minutes) * 60_000
  const seed = Number(values.seed)
  const tests: Record<string, () => Promise<boolean>> = {
    model: () => soakModel(end, seed, values.server, values['database-url']),
    chaos: () => soakChaos(end, seed),
    'fast-forward': () => soakFastForward(end),
  }
  const [name = 'model', ...rest] = positionals
  const test = tests[name]
  const understood = rest.length === 0 && Number(values.minutes) > 0 && Number.isInteger(seed)
  if (values.help || !test || !understood || !['14', '18', 'pglite'].includes(values.server)) {
    process.stdout.write(`${usage}\n`)
    return values.help ? 0 : 2
  }
  return (await test()) ? 0 : 1
}

process.exitCode = await soak()
