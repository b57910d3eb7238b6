// npm start                   replays data/flights.csv through a queue, on PGlite, or on the server of DATABASE_URL
// npm start -- <file>|-       your own CSV or NDJSON, from a file or standard input
import { existsSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { config } from 'dotenv'
import { type Db, install, openDb, SkytoolsError, schemaStatus, status } from '../src/index.ts'
import { packageRoot } from '../src/schema/bundle.ts'
import { describeFigures } from './demo/report.ts'
import { prepare, queue, replay } from './demo/run.ts'
import { scenarioFor } from './demo/scenario.ts'
import { InputError, type InputRecord, openSource, type Source } from './records.ts'
import { describeStatus } from './status.ts'

const usage = 'usage: npm start [-- <file.csv> | <file.ndjson> | -]'
/** Where npm was started: it changes to the package's folder. */
const here = process.env.INIT_CWD ?? process.cwd()

export async function main(args: readonly string[]): Promise<number> {
  const [argument] = args
  if (args.length > 1 || (argument?.startsWith('-') && argument !== '-')) {
    const asked = argument === '--help' || argument === '-h'
    ;(asked ? console.log : console.error)(usage)
    return asked ? 0 : 2
  }
  try {
    await demo(await openSource(pathOf(argument)))
    return 0
  } catch (error) {
    const hint = error instanceof SkytoolsError && error.hint ? `\nhint: ${error.hint}` : ''
    console.error(`skytools: ${messageOf(error)}${hint}`)
    return 1
  }
}

function pathOf(argument: string | undefined): string {
  if (argument === '-') return argument
  const path = argument === undefined ? join(packageRoot(), 'data', 'flights.csv') : resolve(here, argument)
  const short = relative(process.cwd(), path)
  return short.startsWith('..') || !existsSync(short) ? path : short
}

async function demo(source: Source): Promise<void> {
  config({ quiet: true })
  // Before the database starts: bad input shall not have to wait for it.
  const { first, records } = await withFirst(source)
  const scenario = scenarioFor(first, source)
  const url = process.env.DATABASE_URL || undefined
  const db = await open(url)
  try {
    const { version, installed } = await ensureInstalled(db)
    console.log(`skytools ${version}${installed ? '' : ', just installed'}, on ${await describeDatabase(db)}`)
    await prepare(db, scenario)
    const how = scenario.captured ? `, into which pgq.capture() turns the rows of ${scenario.captured}` : ''
    console.log(`queue ${queue}${how}; consumers ${scenario.consumer} and counter; replaying ${source.name} …\n`)
    const figures = await replay(db, scenario, records)
    console.log(describeFigures(figures, scenario))
    const { title, drawn } = await scenario.result(db)
    console.log(`\n${title}\n${drawn}`)
    console.log(`\nskytools status\n${await ownStatus(db)}`)
    if (url) {
      console.log(`\nleft for a look: the queue ${queue} and the schema skytools_demo; to remove them:
    select pgq.drop_queue('${queue}', true); drop schema skytools_demo cascade;`)
    }
  } finally {
    await db.close()
  }
}

async function withFirst({
  name,
  records,
}: Source): Promise<{ first: InputRecord; records: AsyncIterable<InputRecord> }> {
  const iterator = records[Symbol.asyncIterator]()
  const first = await iterator.next()
  if (first.done) throw new InputError(`${name} has no records`)
  async function* all() {
    for (let next = first; !next.done; next = await iterator.next()) yield next.value
  }
  return { first: first.value, records: all() }
}

async function open(url: string | undefined): Promise<Db> {
  // Optimizing PGlite's WebAssembly in the background costs more than a run as short as this gains by it.
  setFlagsFromString('--no-wasm-tier-up')
  try {
    return await openDb(url)
  } catch (error) {
    const hint = 'look at DATABASE_URL; without it, the demo runs in this process'
    throw new SkytoolsError('PQ040', `cannot connect: ${messageOf(error)}`, hint, error)
  }
}

/** An installed bundle stays as it is: the demo upgrades nobody. */
async function ensureInstalled(db: Db): Promise<{ version: string | undefined; installed: boolean }> {
  const found = await schemaStatus(db)
  if (found.installed) return { version: found.version, installed: true }
  return { version: (await install(db)).to, installed: false }
}

async function describeDatabase(db: Db): Promise<string> {
  const [server] = await db.query<{ version: string }>(`select current_setting('server_version') as version`)
  return db.kind === 'pglite' ? `PGlite (Postgres ${server?.version}) in this process` : `Postgres ${server?.version}`
}

/** As the command shows it, but for the demo's queue alone. */
async function ownStatus(db: Db): Promise<string> {
  const all = await status(db)
  return describeStatus({
    ...all,
    queues: all.queues.filter((info) => info.queue === queue),
    consumers: all.consumers.filter((info) => info.queue === queue),
    findings: all.findings.filter(({ subject }) => subject.endsWith(queue)),
  })
}

function messageOf(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(messageOf).join('; ')
  return error instanceof Error ? error.message : String(error)
}

process.exitCode = await main(process.argv.slice(2))
