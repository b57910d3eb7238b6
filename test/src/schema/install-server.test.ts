import pg from 'pg'
import { describe, expect, it } from 'vitest'
import type { Db } from '../../../src/db/db.ts'
import { check, install, schemaStatus, toDb, uninstall } from '../../../src/index.ts'
import { connect, servers } from '../../support/databases.ts'

const ours = "select nspname::text as name from pg_namespace where nspname ~ '^(pgq|pgq_.*|skytools)$'"

describe.each(servers)('install on $name', ({ openEmpty }) => {
  it('is done once by ten that start at the same time', async () => {
    await using db = await openEmpty()
    const connections = await Promise.all(Array.from({ length: 10 }, () => db.connect()))
    const changes = await Promise.all(connections.map((connection) => install(connection)))
    expect(changes.filter(({ steps }) => steps.length > 0)).toHaveLength(1)
    expect((await check(db)).differences).toEqual([])
    await Promise.all(connections.map((connection) => connection.close()))
  })
  it('works in a database of another encoding, whose bytes are those of urlencoded events', async () => {
    await using db = await openEmpty('LATIN1')
    await install(db)
    await db.exec(`select pgq.create_queue('q'); create schema app; create table app.t (a text primary key);
      create trigger t after insert on app.t for each row execute function pgq.logutriga('q');
      select pgq.capture('app.t', 'q'); insert into app.t values ('\u00fc \u00e9@')`)
    expect(await db.query('select ev_type, ev_data from pgq.event_template order by ev_type')).toEqual([
      { ev_type: 'I:a', ev_data: 'a=%fc+%e9%40' },
      { ev_type: '{"op":"INSERT","table":["app","t"],"pkey":["a"]}', ev_data: '{"a":"\u00fc \u00e9@"}' },
    ])
  })
  it('is done once by two whose sessions default to repeatable read', async () => {
    await using db = await openEmpty()
    await using other = await db.connect()
    for (const each of [db, other]) await each.exec("set default_transaction_isolation = 'repeatable read'")
    const changes = await Promise.all([install(db), install(other)])
    expect(changes.filter(({ steps }) => steps.length > 0)).toHaveLength(1)
  })
  it('works in four databases of one server at the same time', async () => {
    const dbs = await Promise.all(Array.from({ length: 4 }, () => openEmpty()))
    const changes = await Promise.all(dbs.map((db) => install(db)))
    expect(changes.map(({ from }) => from)).toEqual([undefined, undefined, undefined, undefined])
    await Promise.all(dbs.map((db) => db.close()))
  })
  it('leaves nothing when its backend is ended half-way, and works when run again', async () => {
    await using db = await openEmpty()
    await using victim = await db.connect()
    const [backend] = await victim.query<{ pid: number }>('select pg_backend_pid() as pid')
    const ending = (inner: Db): Db => ({
      ...inner,
      exec: async (sql, options) => {
        if (/insert into "skytools"/i.test(sql)) await db.query('select pg_terminate_backend($1, 5000)', [backend?.pid])
        await inner.exec(sql, options)
      },
      transaction: (work) => inner.transaction((tx) => work(ending(tx))),
    })
    await expect(install(ending(victim))).rejects.toMatchObject({ code: 'PQ038' })
    expect(await db.query(ours)).toEqual([])
    expect((await install(db)).steps).not.toEqual([])
  })
  it('waits for another install that has not committed', async () => {
    await using db = await openEmpty()
    await using other = await db.connect()
    let second: Promise<unknown> = Promise.resolve()
    await db.transaction(async (tx) => {
      await install(tx)
      second = install(other)
      const waiting = `select count(*) as n from pg_locks where locktype = 'advisory' and not granted
                          and database = (select oid from pg_database where datname = current_database())`
      const deadline = Date.now() + 10_000
      for (;;) {
        const [row] = await tx.query<{ n: bigint }>(waiting)
        if (row?.n === 1n) break
        if (Date.now() > deadline) throw new Error('the second install does not wait')
      }
    })
    expect(await second).toMatchObject({ steps: [] })
  })
  it('takes a Pool and a Client of pg, and leaves them open', async () => {
    await using db = await openEmpty()
    const pool = new pg.Pool({ connectionString: db.url })
    expect((await install(pool)).steps).not.toEqual([])
    expect(await schemaStatus(pool)).toMatchObject({ installed: true })
    await uninstall(pool)
    await pool.end()
    const client = new pg.Client({ connectionString: db.url })
    await client.connect()
    expect((await install(client)).steps).not.toEqual([])
    expect((await client.query('select pgq.version()')).rowCount).toBe(1)
    await client.end()
  })
  it('is a savepoint in a transaction that the caller began on the Client itself', async () => {
    await using db = await openEmpty()
    const client = new pg.Client({ connectionString: db.url })
    await client.connect()
    await client.query('begin')
    await install(client)
    await client.query('rollback')
    await client.end()
    expect(await db.query(ours)).toEqual([])
  })
  it('names the owner when another role wants to uninstall', async () => {
    await using db = await openEmpty()
    await install(db)
    const role = `other_${Math.random().toString(36).slice(2)}`
    await db.exec(`create role ${role} login; grant select, insert on skytools.migrations to ${role}`)
    await using other = await connect((db.url ?? '').replace('postgres@', `${role}@`))
    await expect(uninstall(toDb(other))).rejects.toMatchObject({ code: 'PQ031', hint: expect.stringContaining('owns') })
    await db.exec(`drop owned by ${role}; drop role ${role}`)
    expect((await check(db)).differences).toEqual([])
  })
})
