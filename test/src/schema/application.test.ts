import { cpSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runner } from 'node-pg-migrate'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { check, eject, install, schemaStatus, uninstall } from '../../../src/index.ts'
import { migrations, packageRoot } from '../../../src/schema/bundle.ts'
import { servers } from '../../support/databases.ts'

const fixture = join(packageRoot(), 'test', 'fixtures', 'app')
let app: string

beforeEach(() => {
  app = mkdtempSync(join(tmpdir(), 'skytools-app-'))
  cpSync(fixture, app, { recursive: true })
})
afterEach(() => rmSync(app, { recursive: true, force: true }))

/** What the application's CI does: node-pg-migrate with nothing but its defaults. */
function migrate(url: string | undefined, direction: 'up' | 'down' = 'up', count = Number.POSITIVE_INFINITY) {
  return runner({
    databaseUrl: url ?? '',
    dir: join(app, 'migrations'),
    direction,
    count,
    migrationsTable: 'pgmigrations',
    log: () => undefined,
  })
}

function addLater(prefix: string): void {
  cpSync(join(app, 'later', 'letters_to_queue.sql'), join(app, 'migrations', `${prefix}_letters_to_queue.sql`))
}

const ledger = 'select name from public.pgmigrations order by id'

describe.each(servers)('an application with migrations of its own on $name', ({ openEmpty }) => {
  it('runs them before and after install, and its ledger stays its own', async () => {
    await using db = await openEmpty()
    await migrate(db.url)
    const before = await db.query(ledger)
    await install(db)
    expect(await db.query(ledger)).toEqual(before)
    addLater('1800000000000')
    expect((await migrate(db.url)).map(({ name }) => name)).toEqual(['1800000000000_letters_to_queue'])
    expect((await install(db)).steps).toEqual([])
    expect(await db.query('select ev_data from pgq.event_template order by ev_id')).toEqual([
      { ev_data: 'Ada' },
      { ev_data: 'Grace' },
    ])
    expect((await check(db)).differences).toEqual([])
    await migrate(db.url, 'down', 1)
    await uninstall(db)
    expect(await db.query(ledger)).toEqual(before)
    expect(await db.query('select name from people order by id')).toEqual([{ name: 'Ada' }, { name: 'Grace' }])
  })
  it('takes ejected steps into its own folder: up, known to install and check, down, and up again', async () => {
    await using db = await openEmpty()
    await migrate(db.url)
    const { written } = await eject(join(app, 'migrations'))
    expect(written).toHaveLength((await migrations()).length)
    addLater('9000000000000')
    await migrate(db.url)
    expect((await check(db)).differences).toEqual([])
    expect(await schemaStatus(db)).toMatchObject({ installed: true, pending: [] })
    expect((await install(db)).steps).toEqual([])
    expect(await db.query('select queue_name from pgq.queue')).toEqual([{ queue_name: 'letters' }])
    await migrate(db.url, 'down', 1 + written.length)
    expect(await db.query("select 1 from pg_namespace where nspname ~ '^(pgq|pgq_.*|skytools)$'")).toEqual([])
    await migrate(db.url)
    expect((await check(db)).differences).toEqual([])
  })
  it('is told when the steps were installed already', async () => {
    await using db = await openEmpty()
    await install(db)
    await eject(join(app, 'migrations'))
    await expect(migrate(db.url)).rejects.toMatchObject({ code: 'PQ030', hint: expect.stringContaining('--fake') })
  })
})

describe('eject', () => {
  it('writes nothing the second time', async () => {
    const folder = join(app, 'migrations')
    const first = await eject(folder)
    const files = readdirSync(folder)
    expect(await eject(folder)).toEqual({ written: [], present: (await migrations()).map(({ name }) => name) })
    expect(readdirSync(folder)).toEqual(files)
    expect(first.written.map((path) => readFileSync(path, 'utf8'))[0]).toContain('-- Up Migration')
  })
  it.each([
    ['milliseconds in the past', ['1700000000000_a.sql'], /^1[7-9]\d{11}_/],
    ['milliseconds in the future', ['9000000000000_a.sql'], /^9000000000001_/],
    ['an index', ['0001_a.sql', '0012_b.js'], /^0013_/],
    ['dates of 17 digits', ['20240101120000000_a.sql'], /^20\d{15}_/],
    ['dates of 17 digits in the future', ['29990101120000000_a.sql'], /^29990101120000001_/],
    ['nothing', [], /^1[7-9]\d{11}_/],
  ])('names its files to run after those there: %s', async (_what, present, expected) => {
    const folder = join(app, 'empty')
    const { written: probe } = await eject(folder)
    for (const path of probe) rmSync(path)
    for (const file of present) writeFileSync(join(folder, file), '-- Up Migration\n')
    const { written } = await eject(folder)
    expect(written[0]?.replace(/.*\//, '')).toMatch(expected)
  })
  it('adds only the steps that are missing', async () => {
    const folder = join(app, 'migrations')
    const [path = ''] = (await eject(folder)).written
    renameSync(path, path.replace('0001_pgq', '0000_other'))
    const again = await eject(folder)
    expect(again.written.map((file) => file.replace(/.*_skytools_/, ''))).toContain('0001_pgq.sql')
  })
})
