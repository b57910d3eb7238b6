import pg from 'pg'
import { describe, expect, it } from 'vitest'
import { archive } from '../../src/batch/archive.ts'
import type { Db } from '../../src/db/db.ts'
import { databases, servers } from '../support/databases.ts'

async function tables(db: Db): Promise<void> {
  await db.exec(`create schema app; set search_path = app;
    create table t (id bigint generated always as identity primary key, "a b" text, twice bigint generated always as (id * 2) stored);
    insert into t ("a b") select 'x' || g from generate_series(1, 25) g;
    create table old ("a b" text, id bigint generated always as identity, at timestamptz default now(), twice bigint)`)
}
const count = async (db: Db, name: string) =>
  Number((await db.query<{ n: bigint }>(`select count(*) as n from ${name}`))[0]?.n)

describe.each(databases)('archive on $name', ({ open }) => {
  it('moves each row of a condition once, a chunk at a time, in the order that is asked for', async () => {
    await using db = await open()
    await tables(db)
    const chunk = `select skytools.archive_chunk('app.t', 'app.old', 'id <= 20', 8, 'id desc') as n`
    expect(await db.query(chunk)).toEqual([{ n: 8n }])
    expect(await db.query(`select min(id), max(id) from app.old where "a b" = 'x' || id`)).toEqual([
      { min: 13n, max: 20n },
    ])
    const seen: bigint[] = []
    const where = 'id <= 20'
    const done = await archive(db, {
      source: ['app', 't'],
      target: 'app.old',
      where,
      chunk: 5,
      pause: 0.001,
      onProgress: (n) => seen.push(n),
    })
    expect([done, seen]).toEqual([12n, [5n, 10n, 12n]])
    expect([await count(db, 'app.t'), await count(db, 'app.old where at is not null and twice = id * 2')]).toEqual([
      5, 20,
    ])
    await db.exec(`call skytools.archive('app.t', 'app.old', 'true', 2, max_lag => 0, pause => '1 ms')`)
    expect([await count(db, 'app.t'), await count(db, 'app.old')]).toEqual([0, 25])
  })

  it('a column that only the source has stays with no row lost, and so does a chunk that the target refuses', async () => {
    await using db = await open()
    await tables(db)
    await db.exec(`alter table app.old drop column twice; alter table app.old add check (id <> 7)`)
    await expect(archive(db, { source: 'app.t', target: 'app.old', where: 'true', chunk: 5 })).rejects.toMatchObject({
      code: '23514',
    })
    expect([await count(db, 'app.t'), await count(db, 'app.old')]).toEqual([20, 5])
    await db.exec('alter table app.t add column more int')
    await expect(archive(db, { source: 'app.t', target: 'app.old', where: 'true' })).rejects.toMatchObject({
      code: 'PQ024',
      message: 'archive of t: table old has no column more',
    })
    await expect(archive(db, { source: 'app.t', target: 'app.t', where: 'true' })).rejects.toMatchObject({
      code: 'PQ024',
    })
    await expect(archive(db, { source: 'app.t', target: 'app.old', where: '' })).rejects.toMatchObject({
      code: 'PQ024',
    })
    await db.exec('alter table app.t drop column more; create view app.v as select * from app.t')
    await expect(archive(db, { source: 'app.v', target: 'app.old', where: 'true' })).rejects.toMatchObject({
      code: 'PQ024',
    })
    await db.exec(`create function app.keep() returns trigger language plpgsql as 'begin return null; end';
      create trigger keep before delete on app.t for each row execute function app.keep()`)
    await expect(archive(db, { source: 'app.t', target: 'app.old', where: 'id = 7' })).rejects.toMatchObject({
      code: 'PQ024',
      message: 'archive of t: 1 rows are to be moved, and none can be deleted',
    })
    expect([await count(db, 'app.t'), await count(db, 'app.old')]).toEqual([20, 5])
  })

  it('takes rows out of every partition', async () => {
    await using db = await open()
    await db.exec(`create table p (id int, k int) partition by list (k);
      create table p1 partition of p for values in (1); create table p2 (k int, id int);
      alter table p attach partition p2 for values in (2);
      create table o (like p); insert into p select g, 1 + g % 2 from generate_series(1, 20) g`)
    expect(await archive(db, { source: 'p', target: 'o', where: 'id % 2 = 0 or id < 5', chunk: 3 })).toBe(12n)
    expect(await db.query('select array_agg(id order by id) as ids from o')).toEqual([
      { ids: [1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 20] },
    ])
    expect(await count(db, 'p')).toBe(8)
  })

  it('stops when it is told to, between chunks', async () => {
    await using db = await open()
    await tables(db)
    const stop = new AbortController()
    const options = { source: 'app.t', target: 'app.old', where: 'true', chunk: 5, signal: stop.signal }
    await expect(archive(db, { ...options, onProgress: () => stop.abort() })).rejects.toMatchObject({
      name: 'AbortError',
    })
    expect([await count(db, 'app.t'), await count(db, 'app.old')]).toEqual([20, 5])
  })
})

