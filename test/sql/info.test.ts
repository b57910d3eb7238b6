import { describe, expect, it } from 'vitest'
import packageJson from '../../package.json' with { type: 'json' }
import { databases } from '../support/databases.ts'
import { busyQueue, insert, one, tick } from '../support/queues.ts'

describe.each(databases)('information on $name', ({ open }) => {
  it('get_queue_info lists queues by name, one of them, or none', async () => {
    await using db = await open()
    await busyQueue(db, 'b')
    await busyQueue(db, 'a')
    const names = async (args: string) =>
      (await db.query(`select queue_name from pgq.get_queue_info(${args})`)).map((row) => row.queue_name)
    expect(await names('')).toEqual(['a', 'b'])
    expect(await names('null')).toEqual(['a', 'b'])
    expect(await names(`'b'`)).toEqual(['b'])
    expect(await names(`'none'`)).toEqual([])
  })

  it('get_queue_info tells about events and ticks', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    for (let n = 0; n < 5; n++) await insert(db, 'q', `${n}`)
    await tick(db, 'q')
    for (let n = 0; n < 3; n++) await insert(db, 'q', `${n}`)
    expect(await one(db, 'select * from pgq.get_queue_info()')).toEqual({
      queue_name: 'q',
      queue_ntables: 3,
      queue_cur_table: 0,
      queue_rotation_period: '00:00:00',
      queue_switch_time: expect.any(Date),
      queue_external_ticker: false,
      queue_ticker_paused: false,
      queue_ticker_max_count: 1,
      queue_ticker_max_lag: '00:00:00',
      queue_ticker_idle_period: '00:00:00',
      ticker_lag: expect.stringMatching(/^00:00:/),
      ev_per_sec: expect.any(Number),
      ev_new: 3n,
      last_tick_id: 2n,
    })
    await db.query(
      `update pgq.tick set tick_time = timestamptz '2020-01-01 00:00:00+00' + make_interval(secs => tick_id::int * 2)`,
    )
    expect(await one(db, 'select ev_per_sec as rate from pgq.get_queue_info()')).toEqual({ rate: 2 })
  })

  it('get_consumer_info lists consumers by queue and name, and what is before them', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['d', 'c'])
    await busyQueue(db, 'a', ['c'])
    for (let n = 0; n < 5; n++) await insert(db, 'q', `${n}`)
    await tick(db, 'q')
    const { batch } = await one<{ batch: bigint }>(db, `select pgq.next_batch('q', 'c') as batch`)
    const list = async (args: string) =>
      (await db.query(`select queue_name || '/' || consumer_name as name from pgq.get_consumer_info(${args})`)).map(
        (row) => row.name,
      )
    expect(await list('')).toEqual(['a/c', 'q/c', 'q/d'])
    expect(await list('null')).toEqual(['a/c', 'q/c', 'q/d'])
    expect(await list(`'q'`)).toEqual(['q/c', 'q/d'])
    expect(await list(`null, 'c'`)).toEqual(['a/c', 'q/c'])
    expect(await list(`'q', 'd'`)).toEqual(['q/d'])
    expect(await list(`'none'`)).toEqual([])
    expect(await one(db, `select * from pgq.get_consumer_info('q', 'c')`)).toEqual({
      queue_name: 'q',
      consumer_name: 'c',
      lag: expect.stringMatching(/^00:00:/),
      last_seen: expect.stringMatching(/^00:00:/),
      last_tick: 1n,
      current_batch: batch,
      next_tick: 2n,
      pending_events: 4n,
    })
    expect(await one(db, `select current_batch, next_tick from pgq.get_consumer_info('q', 'd')`)).toEqual({
      current_batch: null,
      next_tick: null,
    })
  })

  it('version() is the one of the package, and enough for a ticker daemon that asks for 3', async () => {
    await using db = await open()
    expect(await one(db, 'select pgq.version() as pgq, skytools.version() as skytools')).toEqual({
      pgq: packageJson.version,
      skytools: packageJson.version,
    })
    expect(Number.parseInt(packageJson.version, 10)).toBeGreaterThanOrEqual(3)
    expect(await one(db, 'select pgq.upgrade_schema() as n')).toEqual({ n: 0 })
  })

  it.each([
    ['a', 'public.a'],
    ['a.b', 'a.b'],
    ['a.b.c', 'a."b.c"'],
    ['A.B', '"A"."B"'],
    ['user', 'public."user"'],
    [`it's`, `public."it's"`],
    ['Qu"ote.x', '"Qu""ote".x'],
    [null, null],
  ])('quote_fqname(%j) is %j', async (name, quoted) => {
    await using db = await open()
    expect(await one(db, 'select pgq.quote_fqname($1) as name', [name])).toEqual({ name: quoted })
  })

  it('seq_getval reads a sequence, seq_setval moves it forward only', async () => {
    await using db = await open()
    await db.exec('create schema "My"; create sequence "My"."Seq"')
    const get = () => one(db, `select pgq.seq_getval('My.Seq') as n`)
    expect(await get()).toEqual({ n: 1n })
    expect(await get()).toEqual({ n: 1n })
    expect(await one(db, `select pgq.seq_setval('My.Seq', 10) as n`)).toEqual({ n: 10n })
    expect(await one(db, `select pgq.seq_setval('My.Seq', 5) as n`)).toEqual({ n: 10n })
    expect(await get()).toEqual({ n: 10n })
    expect(
      await one(
        db,
        `select pgq.seq_setval(null, 5) as a, pgq.seq_setval('My.Seq', null) as b, pgq.seq_getval(null) as c`,
      ),
    ).toEqual({
      a: null,
      b: null,
      c: null,
    })
  })
})
