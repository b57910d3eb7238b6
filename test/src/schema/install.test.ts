import { describe, expect, it } from 'vitest'
import type { Db } from '../../../src/db/db.ts'
import { compareFingerprints, fingerprint, install, schemaStatus, uninstall, upgrade } from '../../../src/index.ts'
import { migrations, packageVersion } from '../../../src/schema/bundle.ts'
import { downgrade } from '../../../src/schema/install.ts'
import { databases } from '../../support/databases.ts'

const ours = "select nspname::text as name from pg_namespace where nspname ~ '^(pgq|pgq_.*|skytools)$'"

/** The same database, telling another of its facts. */
function pretending(db: Db, fact: Record<string, unknown>): Db {
  return {
    ...db,
    query: async <R extends Record<string, unknown>>(sql: string, params?: readonly unknown[]) => {
      const rows = await db.query<R>(sql, params)
      return sql.includes('server_version_num') ? rows.map((row) => ({ ...row, ...fact })) : rows
    },
    transaction: (work) => db.transaction((tx) => work(pretending(tx, fact))),
  }
}

describe.each(databases)('install on $name', ({ open, openEmpty }) => {
  it('installs into an empty database, and does nothing the second time', async () => {
    await using db = await openEmpty()
    const steps = (await migrations()).map(({ name }) => name)
    expect(await install(db)).toEqual({ from: undefined, to: packageVersion(), steps, warnings: [] })
    expect(await install(db)).toEqual({ from: packageVersion(), to: packageVersion(), steps: [], warnings: [] })
    expect(await upgrade(db)).toMatchObject({ steps: [] })
  })
  it('has one version: of the package, the functions and the ledger', async () => {
    await using db = await open()
    const version = packageVersion()
    expect(await db.query('select pgq.version() as pgq, skytools.version() as skytools')).toEqual([
      { pgq: version, skytools: version },
    ])
    expect(Number(version[0])).toBeGreaterThanOrEqual(3)
    expect(await schemaStatus(db)).toMatchObject({ installed: true, version, newest: version, pending: [] })
  })
  it('makes nothing in public, and leaves the settings of the session as they were', async () => {
    await using db = await openEmpty()
    const settings = "select current_setting('search_path') as path, current_setting('client_min_messages') as messages"
    await db.exec("set search_path = elsewhere; set client_min_messages = 'error'")
    const before = await db.query(settings)
    await install(db)
    expect(await db.query(settings)).toEqual(before)
    const strays = `select c.oid::regclass::text as name from pg_class c where c.relnamespace = 'public'::regnamespace
                    union all select p.oid::regprocedure::text from pg_proc p where p.pronamespace = 'public'::regnamespace`
    expect(await db.query(strays)).toEqual([])
  })
  it('comes back the same after uninstall and install, and uninstall leaves nothing', async () => {
    await using db = await open()
    const before = await fingerprint(db)
    expect(await uninstall(db)).toMatchObject({ from: packageVersion(), to: undefined, warnings: [] })
    expect(await db.query(ours)).toEqual([])
    await install(db)
    expect(compareFingerprints(before, await fingerprint(db))).toEqual([])
  })
  it('goes step by step down to nothing and up again, each step to the catalog it had', async () => {
    await using db = await open()
    const before = await fingerprint(db)
    for (const _ of await migrations()) await downgrade(db, 1)
    expect(await schemaStatus(db)).toMatchObject({ installed: false, version: undefined })
    await install(db)
    expect(compareFingerprints(before, await fingerprint(db))).toEqual([])
  })
  it('refuses to uninstall while there are queues, unless forced', async () => {
    await using db = await open()
    await db.query("select pgq.create_queue('orders')")
    await db.query("select pgq.register_consumer('orders', 'mailer')")
    await expect(uninstall(db)).rejects.toMatchObject({
      code: 'PQ034',
      message: expect.stringContaining('orders'),
      hint: expect.stringContaining('--force'),
    })
    expect(await db.query('select queue_name from pgq.queue')).toEqual([{ queue_name: 'orders' }])
    await uninstall(db, { force: true })
    expect(await db.query(ours)).toEqual([])
  })
  it('refuses to uninstall while objects of others depend on the schema, unless forced', async () => {
    await using db = await open()
    await db.exec('create schema app; create view app.queues as select queue_name from pgq.queue')
    await expect(uninstall(db)).rejects.toMatchObject({
      code: 'PQ041',
      message: expect.stringContaining('app.queues'),
      hint: expect.stringContaining('--force'),
    })
    await uninstall(db, { force: true })
    expect(await db.query(ours)).toEqual([])
  })
  it('refuses to uninstall while pgq_ext remembers what was applied, unless forced', async () => {
    await using db = await open()
    await db.query("select pgq_ext.set_batch_done('mailer', 7)")
    await expect(uninstall(db)).rejects.toMatchObject({ code: 'PQ034', message: expect.stringContaining('pgq_ext.') })
    await uninstall(db, { force: true })
    expect(await db.query(ours)).toEqual([])
  })
  it('does not upgrade or uninstall what is not there', async () => {
    await using db = await openEmpty()
    await expect(upgrade(db)).rejects.toMatchObject({ code: 'PQ035', hint: 'skytools install' })
    await expect(uninstall(db)).rejects.toMatchObject({ code: 'PQ035', hint: 'skytools install' })
    expect(await db.query(ours)).toEqual([])
  })
  it('upgrades to a version or a step by name, and names those there are otherwise', async () => {
    await using db = await open()
    expect(await upgrade(db, { to: packageVersion() })).toMatchObject({ steps: [] })
    expect(await upgrade(db, { to: '0001_pgq' })).toMatchObject({ steps: [] })
    await expect(upgrade(db, { to: '9.9.9' })).rejects.toMatchObject({
      code: 'PQ036',
      hint: expect.stringContaining('0001_pgq'),
    })
  })
  it('refuses a database that a newer skytools has been at', async () => {
    await using db = await open()
    await db.query("insert into skytools.migrations (name, run_on) values ('9999_future', now())")
    for (const change of [install, upgrade, uninstall]) {
      await expect(change(db)).rejects.toMatchObject({ code: 'PQ036', message: expect.stringContaining('9999_future') })
    }
  })
  it("refuses somebody's own schema pgq, and changes nothing", async () => {
    await using db = await openEmpty()
    await db.exec('create schema pgq; create table pgq.mine (n int)')
    await expect(install(db)).rejects.toMatchObject({
      name: 'ForeignSchemaError',
      code: 'PQ030',
      hint: expect.stringContaining('alter schema pgq rename'),
    })
    expect(await db.query(ours)).toEqual([{ name: 'pgq' }])
  })
  it('refuses a schema that was loaded without its ledger', async () => {
    await using db = await open('sql')
    await expect(install(db)).rejects.toMatchObject({ code: 'PQ030', hint: expect.stringContaining('skytools sql') })
  })
  it('names the upstream extension when that is in the way', async () => {
    await using db = await openEmpty()
    await expect(install(pretending(db, { extension: '3.5', foreign: ['pgq'] }))).rejects.toMatchObject({
      code: 'PQ030',
      message: expect.stringContaining('extension pgq 3.5'),
      hint: expect.stringContaining('drop extension pgq'),
    })
  })
  it('refuses a read-only session and a standby server, and changes nothing', async () => {
    await using db = await openEmpty()
    await db.exec('set default_transaction_read_only = on')
    await expect(install(db)).rejects.toMatchObject({ name: 'ReadOnlyError', code: 'PQ032', hint: expect.any(String) })
    await db.exec('set default_transaction_read_only = off')
    await expect(install(pretending(db, { standby: true }))).rejects.toMatchObject({
      code: 'PQ032',
      message: expect.stringContaining('standby'),
    })
    expect(await db.query(ours)).toEqual([])
  })
  it('refuses a server older than 14', async () => {
    await using db = await openEmpty()
    await expect(install(pretending(db, { server: 130_012 }))).rejects.toMatchObject({
      name: 'ServerTooOldError',
      code: 'PQ033',
      message: 'the server runs Postgres 13; skytools needs 14 or newer',
    })
    expect(await db.query(ours)).toEqual([])
  })
  it('refuses a role without CREATE on the database, and says what to grant', async () => {
    await using db = await openEmpty()
    const role = `limited_${Math.random().toString(36).slice(2)}`
    await db.exec(`create role ${role}; set role ${role}`)
    await expect(install(db)).rejects.toMatchObject({
      name: 'CreateNotAllowedError',
      code: 'PQ031',
      hint: expect.stringMatching(`^grant create on database .* to ${role}$`),
    })
    await db.exec(`reset role; drop role ${role}`)
    expect(await db.query(ours)).toEqual([])
  })
  it('leaves nothing when a step fails half-way', async () => {
    await using db = await openEmpty()
    const failing = (inner: Db): Db => ({
      ...inner,
      exec: async (sql, options) => {
        if (/insert into "skytools"/i.test(sql)) await inner.query('select 1/0')
        await inner.exec(sql, options)
      },
      transaction: (work) => inner.transaction((tx) => work(failing(tx))),
    })
    await expect(install(failing(db))).rejects.toMatchObject({
      code: 'PQ038',
      message: 'nothing was changed: division by zero',
      cause: expect.objectContaining({ code: '22012' }),
    })
    expect(await db.query(ours)).toEqual([])
  })
  it('stays inside a transaction of the caller: rolled back, it leaves nothing', async () => {
    await using db = await openEmpty()
    const rolledBack = new Error('rolled back')
    await expect(
      db.transaction(async (tx) => {
        await install(tx)
        throw rolledBack
      }),
    ).rejects.toBe(rolledBack)
    expect(await db.query(ours)).toEqual([])
    await db.transaction(async (tx) => {
      await install(tx)
    })
    expect(await schemaStatus(db)).toMatchObject({ installed: true })
  })
})
