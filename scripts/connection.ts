import { createInterface } from 'node:readline/promises'
import Table from 'cli-table3'
import { type Command, InvalidArgumentError } from 'commander'
import { config } from 'dotenv'
import type { Db } from '../src/db/db.ts'
import { openDb } from '../src/db/open.ts'
import { SkytoolsError } from '../src/errors.ts'

export interface GlobalOptions {
  readonly databaseUrl?: string
  readonly json?: boolean
  readonly yes?: boolean
}

/** `data` for --json, `text` for people. */
export type Print = (data: unknown, text: string) => void

/** Not what the command was asked, but how: exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

export function addGlobalOptions(program: Command): Command {
  return program
    .option('--database-url <url>', 'postgres://… or pglite:<folder>; else DATABASE_URL, PG* variables, .env')
    .option('--json', 'print JSON')
    .option('-y, --yes', 'do not ask')
}

export function globals(command: Command): GlobalOptions {
  return command.optsWithGlobals<GlobalOptions>()
}

const variables = ['PGHOST', 'PGPORT', 'PGDATABASE', 'PGUSER', 'PGSERVICE'] as const

/** Where the database is: the flag, DATABASE_URL, or the PG* variables that node-postgres reads by itself. */
export function databaseUrl({ databaseUrl }: GlobalOptions, env = process.env): string {
  if (databaseUrl) return databaseUrl
  if (env.DATABASE_URL) return env.DATABASE_URL
  if (variables.some((name) => env[name])) return 'postgres://'
  throw new UsageError('no database given: --database-url postgres://…, or set DATABASE_URL or PGHOST, PGDATABASE, …')
}

export function printer(command: Command): Print {
  const { json } = globals(command)
  return (data, text) => {
    if (json) process.stdout.write(`${toJson(data)}\n`)
    else if (text !== '') process.stdout.write(`${text}\n`)
  }
}

/** Opens the database that the flags name, for as long as `work` takes. */
export async function withDb(command: Command, work: (db: Db, print: Print) => Promise<void>): Promise<void> {
  config({ quiet: true })
  const url = databaseUrl(globals(command))
  const db = await open(url)
  try {
    await work(db, printer(command))
  } finally {
    await db.close()
  }
}

async function open(url: string): Promise<Db> {
  try {
    return await openDb(url)
  } catch (error) {
    if (error instanceof SkytoolsError) throw error
    const message = error instanceof AggregateError ? error.errors.map(String).join('; ') : String(error)
    const hint = 'look at --database-url, DATABASE_URL or the PG* variables, and whether the server runs'
    throw new SkytoolsError('PQ040', `cannot connect: ${message.replace(/^Error: /, '')}`, hint, error)
  }
}

/** Asks before something that cannot be undone. --yes answers; without a terminal, --yes is needed. */
export async function confirm(command: Command, question: string): Promise<void> {
  if (globals(command).yes) return
  if (!process.stdin.isTTY) throw new UsageError(`${question} Say so with --yes`)
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  try {
    const answer = await terminal.question(`${question} [y/N] `)
    if (!/^y(es)?$/i.test(answer.trim())) throw new UsageError('stopped: nothing was changed')
  } finally {
    terminal.close()
  }
}

/** A table for people. */
export function table(head: readonly string[], rows: readonly (readonly unknown[])[]): string {
  const drawn = new Table({ head: [...head], style: { head: [], border: [], compact: true } })
  for (const row of rows) drawn.push(row.map((cell) => (cell === null || cell === undefined ? '' : String(cell))))
  return drawn.toString()
}

export function toJson(data: unknown): string {
  const plain = (_key: string, value: unknown) => {
    if (typeof value !== 'bigint') return value
    return Number.isSafeInteger(Number(value)) ? Number(value) : value.toString()
  }
  return JSON.stringify(data, plain, 2)
}

/** For commander's options that take a whole number. */
export function wholeNumber(value: string): number {
  if (!/^\d+$/.test(value)) throw new InvalidArgumentError('a whole number is needed')
  return Number(value)
}

/** For commander's options that take seconds. */
export function positiveSeconds(value: string): number {
  if (!(Number(value) > 0)) throw new InvalidArgumentError('seconds are needed')
  return Number(value)
}

/** Aborted by SIGTERM and SIGINT; a second one ends the process at once. */
export function stopSignal(): AbortSignal {
  const stop = new AbortController()
  const end = () => stop.abort()
  process.once('SIGTERM', end).once('SIGINT', end)
  return stop.signal
}
