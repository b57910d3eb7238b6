import { existsSync, readFileSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { SkytoolsError } from '../errors.ts'

/** One released step: a file of migrations/. */
export interface Migration {
  /** File name without .sql: what the ledger stores. */
  readonly name: string
  /** The version of skytools that the step leads to. */
  readonly version: string
  readonly up: string
  /** undefined: the step is irreversible. */
  readonly down: string | undefined
}

/** The package's own directory, in the checkout and in dist/ alike. */
export function packageRoot(from = dirname(fileURLToPath(import.meta.url))): string {
  if (existsSync(join(from, 'package.json')) && existsSync(join(from, 'sql'))) return from
  const parent = dirname(from)
  if (parent === from) throw new SkytoolsError('PQ039', 'package.json and sql/ are not above the code of skytools')
  return packageRoot(parent)
}

export function migrationsDirectory(root = packageRoot()): string {
  return join(root, 'migrations')
}

export function packageVersion(root = packageRoot()): string {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }
  return version
}

/** The files of sql/ in load order, as order.txt lists them: blank lines and # headings aside. */
export async function sqlFiles(root = packageRoot()): Promise<string[]> {
  const order = await readFile(join(root, 'sql', 'order.txt'), 'utf8')
  return order
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim())
    .filter((line) => line !== '')
}

/** All of sql/ as one text: what the schema is today. */
export async function bundleSql(root = packageRoot()): Promise<string> {
  const files = await sqlFiles(root)
  const parts = await Promise.all(files.map((file) => readFile(join(root, 'sql', file), 'utf8')))
  return parts.map((part) => `${part.trimEnd()}\n`).join('\n')
}

/** The steps of migrations/, oldest first. */
export async function migrations(root = packageRoot()): Promise<Migration[]> {
  const directory = migrationsDirectory(root)
  if (!existsSync(directory)) return []
  const files = (await readdir(directory)).filter((file) => file.endsWith('.sql')).sort()
  return Promise.all(
    files.map(async (file) => parseMigration(file.slice(0, -4), await readFile(join(directory, file), 'utf8'))),
  )
}

const upMarker = /^-- Up Migration$/m
const downMarker = /^-- Down Migration$/m

/** Format: a first line `-- skytools <version>`, then `-- Up Migration` and, unless irreversible, `-- Down Migration`. */
export function parseMigration(name: string, text: string): Migration {
  const version = /^-- skytools (\d+\.\d+\.\d+\S*)$/m.exec(text)?.[1]
  const up = upMarker.exec(text)
  const down = downMarker.exec(text)
  if (!version || !up || (down && down.index < up.index)) {
    throw new SkytoolsError(
      'PQ039',
      `migration ${name} lacks its version line or its Up section`,
      'write migrations with: npm run migration -- <name>',
    )
  }
  const upStart = up.index + up[0].length
  return {
    name,
    version,
    up: text.slice(upStart, down?.index).trim(),
    down: down ? text.slice(down.index + down[0].length).trim() : undefined,
  }
}

/** The lines that node-pg-migrate takes for the start of a section, wherever they stand, in a function body too. */
export function sectionMarkers(text: string): number[] {
  return text.split('\n').flatMap((line, index) => (/^\s*--[\s-]*(up|down)\s+migration/i.test(line) ? [index + 1] : []))
}
