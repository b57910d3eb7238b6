import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { packageVersion } from '../../src/schema/bundle.ts'
import { servers } from '../support/databases.ts'
import { skytools } from './run.ts'

const version = packageVersion()

describe.each(servers.slice(-1))('skytools on $name', ({ openEmpty }) => {
  it('installs, checks, finds a change, refuses and then forces uninstall, with exit codes for CI', async () => {
    await using db = await openEmpty()
    const url = ['--database-url', db.url ?? '']
    expect(await skytools(['check', ...url])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('not installed'),
    })
    expect(await skytools(['install', ...url])).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(`^installed skytools ${version}`),
      stderr: '',
    })
    const again = await skytools(['install', '--json', ...url])
    expect(JSON.parse(again.stdout)).toEqual({ from: version, to: version, steps: [], warnings: [] })
    expect(await skytools(['check', ...url])).toMatchObject({
      status: 0,
      stdout: expect.stringContaining('as the bundle'),
    })
    await db.exec("comment on table pgq.tick is 'mine'; select pgq.create_queue('orders')")
    const changed = await skytools(['check', ...url])
    expect(changed.status).toBe(1)
    expect(changed.stdout).toContain('changed table pgq.tick\n    comment: mine, expected ')
    expect(await skytools(['uninstall', ...url])).toMatchObject({ status: 2, stderr: expect.stringContaining('--yes') })
    const refused = await skytools(['uninstall', '--yes', '--json', ...url])
    expect(refused.status).toBe(1)
    expect(JSON.parse(refused.stderr)).toMatchObject({ error: { name: 'QueuesExistError', code: 'PQ034' } })
    expect(await skytools(['uninstall', '--yes', '--force', ...url])).toMatchObject({
      status: 0,
      stdout: `uninstalled skytools ${version}\n`,
    })
  })
  it('finds the database in DATABASE_URL and in the PG* variables', async () => {
    await using db = await openEmpty()
    const { hostname, port, username, pathname } = new URL(db.url ?? '')
    expect(await skytools(['install'], { DATABASE_URL: db.url ?? '' })).toMatchObject({ status: 0 })
    const variables = { PGHOST: hostname, PGPORT: port, PGUSER: username, PGDATABASE: pathname.slice(1) }
    expect(await skytools(['upgrade', '--to', version], variables)).toMatchObject({
      status: 0,
      stdout: `skytools ${version} is installed: nothing to do\n`,
    })
  })
})

describe('skytools', () => {
  it('keeps an installed PGlite in a folder', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'skytools-pglite-'))
    const url = ['--database-url', `pglite:${folder}`]
    expect(await skytools(['install', ...url])).toMatchObject({ status: 0 })
    expect(await skytools(['check', ...url])).toMatchObject({ status: 0 })
    rmSync(folder, { recursive: true })
  })
  it('prints the bundle, and its version', async () => {
    const { status, stdout } = await skytools(['sql'])
    expect(status).toBe(0)
    expect(stdout).toMatch(new RegExp(`^-- skytools ${version}`))
    expect(stdout.trimEnd()).toMatch(/\ncommit;$/)
    expect((await skytools(['sql', '--no-transaction'])).stdout).not.toMatch(/^(begin|commit);$/m)
    expect(await skytools(['--version'])).toMatchObject({ status: 0, stdout: `${version}\n` })
  })
  it('ejects into a folder, once', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'skytools-eject-'))
    expect(await skytools(['eject', folder])).toMatchObject({ status: 0, stdout: expect.stringMatching(/^wrote /) })
    const files = readdirSync(folder)
    expect(await skytools(['eject', folder])).toMatchObject({
      status: 0,
      stdout: expect.stringContaining('nothing to do'),
    })
    expect(readdirSync(folder)).toEqual(files)
    rmSync(folder, { recursive: true })
  })
  it.each([
    ['an unknown command', ['nope'], 'unknown command'],
    ['an unknown flag', ['install', '--nope'], 'unknown option'],
    ['no database', ['install'], 'no database given'],
    ['no folder', ['eject'], 'missing required argument'],
  ])('exits with 2 for %s', async (_what, args, message) => {
    expect(await skytools(args)).toMatchObject({ status: 2, stdout: '', stderr: expect.stringContaining(message) })
  })
  it('exits with 1 and a hint where no server answers', async () => {
    const { status, stderr } = await skytools(['install', '--database-url', 'postgres://127.0.0.1:1/none'])
    expect(status).toBe(1)
    expect(stderr).toMatch(/^skytools: cannot connect: .*ECONNREFUSED.*\nhint: /)
  })
})
