import type { Command } from 'commander'
import { config as dotenv } from 'dotenv'
import { moverConfig } from '../src/index.ts'
import { databaseUrl, globals, positiveSeconds, printer, UsageError } from './connection.ts'
import { move } from './mover.ts'

interface Options {
  readonly by: string
  readonly map: readonly string[]
  readonly rest?: string
  readonly consumer: string
  readonly createQueues?: boolean
  readonly once?: boolean
  readonly stats: number
}

const fields = ['type', 'extra1', 'extra2', 'extra3', 'extra4']

export function addSplitter(program: Command): void {
  program
    .command('splitter')
    .description('distribute the events of a queue over other queues of the database, until SIGTERM or SIGINT')
    .argument('<queue>', 'the queue to split')
    .option('--by <field>', `what decides: ${fields.join(', ')}`, 'type')
    .option('--map <pattern=queue>', 'where to, such as order.*=orders; the first that fits counts', collect, [])
    .option(
      '--rest <queue>',
      'where all others go; without it one that no pattern fits stops the splitter at its batch',
    )
    .option('--consumer <name>', 'name of its subscription', 'splitter')
    .option('--create-queues', 'create the queues that are missing')
    .option('--once', 'split what there is now, then end')
    .option('--stats <seconds>', 'between two lines that tell how much was moved', positiveSeconds, 30)
    .action(async (queue: string, options: Options, command: Command) => {
      dotenv({ quiet: true })
      const { by, map, rest, consumer, createQueues = false, once, stats } = options
      if (!fields.includes(by)) throw new UsageError(`--by takes ${fields.join(', ')}, not ${by}`)
      if (map.length === 0 && rest === undefined)
        throw new UsageError('where to? --map <pattern=queue> or --rest <queue>')
      const exactly = queue.replaceAll(/[*?]/g, '?')
      const routes = map.map((entry) => {
        const at = entry.lastIndexOf('=')
        if (at < 1) throw new UsageError(`--map takes pattern=queue, not ${entry}`)
        return { queue: exactly, [by]: entry.slice(0, at), to: entry.slice(at + 1) }
      })
      const config = moverConfig({
        sources: [{ name: 'here', url: databaseUrl(globals(command)) }],
        routes: [...routes, ...(rest === undefined ? [] : [{ queue: exactly, to: rest }])],
        consumer,
        createQueues,
        origin: 'none',
      })
      await move(config, printer(command), { once, stats })
    })
}

function collect(value: string, previous: readonly string[]): readonly string[] {
  return [...previous, value]
}
