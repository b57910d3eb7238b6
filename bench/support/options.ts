import { parseArgs } from 'node:util'

export interface BenchOptions {
  readonly rounds: number
  readonly seconds: number
  readonly json: boolean
  /** Only the measurements whose name holds this text. */
  readonly only: string
  /** Contenders to leave out. */
  readonly without: readonly string[]
  readonly queues: number
  readonly batches: number
  /** Where the plot of the scenario goes, an SVG file. */
  readonly plotTo: string | undefined
  readonly rows: number
}

export const usage = `npm run bench -- <insert|held|coop|mover|batch|capture> [options]
  --rounds N    interleaved rounds of each measurement
  --seconds N   length of one round (insert, capture)
  --batches N   batches in a run (held), default 12000
  --queues N    queues present (insert), default 100
  --rows N      rows in a statement (capture), default 200000
  --only TEXT   only measurements whose name holds TEXT
  --without X   leave a contender out: ours, 'C extension', 'plain INSERT', row, trigger …; can be given again
  --plot FILE   write a plot, as SVG (batch)
  --json        figures as JSON
SKYTOOLS_BENCH_PGBIN=/usr/lib/postgresql/15/bin chooses server binaries; default: those from npm`

export function benchOptions(argv: string[]): BenchOptions {
  const { values } = parseArgs({
    args: argv,
    options: {
      rounds: { type: 'string', default: '5' },
      seconds: { type: 'string', default: '2' },
      batches: { type: 'string', default: '12000' },
      queues: { type: 'string', default: '100' },
      rows: { type: 'string', default: '200000' },
      only: { type: 'string', default: '' },
      without: { type: 'string', multiple: true, default: [] },
      json: { type: 'boolean', default: false },
      plot: { type: 'string' },
    },
  })
  const number = (name: 'rounds' | 'seconds' | 'batches' | 'queues' | 'rows'): number => {
    const value = Number(values[name])
    if (!(value > 0)) throw new Error(`--${name} wants a number above 0, not ${values[name]}`)
    return value
  }
  return {
    rounds: number('rounds'),
    seconds: number('seconds'),
    batches: number('batches'),
    rows: number('rows'),
    queues: number('queues'),
    json: values.json,
    plotTo: values.plot,
    only: values.only,
    without: values.without,
  }
}
