// npx tsx scripts/extract-flights.ts     writes data/flights.csv anew from the npm package that it comes from
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const source = 'vega-datasets@3.2.1'
/** As the package's datapackage.json gives it: that of the file as a git object. */
const sha1 = '20c920b46db4f664bed3e1420b8348527cd7c41e'
const target = join(import.meta.dirname, '..', 'data', 'flights.csv')

interface Flight {
  readonly date: string
  readonly delay: number
  readonly distance: number
  readonly origin: string
  readonly destination: string
}

// The package weighs 17 MB and serves nothing else here: it is fetched for this run, and no dependency.
const directory = mkdtempSync(join(tmpdir(), 'flights-'))
try {
  const install = ['install', '--prefix', directory, '--no-save', '--ignore-scripts', '--no-audit', '--no-fund', source]
  execFileSync('npm', install, { stdio: 'inherit' })
  const json = readFileSync(join(directory, 'node_modules', 'vega-datasets', 'data', 'flights-20k.json'))
  const found = createHash('sha1').update(`blob ${json.length}\0`).update(json).digest('hex')
  if (found !== sha1) throw new Error(`flights-20k.json of ${source} has SHA-1 ${found}, not ${sha1}`)
  const flights = JSON.parse(json.toString()) as Flight[]
  writeFileSync(target, ['time,delay,distance,origin,destination', ...flights.map(line)].join('\n').concat('\n'))
  console.log(`wrote ${flights.length} flights to ${target}`)
} finally {
  rmSync(directory, { recursive: true })
}

function line({ date, delay, distance, origin, destination }: Flight): string {
  return [date.replaceAll('/', '-'), delay, distance, origin, destination].join(',')
}