describe.each(servers)('archive beside others on $name', ({ open }) => {
  it('two at once move each row once, and a row that is changed meanwhile moves as it is then', async () => {
    await using db = await open()
    await tables(db)
    const other = await db.connect()
    const third = await db.connect()
    await other.exec('begin; update app.t set "a b" = $$new$$ where id = 3')
    const both = Promise.all(
      [db, third].map((one) =>
        archive(one, { source: 'app.t', target: 'app.old', where: 'id <= 10', chunk: 4, orderBy: 'id' }),
      ),
    )
    await expect
      .poll(() => other.query(`select count(*)::int as n from pg_locks where not granted and pid <> pg_backend_pid()`))
      .not.toEqual([{ n: 0 }])
    await other.exec('commit')
    const [one = 0n, two = 0n] = await both
    expect(one + two).toBe(10n)
    expect(await count(db, 'app.old')).toBe(10)
    expect(await db.query('select "a b" as a from app.old where id = 3')).toEqual([{ a: 'new' }])
  })

  it('waits while a replica lags, and goes on when it has caught up', async () => {
    await using db = await open()
    await tables(db)
    await using replica = await fakeReplica(db.url ?? '')
    const [start] = await db.query<{ lsn: string }>('select pg_current_wal_lsn()::text as lsn')
    const behind = () => db.query<{ lag: bigint | null }>('select skytools.replica_lag() as lag')
    replica.confirm(start?.lsn ?? '')
    await db.exec('insert into app.t ("a b") select repeat($$x$$, 1000) from generate_series(1, 300)')
    await expect.poll(async () => Number((await behind())[0]?.lag)).toBeGreaterThan(200_000)
    const worker = await db.connect()
    let ended = false
    const call = worker.exec(`call skytools.archive('app.t', 'app.old', 'true', 100, max_lag => 200000)`).then(() => {
      ended = true
    })
    const waiting = `select count(*)::int as n from pg_stat_activity where wait_event = 'PgSleep' and query like 'call skytools.archive%'`
    await expect.poll(() => db.query(waiting)).toEqual([{ n: 1 }])
    expect([ended, await count(db, 'app.old')]).toEqual([false, 0])
    replica.confirm('7FFFFFFF/0')
    await call
    expect(await count(db, 'app.old')).toBe(325)
  })
})

/** A connection that takes WAL as a replica does, and says that it has replayed what the test tells it to. */
async function fakeReplica(url: string) {
  const client = new pg.Client({ connectionString: url, replication: 'true' } as pg.ClientConfig)
  client.on('error', () => undefined)
  await client.connect()
  const { rows } = await client.query<{ xlogpos: string }>('IDENTIFY_SYSTEM')
  // It never ends: the server goes over to a stream of its own.
  client.query(`START_REPLICATION PHYSICAL ${rows[0]?.xlogpos}`).catch(() => undefined)
  const { connection } = client as unknown as { connection: { sendCopyFromChunk(chunk: Buffer): void } }
  return {
    confirm(lsn: string) {
      const [high = '0', low = '0'] = lsn.split('/')
      const status = Buffer.alloc(34)
      status.write('r')
      const at = (BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`)
      for (const offset of [1, 9, 17]) status.writeBigInt64BE(at, offset)
      connection.sendCopyFromChunk(status)
    },
    [Symbol.asyncDispose]: () => client.end(),
  }
}
