import { readFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { config as dotenv } from 'dotenv'
import { createMover, type MoverConfig, parseMoverConfig, SkytoolsError } from '../src/index.ts'
import { type Print, positiveSeconds, printer, stopSignal } from './connection.ts'

interface Options {
  readonly config: string
  readonly once?: boolean
  readonly stats: number
}

export function addMover(program: Command): void {
  program
    .command('mover')
    .description('move events from queues of many databases into queues of one, exactly once, until SIGTERM or SIGINT')
    .requiredOption('--config <file>', 'sources, target and routes, in YAML or JSON: see docs/mover.md')
    .option('--once', 'move what there is now, then end')
    .option('--stats <seconds>', 'between two lines that tell how much was moved', positiveSeconds, 30)
    .action(async ({ config, once, stats }: Options, command: Command) => {
      dotenv({ quiet: true })
      await move(parseMoverConfig(await readConfig(config), process.env), printer(command), { once, stats })
    })
}

async function readConfig(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    throw new SkytoolsError('PQ060', `mover configuration: ${String(error)}`, 'name a file: --config mover.yaml', error)
  }
}

/** What `skytools mover` and `skytools splitter` have in common. */
export async function move(
  config: MoverConfig,
  print: Print,
  { once, stats: period }: { once: boolean | undefined; stats: number },
): Promise<void> {
  const mover = createMover({
    ...config,
    onError: (error, source) => {
      const hint = error instanceof SkytoolsError && error.hint ? ` (${error.hint})` : ''
      process.stderr.write(`${new Date().toISOString()} ${source}: ${String(error)}${hint}\n`)
    },
  })
  const tell = (what: string) => {
    const found = mover.stats()
    print(
      { mover: what, ...found },
      `${new Date().toISOString()} ${what}: ${found.events} events in ${found.batches} batches; sources: ${found.sources} fine, ${found.failing} failing`,
    )
  }
  if (once) {
    await mover.once()
    tell('moved')
    return
  }
  const signal = stopSignal()
  tell('started')
  const timer = setInterval(() => tell('moved'), period * 1000)
  await mover.run(signal).finally(() => clearInterval(timer))
  tell('stopped')
}
