// npm run check: format, lint, types, SQL, generated files. Says one line a check, and what is wrong below it.
import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { migrationsDirectory, packageRoot, packageVersion, sectionMarkers, sqlFiles } from '../src/schema/bundle.ts'
import { headerProblems } from './dev/headers.ts'
import { plpgsqlProblems } from './dev/plpgsql.ts'
import { statements } from './dev/statements.ts'
import { staleFiles } from './generate.ts'
import { checkMigration } from './migration.ts'

const root = packageRoot()

/** What is wrong: nothing, when the check passes; undefined when it cannot run here. */
type Check = () => Promise<readonly string[] | undefined>

const checks: Readonly<Record<string, Check>> = {
  'format and lint (biome)': () => run('@biomejs/biome/bin/biome', ['check', '--error-on-warnings', '.']),
  'types (tsc)': () => run('typescript/bin/tsc', ['--noEmit', '-p', '.']),
  'SQL parses': parseAll,
  'headers of SQL functions': async () => headerProblems(root),
  'one version': oneVersion,
  'generated files': async () => [
    ...(await staleFiles()).map((path) => `${path} is older than sql/: npm run generate`),
    ...[await checkMigration()].flatMap((problem) => problem ?? []),
    ...(existsSync(join(root, 'scripts', 'docs.ts'))
      ? await run('tsx/dist/cli.mjs', ['scripts/docs.ts', '--check'])
      : []),
  ],
  'lock file names no host but the public registry': async () => {
    const hosts = readFileSync(join(root, 'package-lock.json'), 'utf8').matchAll(/"resolved": "([^"]+)"/g)
    return [...hosts].flatMap(([, url = '']) => (url.startsWith('https://registry.npmjs.org/') ? [] : [url]))
  },
  plpgsql_check: () => plpgsqlProblems(),
}

function run(bin: string, args: readonly string[]): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join(root, 'node_modules', bin), ...args], { cwd: root })
    const output: Buffer[] = []
    child.stdout.on('data', (chunk: Buffer) => output.push(chunk))
    child.stderr.on('data', (chunk: Buffer) => output.push(chunk))
    child.on('error', reject)
    child.on('close', (status) => resolve(status === 0 ? [] : [Buffer.concat(output).toString().trim()]))
  })
}

async function parseAll(): Promise<string[]> {
  const steps = (await readdir(migrationsDirectory(root))).map((file) => join('migrations', file))
  const files = (await sqlFiles(root)).map((file) => join('sql', file))
  const problems: string[] = []
  for (const file of [...files, ...steps]) {
    const text = readFileSync(join(root, file), 'utf8')
    try {
      await statements(text)
    } catch (error) {
      problems.push(`${file}, ${error instanceof Error ? error.message : error}`)
    }
    const foreign = text.split('\n').findIndex((line) => /\P{ASCII}/u.test(line))
    if (foreign >= 0)
      problems.push(`${file}, line ${foreign + 1}: not ASCII, which a database of another encoding refuses`)
    const sections = steps.includes(file) ? 2 : 0
    const markers = sectionMarkers(text)
    if (markers.length > sections)
      problems.push(`${file}, lines ${markers.join(', ')}: looks like a section of a migration`)
  }
  const listed = new Set(files)
  const present = (await readdir(join(root, 'sql'), { recursive: true })).filter((file) => file.endsWith('.sql'))
  return [
    ...problems,
    ...present.filter((file) => !listed.has(join('sql', file))).map((file) => `sql/order.txt lacks ${file}`),
  ]
}

async function oneVersion(): Promise<string[]> {
  const wanted = packageVersion(root)
  const sql = readFileSync(join(root, 'sql', 'skytools', 'version.sql'), 'utf8')
  const found = /select '([^']+)'/.exec(sql)?.[1]
  return found === wanted ? [] : [`package.json says ${wanted}, skytools.version() ${found}`]
}

export async function verify(): Promise<{ passed: number; failed: number }> {
  const results = await Promise.all(
    Object.entries(checks).map(async ([name, check]) => {
      try {
        return { name, problems: await check() }
      } catch (error) {
        return { name, problems: [error instanceof Error ? (error.stack ?? error.message) : String(error)] }
      }
    }),
  )
  for (const { name, problems } of results) {
    console.log(`${problems === undefined ? 'skip' : problems.length === 0 ? 'ok  ' : 'FAIL'}  ${name}`)
    for (const problem of problems ?? []) console.log(problem.replace(/^/gm, '      '))
  }
  const failed = results.filter(({ problems }) => problems && problems.length > 0).length
  return { passed: results.filter(({ problems }) => problems?.length === 0).length, failed }
}

if (process.argv[1] === import.meta.filename) {
  const { failed } = await verify()
  if (failed > 0) process.exitCode = 1
}
