import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import { config as dotenv } from 'dotenv'
import {
  createTicker,
  maintain,
  returnRetries,
  SkytoolsError,
  serveHealth,
  type TickerDaemonOptions,
  tick,
} from '../src/index.ts'
import { parseTickerIni, type TickerIni } from '../src/ticker/ini.ts'
import { databaseUrl, globals, positiveSeconds, stopSignal, UsageError, wholeNumber, withDb } from './connection.ts'
import { createLog, type LogOptions } from './log.ts'

interface Options extends LogOptions {
  readonly once?: boolean
  readonly allDatabases?: boolean
  readonly period: number
  readonly retryPeriod: number
  readonly maintenancePeriod: number
  readonly checkPeriod: number
  readonly takeover: number
  readonly wakeUp: boolean
  readonly prepare: boolean
  readonly port?: number
  readonly host: string
}

export function addTicker(program: Command): void {
  program
    .command('ticker')
    .description('tick the queues, return retries and rotate, until SIGTERM or SIGINT')
    .argument('[ini]', "pgqd's configuration file: the databases of a cluster, and the periods")
    .option('--once', 'one round of each, then end')
    .option('--all-databases', 'every database of the cluster that has skytools, those to come too')
    .option('--period <seconds>', 'between ticks', positiveSeconds, 1)
    .option('--retry-period <seconds>', 'between rounds of retries', positiveSeconds, 30)
    .option('--maintenance-period <seconds>', 'between rounds of maintenance', positiveSeconds, 120)
    .option('--check-period <seconds>', 'between looks for new databases', positiveSeconds, 60)
    .option('--takeover <seconds>', 'that ticks may be missing before a waiting ticker takes over', positiveSeconds, 5)
    .option('--no-wake-up', 'do not listen to producers')
    .option('--no-prepare', 'no prepared statements')
    .option('--port <port>', 'serve /healthz and /readyz', wholeNumber)
    .option('--host <host>', 'to serve them on', '127.0.0.1')
    .option('--log-level <level>', 'error, warn, info or debug', 'info')
    .option('--log-file <file>', 'else standard output; SIGHUP opens it anew')
    .action(async (ini: string | undefined, options: Options, command: Command) => {
      if (options.once) await once(command)
      else await run(ini, options, command)
    })
}

async function once(command: Command): Promise<void> {
  await withDb(command, async (db, print) => {
    const [ticks, retries] = [await tick(db), await returnRetries(db)]
    const operations = (await maintain(db)).length
    print({ ticks, retries, operations }, `ticks: ${ticks}, retries: ${retries}, maintenance: ${operations}`)
  })
}

async function run(ini: string | undefined, options: Options, command: Command): Promise<void> {
  dotenv({ quiet: true })
  const read = (): { ini?: TickerIni; ticker: TickerDaemonOptions } => {
    if (ini === undefined) return { ticker: fromFlags(options, command) }
    const file = parseTickerIni(readFile(ini))
    return { ini: file, ticker: { ...file.options, ...beyondIni(options) } }
  }
  const first = read()
  const logFile = options.logFile ?? first.ini?.logFile
  const log = createLog({ ...options, ...(logFile !== undefined && { logFile }), json: globals(command).json ?? false })
  for (const key of first.ini?.ignored ?? []) log.warn({ key }, 'a key that is not known')
  const ticker = createTicker({
    ...first.ticker,
    onState: (database, state) => log.info({ database, state }, state),
    onWork: (database, { what, count }) => log[what === 'tick' ? 'debug' : 'info']({ database, [what]: count }, what),
    onError: (error, database) => log.error({ database, ...describe(error) }, 'failed'),
  })
  const signal = stopSignal()
  const reload = () => {
    log.reopen()
    try {
      ticker.reload(read().ticker)
      log.info('reloaded')
    } catch (error) {
      log.error(describe(error), 'not reloaded')
    }
  }
  process.on('SIGHUP', reload)
  const { pidFile, statsPeriod = 30 } = first.ini ?? {}
  if (pidFile !== undefined) writeFileSync(pidFile, `${process.pid}\n`)
  let before = ticker.stats()
  const statistics = setInterval(() => {
    const { ticks, maintenance, retries } = ticker.stats()
    const done = {
      ticks: ticks - before.ticks,
      maintenance: maintenance - before.maintenance,
      retries: retries - before.retries,
    }
    before = { ticks, maintenance, retries }
    log.info(done, 'statistics')
  }, statsPeriod * 1000)
  log.info({ pid: process.pid }, 'ticker started')
  const { port, host } = options
  try {
    await Promise.all([
      ticker.run(signal),
      port === undefined
        ? undefined
        : serveHealth(ticker, { port, host, signal, onListening: (url) => log.info({ url }, 'health') }),
    ])
    log.info('ticker stopped')
  } finally {
    clearInterval(statistics)
    process.off('SIGHUP', reload)
    if (pidFile !== undefined) rmSync(pidFile, { force: true })
  }
}

function fromFlags(options: Options, command: Command): TickerDaemonOptions {
  const url = databaseUrl(globals(command))
  const { period, retryPeriod, maintenancePeriod, checkPeriod } = options
  return {
    ...(options.allDatabases ? { cluster: url } : { databases: [url] }),
    ...{ period, retryPeriod, maintenancePeriod, checkPeriod },
    ...beyondIni(options),
  }
}

/** What pgqd's file has no keys for. */
function beyondIni({ takeover, wakeUp, prepare }: Options): Partial<TickerDaemonOptions> {
  return { takeover, listen: wakeUp, prepare }
}

function readFile(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new UsageError(`cannot read ${path}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

function describe(error: unknown): { error: string; hint?: string } {
  const message = error instanceof Error ? error.message : String(error)
  return error instanceof SkytoolsError && error.hint ? { error: message, hint: error.hint } : { error: message }
}
