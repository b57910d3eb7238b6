import Table from 'cli-table3'
import { figure, median, ratio } from './statistics.ts'

export interface Measurement {
  /** What was done: the row of the table. */
  readonly name: string
  readonly unit: string
  /** A figure a round for each contender. */
  readonly rounds: Record<string, number[]>
  /** Less is better: a time, not a rate. */
  readonly less?: boolean
  readonly note?: string
}

export interface BenchReport {
  readonly scenario: string
  readonly server: string
  readonly settings: string
  /** The contender that the others are compared with, or pairs that are. */
  readonly subject: string | readonly (readonly [string, string])[]
  readonly measurements: Measurement[]
}

/** Medians of each contender, and how many times faster the one of a pair is than the other. */
export function printReport(report: BenchReport, json: boolean): void {
  const contenders = [...new Set(report.measurements.flatMap(({ rounds }) => Object.keys(rounds)))]
  const { subject } = report
  const pairs =
    typeof subject === 'string'
      ? contenders.flatMap((name) => (name === subject ? [] : [[subject, name] as const]))
      : subject
  const rows = report.measurements.map(({ name, unit, rounds, less, note }) => ({
    name,
    unit,
    note,
    medians: Object.fromEntries(Object.entries(rounds).map(([key, values]) => [key, median(values)])),
    ratios: Object.fromEntries(
      pairs.flatMap(([one, other]) => {
        const [ours, theirs] = [rounds[one], rounds[other]]
        return ours && theirs ? [[`${one} / ${other}`, less ? ratio(theirs, ours) : ratio(ours, theirs)]] : []
      }),
    ),
    rounds,
  }))
  if (json) {
    process.stdout.write(`${JSON.stringify({ ...report, measurements: rows }, null, 2)}\n`)
    return
  }
  const notes = rows.some(({ note }) => note !== undefined)
  const table = new Table({
    head: [report.scenario, ...contenders, ...pairs.map((pair) => pair.join(' / ')), 'unit', ...(notes ? [''] : [])],
    style: { head: [], border: [] },
  })
  for (const row of rows) {
    table.push([
      row.name,
      ...contenders.map((key) => {
        const value = row.medians[key]
        return { content: value === undefined ? '' : figure(value), hAlign: 'right' as const }
      }),
      ...pairs.map((pair) => {
        const value = row.ratios[pair.join(' / ')]
        return { content: value === undefined ? '' : value.toFixed(3), hAlign: 'right' as const }
      }),
      row.unit,
      ...(notes ? [row.note ?? ''] : []),
    ])
  }
  process.stdout.write(`Postgres ${report.server}; ${report.settings}\n${table.toString()}\n`)
}
