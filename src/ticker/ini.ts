import { parse } from 'ini'
import { SkytoolsError } from '../errors.ts'
import type { TickerDaemonOptions } from './config.ts'

/** What the ini file of pgqd says, in our terms. */
export interface TickerIni {
  readonly options: TickerDaemonOptions
  readonly logFile: string | undefined
  readonly pidFile: string | undefined
  /** Seconds between lines of statistics in the log. */
  readonly statsPeriod: number
  /** Keys that mean nothing to us. */
  readonly ignored: readonly string[]
}

/** Keys that have a meaning for pgqd alone: this ticker writes to stdout or a file, and keeps its connections. */
const foreign = ['syslog', 'syslog_ident', 'syslog_facility', 'connection_lifetime']

/** Reads the ini file of pgqd, so that either daemon can take the other's place.
 *
 * @throws TickerConfigError (PQ080) */
export function parseTickerIni(text: string): TickerIni {
  const section: unknown = (parse(text) as Record<string, unknown>).pgqd
  if (typeof section !== 'object' || section === null) throw invalid('it has no section [pgqd]')
  const keys = new Map(Object.entries(section as Record<string, unknown>).map(([key, value]) => [key, String(value)]))
  const take = (key: string): string | undefined => {
    const value = keys.get(key)
    keys.delete(key)
    return value === '' ? undefined : value
  }
  const seconds = (key: string): number | undefined => {
    const value = take(key)
    if (value === undefined) return undefined
    if (!(Number(value) > 0)) throw invalid(`${key} = ${value}: seconds above 0 are needed`)
    return Number(value)
  }
  const base = take('base_connstr') ?? ''
  const only = take('database_list')
    ?.split(/[\s,]+/)
    .filter((word) => word !== '')
  const periods = {
    period: seconds('ticker_period'),
    retryPeriod: seconds('retry_period'),
    maintenancePeriod: seconds('maint_period'),
    checkPeriod: seconds('check_period'),
  }
  const statsPeriod = seconds('stats_period') ?? 30
  const [logFile, pidFile, initial] = [take('logfile'), take('pidfile'), take('initial_database')]
  for (const key of foreign) keys.delete(key)
  return {
    options: {
      cluster: connectionUrl(base, initial ?? 'template1'),
      ...(only && only.length > 0 && { only }),
      ...Object.fromEntries(Object.entries(periods).filter(([, value]) => value !== undefined)),
    },
    logFile,
    pidFile,
    statsPeriod,
    ignored: [...keys.keys()],
  }
}

/** A connection string of libpq, `host=… user=…` or a URL, as the URL of a database.
 *
 * @throws TickerConfigError (PQ080) it is neither */
export function connectionUrl(text: string, database: string): string {
  if (/^postgres(ql)?:\/\//.test(text.trim())) {
    const [, before = '', after = ''] = /^(\w+:\/\/[^/?]*)(?:\/[^?]*)?(.*)$/.exec(text.trim()) ?? []
    return `${before}/${encodeURIComponent(database)}${after}`
  }
  const parameters = new URLSearchParams()
  let rest = text.trim()
  while (rest !== '') {
    const word = /^(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)(?:\s+|$)/s.exec(rest)
    const [whole, key = '', value = ''] = word ?? []
    if (whole === undefined) throw invalid(`base_connstr: not understood: ${rest}`)
    parameters.set(key, value.replace(/^'(.*)'$/s, '$1').replace(/\\(.)/gs, '$1'))
    rest = rest.slice(whole.length)
  }
  parameters.delete('dbname')
  const query = parameters.toString()
  return `postgres:///${encodeURIComponent(database)}${query === '' ? '' : `?${query}`}`
}

function invalid(message: string): SkytoolsError {
  return new SkytoolsError('PQ080', `ticker configuration: ${message}`, 'see docs/ticker.md')
}
