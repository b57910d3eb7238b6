import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** One released step. */
export interface Migration {
  readonly name: string
  readonly path: string
}

/** The package's own directory, in the checkout and in dist/ alike. */
export function packageRoot(from = dirname(fileURLToPath(import.meta.url))): string {
  if (existsSync(join(from, 'package.json')) && existsSync(join(from, 'sql'))) return from
  const parent = dirname(from)
  if (parent === from) throw new Error('skytools: package.json and sql/ not found above the code')
  return packageRoot(parent)
}

/** The files of sql/ in load order, as order.txt lists them: blank lines and # headings aside. */
export async function sqlFiles(root = packageRoot()): Promise<string[]> {
  const order = await readFile(join(root, 'sql', 'order.txt'), 'utf8')
  return order
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim())
    .filter((line) => line !== '')
}

/** All of sql/ as one text. */
export async function bundleSql(root = packageRoot()): Promise<string> {
  const files = await sqlFiles(root)
  const parts = await Promise.all(files.map(async (file) => readFile(join(root, 'sql', file), 'utf8')))
  return parts.map((part) => `${part.trimEnd()}\n`).join('\n')
}

/** The steps of migrations/, oldest first. */
export async function migrations(root = packageRoot()): Promise<Migration[]> {
  const directory = join(root, 'migrations')
  if (!existsSync(directory)) return []
  const files = (await readdir(directory)).filter((file) => file.endsWith('.sql')).sort()
  return files.map((file) => ({ name: file.replace(/\.sql$/, ''), path: join(directory, file) }))
}
