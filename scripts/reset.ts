import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Command } from 'commander'
import { reset, type Seed } from '../src/index.ts'
import { confirm, positiveSeconds, UsageError, withDb } from './connection.ts'
import { describeWiped } from './wipe.ts'

interface Options {
  readonly seed?: string
  readonly force?: string
  readonly dryRun?: boolean
  readonly lockTimeout: number
}

export function addReset(program: Command): void {
  program
    .command('reset')
    .description('start clean: drop all queues, remove the schemas, install them anew, run the seed')
    .option('--seed <file>', 'what creates your queues again: .sql, or .ts or .js that exports a function seed(db)')
    .option('--force <database>', 'the name of the database, where it is protected')
    .option('--dry-run', 'print what would go')
    .option(
      '--lock-timeout <seconds>',
      'how long to wait for transactions that are using the queues',
      positiveSeconds,
      5,
    )
    .action(async ({ seed: file, force, dryRun, lockTimeout }: Options, command: Command) => {
      // Before anything goes: a seed that cannot be read must not leave an empty database.
      const seed = file === undefined ? undefined : await readSeed(resolve(process.env.INIT_CWD ?? '.', file))
      if (!dryRun) await confirm(command, 'Drop all queues, and install anew?')
      await withDb(command, async (db, print) => {
        const result = await reset(db, { seed, database: force, dryRun, lockTimeout })
        const wiped = describeWiped(result.wiped)
        const done = `reset in ${result.seconds.toFixed(2)} s: skytools ${result.installed?.to}${seed ? ', seeded' : ''}`
        print(result, dryRun ? wiped : `${wiped}\n${done}`)
      })
    })
}

async function readSeed(path: string): Promise<Seed> {
  if (path.endsWith('.sql')) {
    return readFile(path, 'utf8').catch((error: unknown) => {
      throw new UsageError(`--seed ${path}: ${String(error)}`)
    })
  }
  const module = await importModule(path)
  const seed = module.seed ?? module.default
  if (typeof seed !== 'function') throw new UsageError(`--seed ${path}: it exports no function seed(db)`)
  return seed as Exclude<Seed, string>
}

async function importModule(path: string): Promise<Record<string, unknown>> {
  const url = pathToFileURL(path).href
  try {
    return (await import(url)) as Record<string, unknown>
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code !== 'ERR_UNKNOWN_FILE_EXTENSION') throw new UsageError(`--seed ${path}: ${String(error)}`)
  }
  // Node does not read TypeScript by itself: tsx of the application does.
  let tsx: string
  try {
    tsx = createRequire(join(path, '..', 'x.js')).resolve('tsx/esm/api')
  } catch {
    throw new UsageError(`--seed ${path}: to read TypeScript, npm install --save-dev tsx`)
  }
  const { tsImport } = (await import(pathToFileURL(tsx).href)) as {
    tsImport: (url: string, parent: string) => Promise<Record<string, unknown>>
  }
  return tsImport(url, import.meta.url)
}
