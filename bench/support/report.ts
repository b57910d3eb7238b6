import Table from 'cli-table3'
import { figure, median, ratio } from './statistics.ts'

export interface Measurement {
  /** What was done: the row of the table. */
  readonly name: string
  readonly unit: string
  /** A figure a round for each contender; more is better. */
  readonly rounds: Record<string, number[]>
  readonly note?: string
}

export interface BenchReport {
  readonly scenario: string
  readonly server: string
  readonly settings: string
  /** The contender that the others are compared with. */
  readonly subject: string
  readonly measurements: Measurement[]
}

/** Medians of each contender, and the subject against each of the others. */
export function printReport(report: BenchReport, json: boolean): void {
  const contenders = [...new Set(report.measurements.flatMap(({ rounds }) => Object.keys(rounds)))]
  const others = contenders.filter((name) => name !== report.subject)
  const rows = report.measurements.map(({ name, unit, rounds, note }) => ({
    name,
    unit,
    note,
    medians: Object.fromEntries(Object.entries(rounds).map(([key, values]) => [key, median(values)])),
    ratios: Object.fromEntries(
      others.flatMap((key) => {
        const [ours, theirs] = [rounds[report.subject], rounds[key]]
        return ours && theirs ? [[key, ratio(ours, theirs)]] : []
      }),
    ),
    rounds,
  }))
  if (json) {
    process.stdout.write(`${JSON.stringify({ ...report, measurements: rows }, null, 2)}\n`)
    return
  }
  const table = new Table({
    head: [report.scenario, ...contenders, ...others.map((key) => `${report.subject} / ${key}`), 'unit', ''],
    style: { head: [], border: [] },
  })
  for (const row of rows) {
    table.push([
      row.name,
      ...contenders.map((key) => {
        const value = row.medians[key]
        return { content: value === undefined ? '' : figure(value), hAlign: 'right' as const }
      }),
      ...others.map((key) => {
        const value = row.ratios[key]
        return { content: value === undefined ? '' : value.toFixed(3), hAlign: 'right' as const }
      }),
      row.unit,
      row.note ?? '',
    ])
  }
  process.stdout.write(`Postgres ${report.server}; ${report.settings}\n${table.toString()}\n`)
}
