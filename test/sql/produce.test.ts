import { describe, expect, it } from 'vitest'
import type { Db } from '../../src/db/db.ts'
import { databases } from '../support/databases.ts'
import { busyQueue, one, tick } from '../support/queues.ts'

async function events(db: Db, queue = 'q', consumer = 'c') {
  const { batch } = await one<{ batch: bigint }>(db, 'select pgq.next_batch($1, $2) as batch', [queue, consumer])
  return db.query('select * from pgq.get_batch_events($1)', [batch])
}

describe.each(databases)('producing on $name', ({ open }) => {
  it('insert_event stores what it is given, null too, and returns ascending ids', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    expect(await one(db, `select pgq.insert_event('q', 't', 'd') as id`)).toEqual({ id: 1n })
    expect(await one(db, `select pgq.insert_event('q', null, null) as id`)).toEqual({ id: 2n })
    expect(await one(db, `select pgq.insert_event('q', '', '', '1', null, '3', '4') as id`)).toEqual({ id: 3n })
    expect(
      await one(db, `select pgq.insert_event(queue_name => 'q', ev_type => 'named', ev_data => 'd') as id`),
    ).toEqual({ id: 4n })
    await tick(db, 'q')
    const empty = { ev_retry: null, ev_extra1: null, ev_extra2: null, ev_extra3: null, ev_extra4: null }
    const base = { ...empty, ev_time: expect.any(Date), ev_txid: expect.any(BigInt) }
    expect(await events(db)).toEqual([
      { ...base, ev_id: 1n, ev_type: 't', ev_data: 'd' },
      { ...base, ev_id: 2n, ev_type: null, ev_data: null },
      { ...base, ev_id: 3n, ev_type: '', ev_data: '', ev_extra1: '1', ev_extra3: '3', ev_extra4: '4' },
      { ...base, ev_id: 4n, ev_type: 'named', ev_data: 'd' },
    ])
  })

  it('all events of a transaction have its txid and its time', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    const { now, txid } = await db.transaction(async (tx) => {
      await tx.query(`select pgq.insert_event('q', 't', '1')`)
      await tx.query(`select pgq.insert_events('q', array['t', 't'], array['2', '3'])`)
      await tx.query(`select pgq.insert_event_raw('q', null, null, null, null, 't', '4', null, null, null, null)`)
      return one<{ now: Date; txid: bigint }>(tx, 'select now() as now, txid_current() as txid')
    })
    await tick(db, 'q')
    const found = await events(db)
    expect(found).toHaveLength(4)
    for (const event of found) expect(event).toMatchObject({ ev_time: now, ev_txid: txid })
  })

  it('insert_event_raw takes id, time, owner and retry as given, and moves the sequence on all the same', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    const time = new Date('2001-02-03T04:05:06Z')
    expect(
      await one(db, `select pgq.insert_event_raw('q', 1000, $1, null, 3, 't', 'd', '1', '2', '3', '4') as id`, [time]),
    ).toEqual({ id: 1000n })
    expect(await one(db, `select pgq.insert_event('q', 't', 'next') as id`)).toEqual({ id: 2n })
    await tick(db, 'q')
    expect(await events(db)).toMatchObject([
      { ev_id: 2n, ev_data: 'next' },
      { ev_id: 1000n, ev_time: time, ev_retry: 3, ev_type: 't', ev_data: 'd', ev_extra1: '1', ev_extra4: '4' },
    ])
  })

  it('an event with an owner is seen by that subscription alone', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c', 'd'])
    const { sub } = await one<{ sub: number }>(
      db,
      `select sub_id as sub from pgq.subscription s
      join pgq.consumer c on c.co_id = s.sub_consumer where co_name = 'd'`,
    )
    await db.query(`select pgq.insert_event_raw('q', null, null, $1, null, 't', 'mine', null, null, null, null)`, [sub])
    await tick(db, 'q')
    expect(await events(db, 'q', 'c')).toEqual([])
    expect(await events(db, 'q', 'd')).toMatchObject([{ ev_data: 'mine' }])
  })

  it('every form says which queue is missing', async () => {
    await using db = await open()
    const raw = (queue: string) =>
      `select pgq.insert_event_raw(${queue}, null, null, null, null, null, null, null, null, null, null)`
    const named = `'no such "queue"'`
    for (const sql of [
      `select pgq.insert_event(${named}, 't', 'd')`,
      `select pgq.insert_event(${named}, 't', 'd', null, null, null, null)`,
      `select pgq.insert_events(${named}, array['t'], array['d'])`,
      `select pgq.insert_json(${named}, 't', '{}')`,
      `select pgq.current_event_table(${named})`,
      raw(named),
    ])
      await expect(db.query(sql), sql).rejects.toMatchObject({
        code: 'PQ001',
        message: expect.stringContaining('no such "queue"'),
      })
    await expect(db.query(raw('null'))).rejects.toMatchObject({
      code: 'PQ008',
      message: expect.stringContaining('Queue name must not be NULL'),
    })
    await expect(db.query(raw(named))).rejects.toMatchObject({ message: expect.stringContaining('No such queue') })
    await expect(db.query(`select pgq.insert_event(null, 't', 'd')`)).rejects.toMatchObject({ code: 'PQ008' })
    await expect(db.query(`select pgq.current_event_table(${named})`)).rejects.toMatchObject({
      message: expect.stringContaining('Event queue not found'),
    })
  })

  it('current_event_table names the table that takes rows, whose ids and txids have defaults', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    const { name, id } = await one<{ name: string; id: number }>(
      db,
      `select pgq.current_event_table('q') as name, queue_id as id from pgq.queue`,
    )
    expect(name).toBe(`pgq.event_${id}_0`)
    await db.query(
      `insert into ${name} (ev_time, ev_type, ev_data) select now(), 't', g::text from generate_series(1, 3) g`,
    )
    await expect(db.query(`insert into ${name} (ev_type) values ('no time')`)).rejects.toMatchObject({ code: '23502' })
    await tick(db, 'q')
    expect(await events(db)).toMatchObject([{ ev_id: 1n }, { ev_id: 2n }, { ev_id: 3n }])
  })

  it('insert_events keeps the order of its arrays, and returns the ids', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    const data = Array.from({ length: 1000 }, (_, n) => `${n}`)
    const ids = await db.query<{ id: bigint }>('select id from pgq.insert_events($1, $2, $3, extra4 => $4) id', [
      'q',
      data.map((n) => `t${n}`),
      data,
      data.map((n) => (n === '7' ? null : `x${n}`)),
    ])
    expect(ids.map(({ id }) => Number(id))).toEqual(data.map((_, n) => n + 1))
    await tick(db, 'q')
    const found = await events(db)
    expect(found.map((event) => event.ev_data)).toEqual(data)
    expect(found[7]).toMatchObject({ ev_type: 't7', ev_data: '7', ev_extra1: null, ev_extra4: null })
    expect(found[8]).toMatchObject({ ev_extra4: 'x8' })
  })

  it('insert_events takes JSON objects as well: a string is its text, anything else is JSON', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    const list = [
      { type: 't', data: { a: [1, null] }, extra1: 'x' },
      { type: 't', data: 'text "quoted"' },
      { type: 't', data: null },
      { data: 12.5 },
      {},
    ]
    const ids = await db.query('select pgq.insert_events($1, $2::jsonb[]) as id', [
      'q',
      list.map((item) => JSON.stringify(item)),
    ])
    expect(ids).toHaveLength(5)
    await tick(db, 'q')
    const found = await events(db)
    expect(found.map((event) => event.ev_data)).toEqual(['{"a": [1, null]}', 'text "quoted"', null, '12.5', null])
    expect(found[0]).toMatchObject({ ev_type: 't', ev_extra1: 'x' })
  })

  it('insert_events refuses arrays that do not fit, and inserts none then', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    for (const args of [
      `null::text[], array['d']`,
      `array['t'], array['d', 'e']`,
      `array['t'], array['d'], array['x', 'y']`,
      `array[['t'], ['u']], array[['d'], ['e']]`,
      `null::jsonb[]`,
      `array['[1]']::jsonb[]`,
      `array['{"unknown": 1}']::jsonb[]`,
    ])
      await expect(db.query(`select pgq.insert_events('q', ${args})`), args).rejects.toMatchObject({ code: 'PQ008' })
    expect(await db.query(`select pgq.insert_events('q', '{}', '{}')`)).toEqual([])
    expect(await db.query(`select pgq.insert_events('q', '{}'::jsonb[])`)).toEqual([])
    await tick(db, 'q')
    expect(await events(db)).toEqual([])
  })

  it('insert_json and get_batch_json carry any JSON', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    const payloads = [{ a: { b: [1, 'two', null] } }, [1, 2], 'text', 3, true, null]
    for (const payload of payloads)
      await db.query('select pgq.insert_json($1, $2, $3)', ['q', 't', JSON.stringify(payload)])
    await tick(db, 'q')
    const { batch } = await one<{ batch: bigint }>(db, `select pgq.next_batch('q', 'c') as batch`)
    const rows = await db.query('select payload from pgq.get_batch_json($1)', [batch])
    expect(rows.map(({ payload }) => payload)).toEqual(payloads)
  })

  it('the limit of a transaction counts each form of insert, and refuses the one too many', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await db.query('update pgq.queue set queue_per_tx_limit = 3')
    const full = { code: 'PQ007', message: expect.stringContaining(`Queue 'q' allows max 3 events from one TX`) }
    await expect(
      db.transaction(async (tx) => {
        await tx.query(`select pgq.insert_event('q', 't', '1')`)
        await tx.query(`select pgq.insert_events('q', array['t'], array['2'])`)
        await tx.query(`select pgq.insert_event_raw('q', null, null, null, null, 't', '3', null, null, null, null)`)
        await tx.query(`select pgq.insert_event('q', 't', '4')`)
      }),
    ).rejects.toMatchObject(full)
    await expect(
      db.query(`select pgq.insert_events('q', array_fill('t'::text, array[4]), array_fill('d'::text, array[4]))`),
    ).rejects.toMatchObject(full)
    await db.query('update pgq.queue set queue_per_tx_limit = 0')
    await expect(db.query(`select pgq.insert_event('q', 't', '1')`)).rejects.toMatchObject({ code: 'PQ007' })
    await db.query('update pgq.queue set queue_per_tx_limit = null')
    await db.query(`select pgq.insert_event('q', 't', '1')`)
  })
})
