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
  /** How long, where a snapshot is held. */
  readonly minutes: number
  /** Messages a second then. */
  readonly rate: number
  /** Where the plot of the scenario goes, an SVG file. */
  readonly plotTo: string | undefined
  readonly rows: number
}

export const usage = `npm run bench -- <insert|held|coop|mover|batch|capture|e2e|wakeup> [options]
  --rounds N    interleaved rounds of each measurement
  --seconds N   length of one round (insert, capture, e2e, wakeup)
  --batches N   batches in a run (held), default 12000
  --minutes N   of an old snapshot (e2e), default 10; --rate N messages a second then, default 1000
  --queues N    queues present (insert), default 100
  --rows N      rows in a statement (capture), default 200000
  --only TEXT   only measurements whose name holds TEXT
  --without X   leave a contender out: ours, 'C extension', 'plain INSERT', row, trigger …; can be given again
  --plot FILE   write a plot, as SVG (batch, e2e)
  --json        figures as JSON
SKYTOOLS_BENCH_PGBIN=/usr/lib/postgresql/15/bin chooses server binaries; default: those from npm`

export function benchOptions(argv: string[]): BenchOptions {
  const { values } = parseArgs({
    args: argv,
    options: {
      rounds: { type: 'string', default: '5' },
      seconds: { type: 'string', default: '2' },
      batches: { type: 'string', default: '12000' },
      minutes: { type: 'string', default: '10' },
      rate: { type: 'string', default: '1000' },
      queues: { type: 'string', default: '100' },
      rows: { type: 'string', default: '200000' },
      only: { type: 'string', default: '' },
      without: { type: 'string', multiple: true, default: [] },
      json: { type: 'boolean', default: false },
      plot: { type: 'string' },
    },
  })
  const number = (name: 'rounds' | 'seconds' | 'batches' | 'queues' | 'rows' | 'minutes' | 'rate'): number => {
    const value = Number(values[name])
    if (!(value > 0)) throw new Error(`--${name} wants a number above 0, not ${values[name]}`)
    return value
  }
  return {
    rounds: number('rounds'),
    seconds: number('seconds'),
    batches: number('batches'),
    rows: number('rows'),
    minutes: number('minutes'),
    rate: number('rate'),
    queues: number('queues'),
    json: values.json,
    plotTo: values.plot,
    only: values.only,
    without: values.without,
  }
}
