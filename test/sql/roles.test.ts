import { describe, expect, it } from 'vitest'
import { databases } from '../support/databases.ts'
import { busyQueue, one } from '../support/queues.ts'

const denied = { code: '42501' }

describe.each(databases)('roles on $name', ({ open }) => {
  it('pgq_admin is a member of pgq_reader and pgq_writer; none of them can log in', async () => {
    await using db = await open()
    const rows = await db.query(`
      select r.rolname as role, r.rolcanlogin as login,
             array(select m.roleid::regrole::text from pg_auth_members m where m.member = r.oid order by 1) as member_of
        from pg_roles r where r.rolname in ('pgq_reader', 'pgq_writer', 'pgq_admin') order by 1`)
    expect(rows).toEqual([
      { role: 'pgq_admin', login: false, member_of: ['pgq_reader', 'pgq_writer'] },
      { role: 'pgq_reader', login: false, member_of: [] },
      { role: 'pgq_writer', login: false, member_of: [] },
    ])
  })

  it('PUBLIC may use the schema and read queues, consumers, ticks and subscriptions, and no events', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await db.exec('create role nobody_in_particular; set role nobody_in_particular')
    for (const table of ['queue', 'consumer', 'tick', 'subscription'])
      expect((await db.query(`select * from pgq.${table}`)).length, table).toBeGreaterThan(0)
    expect(await db.query('select * from pgq.get_queue_info()')).toHaveLength(1)
    expect(await db.query('select * from pgq.get_consumer_info()')).toHaveLength(1)
    for (const sql of [
      'select * from pgq.event_template',
      'select * from pgq.event_1',
      'select * from pgq.retry_queue',
      `select pgq.insert_event('q', 't', 'd')`,
      `select pgq.next_batch('q', 'c')`,
      `select pgq.ticker()`,
      `select pgq.create_queue('other')`,
      `select pgq.event_1_insert(null, null, null, null, null, null, null, null, null, null)`,
      `update pgq.queue set queue_ticker_paused = true`,
      `insert into pgq.event_1_0 (ev_time) values (now())`,
    ])
      await expect(db.query(sql), sql).rejects.toMatchObject(denied)
    await db.exec('reset role; drop role nobody_in_particular')
  })

  it('pgq_writer writes through functions, and reads nothing but what PUBLIC may', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await db.exec('set role pgq_writer')
    await db.query(`select pgq.insert_event('q', 't', 'd')`)
    await db.query(`select pgq.insert_event('q', 't', 'd', null, null, null, null)`)
    await db.query(`select pgq.current_event_table('q')`)
    await db.query(`select pgq.insert_events('q', array['t'], array['d'])`)
    await db.query(`select pgq.insert_json('q', 't', '{}')`)
    for (const sql of [
      'select * from pgq.event_template',
      `select pgq.next_batch('q', 'c')`,
      `select pgq.register_consumer('q', 'c2')`,
      `select pgq.insert_event_raw('q', null, null, null, null, 't', 'd', null, null, null, null)`,
      `insert into pgq.event_1_0 (ev_time) values (now())`,
      `select pgq.ticker('q')`,
    ])
      await expect(db.query(sql), sql).rejects.toMatchObject(denied)
  })

  it('pgq_reader does all that a consumer does', async () => {
    await using db = await open()
    await busyQueue(db, 'q', [])
    await db.exec(`set role pgq_reader; select pgq.register_consumer('q', 'c'); reset role`)
    await db.exec(`select pgq.insert_event('q', 't', 'd')`)
    await db.exec(`select pgq.ticker('q')`)
    await db.exec('set role pgq_reader')
    const { batch } = await one<{ batch: bigint }>(db, `select pgq.next_batch('q', 'c') as batch`)
    expect(await db.query('select * from pgq.get_batch_events($1)', [batch])).toHaveLength(1)
    expect(await db.query('select * from pgq.get_batch_json($1) limit 0', [batch])).toHaveLength(0)
    await db.exec('begin')
    expect(await db.query(`select * from pgq.get_batch_cursor($1, 'cur', 10)`, [batch])).toHaveLength(1)
    await db.exec('commit')
    expect(await db.query('select * from pgq.get_batch_info($1)', [batch])).toHaveLength(1)
    expect((await db.query('select * from pgq.batch_event_tables($1)', [batch])).length).toBeGreaterThan(0)
    expect(await one(db, 'select pgq.event_retry($1, 1, 0) as n', [batch])).toEqual({ n: 1 })
    expect(await one(db, 'select pgq.batch_retry($1, 0) as n', [batch])).toEqual({ n: 0 })
    expect(await one(db, 'select pgq.finish_batch($1) as n', [batch])).toEqual({ n: 1 })
    expect(await one(db, `select pgq.force_tick('q') as n`)).toEqual({ n: 2n })
    expect(await one(db, `select pgq.unregister_consumer('q', 'c') as n`)).toEqual({ n: 1 })
    for (const sql of [
      `select pgq.insert_event('q', 't', 'd')`,
      'select pgq.ticker()',
      'select pgq.maint_retry_events()',
      'select * from pgq.retry_queue',
      `select pgq.drop_queue('q')`,
      `delete from pgq.tick`,
      `delete from pgq.subscription`,
    ])
      await expect(db.query(sql), sql).rejects.toMatchObject(denied)
  })

  it('pgq_admin runs everything, writes event tables directly, and may repair what it sees', async () => {
    await using db = await open()
    await db.exec('set role pgq_admin')
    await busyQueue(db, 'q', ['c'])
    await db.query('insert into pgq.event_1_0 (ev_time, ev_data) values (now(), $1)', ['direct'])
    await db.query(`select pgq.insert_event('q', 't', 'd')`)
    await db.query(`select pgq.insert_event_raw('q', null, null, null, null, 't', 'd', null, null, null, null)`)
    await db.query('select pgq.ticker()')
    await db.query('select pgq.maint_retry_events()')
    await db.query(`select pgq.maint_rotate_tables_step1('q')`)
    await db.query('select pgq.maint_rotate_tables_step2()')
    await db.query('select * from pgq.maint_operations()')
    await db.query(`update pgq.queue set queue_per_tx_limit = 5 where queue_name = 'q'`)
    await db.query(`update pgq.subscription set sub_active = now()`)
    await db.query('truncate pgq.event_1_2')
    await db.query(`select pgq.drop_queue('q', true)`)
  })
})
