import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { check, install } from '../../../src/index.ts'
import { connect, databases } from '../../support/databases.ts'
import { type Server, startServer } from '../../support/server.ts'

const roles = ['pgq_admin', 'pgq_reader', 'pgq_writer']

async function expectInstallWithoutRoles(db: Parameters<typeof install>[0] & Awaited<ReturnType<typeof connect>>) {
  await db.exec(
    'create role deployer; do $$ begin execute format($f$grant create on database %I to deployer$f$, current_database()); end $$',
  )
  await db.exec('set role deployer')
  const { steps, warnings } = await install(db)
  expect(steps).not.toEqual([])
  for (const role of roles) expect(warnings.join('\n')).toContain(role)
  const result = await check(db)
  expect(result.missingRoles.toSorted()).toEqual(roles)
  expect(result.differences).toEqual([])
  await db.exec('reset role')
  await db.query('select pgq.upgrade_schema()')
  const { missingRoles, differences } = await check(db)
  expect({ missingRoles, differences }).toEqual({ missingRoles: [], differences: [] })
}

describe('a role without CREATEROLE', () => {
  it.each(databases.filter(({ kind }) => kind === 'pglite'))(
    'installs on $name, is told which roles are missing, and they can come later',
    async ({ openEmpty }) => {
      await using db = await openEmpty()
      await expectInstallWithoutRoles(db)
    },
  )
})

describe('on a server of its own', () => {
  let server: Server
  beforeAll(async () => {
    server = await startServer(18)
  })
  afterAll(() => server?.remove())

  it('a role without CREATEROLE installs, is told which roles are missing, and they can come later', async () => {
    await using db = await connect(server.url)
    await expectInstallWithoutRoles(db)
  })
  it('a standby refuses an install and says where to go', async () => {
    await server.stop('fast')
    writeFileSync(join(server.dataDirectory, 'standby.signal'), '')
    await server.restart()
    expect(existsSync(join(server.dataDirectory, 'standby.signal'))).toBe(true)
    await using db = await connect(server.url)
    await expect(install(db)).rejects.toMatchObject({
      code: 'PQ032',
      message: expect.stringContaining('standby'),
      hint: expect.stringContaining('primary'),
    })
    // check only reads: it works there.
    expect((await check(db)).differences).toEqual([])
  })
})
