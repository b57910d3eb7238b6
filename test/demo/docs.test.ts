import { spawn } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type Db, install, type Row } from '../../src/index.ts'
import { databases, servers, type TestDb } from '../support/databases.ts'
import { tsx } from '../support/tsx.ts'
import { root } from './run.ts'

interface Block {
  readonly language: string
  readonly code: string
  readonly line: number
}

/** Inside the checkout, so that the packages of the blocks resolve. */
async function blockFolder(): Promise<string> {
  await mkdir(join(root, '.cache'), { recursive: true })
  return mkdtemp(join(root, '.cache', 'block-'))
}

async function blocks(file: string): Promise<Block[]> {
  const text = await readFile(join(root, file), 'utf8')
  return [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(({ 1: language = '', 2: code = '', index }) => ({
    language,
    code,
    line: text.slice(0, index).split('\n').length,
  }))
}

const cli = join(root, 'scripts', 'skytools.ts')
const typescriptNode = [process.execPath, ...tsx].map((word) => `'${word}'`).join(' ')

function shell(script: string, url: string, folder: string): { ended: Promise<string>; stop(): void } {
  // The commands as they stand, but from the checkout; psql may not be there, and what it would get is kept.
  const text = `npx() { shift; ${typescriptNode} '${cli}' "$@"; }
psql() { cat > '${folder}/psql.sql'; }
set -euo pipefail
${script}`
  const child = spawn('bash', ['-c', text], { env: { ...process.env, DATABASE_URL: url }, cwd: folder, detached: true })
  let output = ''
  const take = (chunk: Buffer) => {
    output += chunk
  }
  child.stdout.on('data', take)
  child.stderr.on('data', take)
  const ended = new Promise<string>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => {
      if (code === 0 || code === null) resolve(output)
      else reject(new Error(`exit code ${code} of:\n${script}\n${output}`))
    })
  })
  // The whole group: the ticker is a child of the shell's child.
  return { ended, stop: () => child.pid !== undefined && process.kill(-child.pid, 'SIGTERM') }
}

/** TypeScript as it stands, but for where the package is. */
async function typescript(code: string, url: string): Promise<string> {
  const folder = await blockFolder()
  try {
    const file = join(folder, 'block.mts')
    await writeFile(file, code.replaceAll("'skytools'", `'${join(root, 'src', 'index.ts')}'`))
    return await shell(`${typescriptNode} '${file}'`, url, folder).ended
  } finally {
    await rm(folder, { recursive: true })
  }
}

/** As psql does it: statement by statement, with \gset; a batch that is not there yet is waited for. */
async function psql(db: Db, code: string): Promise<(Row | undefined)[]> {
  const variables = new Map<string, string>()
  const results: (Row | undefined)[] = []
  for (const [, sql = '', gset] of code.matchAll(/(.+?)(?:;$|\s(\\gset)$)/gms)) {
    const text = sql.replaceAll(/(?<!:):(\w+)/g, (_, name: string) => variables.get(name) ?? `:${name}`)
    const [row] = await untilFound(() => db.query(text), gset !== undefined)
    if (gset) for (const [name, value] of Object.entries(row ?? {})) variables.set(name, String(value))
    results.push(row)
  }
  return results
}

async function untilFound<T extends object>(query: () => Promise<T[]>, wait: boolean): Promise<T[]> {
  for (;;) {
    const rows = await query()
    if (!wait || Object.values(rows[0] ?? {}).every((value) => value !== null)) return rows
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

async function sql(db: Db, code: string): Promise<string> {
  for (;;) {
    const rows = await psql(db, code)
    // As the text next to it says: an empty batch was finished, run the block again.
    if (code.includes('get_batch_events') && !rows.some((row) => Object.hasOwn(row ?? {}, 'ev_id'))) continue
    return JSON.stringify(rows, (_key, value) => (typeof value === 'bigint' ? Number(value) : value))
  }
}

async function runAll(file: string, db: TestDb, skip: RegExp): Promise<string[]> {
  const url = db.url ?? ''
  const outputs: string[] = []
  const folder = await blockFolder()
  const tickers: ReturnType<typeof shell>[] = []
  const runBlock = async ({ language, code }: Block) => {
    if (code.trim() === 'npx skytools ticker')
      tickers.push(shell(`exec ${typescriptNode} '${cli}' ticker`, url, folder))
    else if (language === 'sh') outputs.push(await shell(code, url, folder).ended)
    else if (language === 'ts') outputs.push(await typescript(code, url))
    else if (language === 'sql') outputs.push(await sql(db, code))
    else throw new Error(`no test runs blocks of ${language}`)
  }
  try {
    for (const block of await blocks(file)) {
      if (skip.test(block.code)) continue
      await runBlock(block).catch((error: Error) => {
        throw new Error(`${file}:${block.line}: ${error.message}`, { cause: error })
      })
    }
  } finally {
    for (const ticker of tickers) ticker.stop()
    outputs.push(...(await Promise.all(tickers.map(({ ended }) => ended))))
    await rm(folder, { recursive: true })
  }
  return outputs
}

const newest = servers.slice(-1)

describe.each(newest)('the documents on $name', { timeout: 180_000 }, ({ openEmpty }) => {
  it('README: each block of the tour does what it says', async () => {
    await using db = await openEmpty()
    const outputs = (await runAll('README.md', db, /^npm (start|test)$|skytools sql/m)).join('\n')
    expect(outputs).toContain('installed skytools')
    expect(outputs).toContain('"ev_type":"created","ev_data":"{\\"id\\": 1}"')
    expect(outputs).toContain('1 mail to send')
    expect(outputs).toContain('nothing is wrong')
    expect(outputs).toMatch(/installed \d+\.\d+\.\d+ in 1 step/)
    expect(outputs).toContain('ticker stopped')
  })

  it('capture: changes of a table become events', async () => {
    await using db = await openEmpty()
    await install(db)
    const outputs = (await runAll('docs/capture.md', db, /^$/)).join('\n')
    expect(outputs).toContain('{\\"id\\":1,\\"state\\":\\"paid\\",\\"total\\":\\"9.90\\"}')
  })

  it('tutorial: each block does what it says, to the uninstall', async () => {
    await using db = await openEmpty()
    const outputs = (await runAll('docs/tutorial.md', db, /^$/)).join('\n')
    expect(outputs).toContain('4 signups counted')
    expect(outputs).toContain('4 welcomed')
    expect(outputs).toContain('"ev_data":"{\\"id\\": 6}"')
    expect(await db.query(`select nspname from pg_namespace where nspname in ('pgq', 'skytools')`)).toEqual([])
  })
})

describe.each(databases)('the bundle as a script on $name', ({ openEmpty }) => {
  it('is what README pipes into psql', async () => {
    await using db = await openEmpty()
    const block = (await blocks('README.md')).find(({ code }) => code.includes('skytools sql'))
    const folder = await blockFolder()
    try {
      await shell(block?.code ?? '', 'unused', folder).ended
      await db.exec(await readFile(join(folder, 'psql.sql'), 'utf8'))
    } finally {
      await rm(folder, { recursive: true })
    }
    expect(await db.query(`select pgq.create_queue('q') as created`)).toEqual([{ created: 1 }])
  })
})
