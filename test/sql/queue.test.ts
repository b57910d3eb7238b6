import { describe, expect, it } from 'vitest'
import { databases } from '../support/databases.ts'
import { busyQueue, consume, insert, one, tick } from '../support/queues.ts'

const names = [
  'plain',
  'with space',
  `quote ' quote`,
  'double " quote',
  'back \\ slash',
  'dots.in.name',
  'Üñïcödé 🐘',
  '',
  '$1 %s %I {}',
  "'); drop table pgq.queue; --",
  'x'.repeat(3000),
  'CamelCase',
  'camelcase',
]

describe.each(databases)('queues on $name', ({ open }) => {
  it('are created once, with a first tick, three tables, and an index on each', async () => {
    await using db = await open()
    expect(await one(db, `select pgq.create_queue('q') as n`)).toEqual({ n: 1 })
    expect(await one(db, `select pgq.create_queue('q') as n`)).toEqual({ n: 0 })
    expect(await db.query('select tick_id, tick_event_seq from pgq.tick')).toEqual([
      { tick_id: 1n, tick_event_seq: 1n },
    ])
    const { id } = await one<{ id: number }>(db, 'select queue_id as id from pgq.queue')
    const tables = await db.query(
      `select c.oid::regclass::text as name, (select inhparent::regclass::text from pg_inherits where inhrelid = c.oid) as parent,
              array(select pg_get_indexdef(indexrelid) from pg_index where indrelid = c.oid) as indexes,
              c.reloptions as options
         from pg_class c where c.relkind = 'r' and c.relname like 'event\\_' || $1 || '%' order by 1`,
      [id],
    )
    const child = (n: number) => ({
      name: `pgq.event_${id}_${n}`,
      parent: `pgq.event_${id}`,
      indexes: [`CREATE INDEX event_${id}_${n}_txid_idx ON pgq.event_${id}_${n} USING btree (ev_txid)`],
      options: expect.arrayContaining(['fillfactor=100', 'autovacuum_enabled=off']),
    })
    expect(tables).toEqual([
      { name: `pgq.event_${id}`, parent: 'pgq.event_template', indexes: [], options: null },
      child(0),
      child(1),
      child(2),
    ])
  })

  it('may have any text as a name, and names do not meet', async () => {
    await using db = await open()
    for (const name of names) await busyQueue(db, name, ['c'])
    for (const name of names) await insert(db, name, `for ${name}`)
    for (const name of names) {
      await db.query(`select pgq.insert_events($1, array['t'], array['many'])`, [name])
      await db.query('select pgq.insert_event_raw($1, null, null, null, null, null, $2, null, null, null, null)', [
        name,
        'raw',
      ])
      await tick(db, name)
    }
    for (const name of names) {
      expect(await consume(db, name, 'c')).toEqual([`for ${name}`, 'many', 'raw'])
      expect(await db.query('select queue_name from pgq.get_queue_info($1)', [name])).toEqual([{ queue_name: name }])
    }
    expect(await db.query('select from pgq.queue')).toHaveLength(names.length)
    for (const name of names) expect(await one(db, 'select pgq.drop_queue($1, true) as n', [name])).toEqual({ n: 1 })
    expect(await db.query('select from pgq.queue')).toHaveLength(0)
  })

  it('leave nothing behind when they are dropped', async () => {
    await using db = await open()
    const objects = () =>
      db.query(`select 'class' as kind, relname as name from pg_class where relnamespace = 'pgq'::regnamespace
        union all select 'function', proname from pg_proc where pronamespace = 'pgq'::regnamespace order by 1, 2`)
    const before = await objects()
    await busyQueue(db, 'q', ['c'])
    await insert(db, 'q', 'x')
    await tick(db, 'q')
    const { batch } = await one<{ batch: bigint }>(db, `select pgq.next_batch('q', 'c') as batch`)
    await db.query('select pgq.batch_retry($1, 0)', [batch])
    await db.query(`select pgq.drop_queue('q', true)`)
    expect(await objects()).toEqual(before)
    for (const table of ['queue', 'tick', 'subscription', 'consumer', 'retry_queue'])
      expect(await db.query(`select * from pgq.${table}`), table).toEqual([])
    await expect(insert(db, 'q', 'x')).rejects.toMatchObject({ code: 'PQ001' })
  })

  it('are not dropped while consumers are attached, unless forced', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    const refusal = { code: 'PQ009', message: expect.stringContaining('cannot drop queue, consumers still attached') }
    await expect(db.query(`select pgq.drop_queue('q')`)).rejects.toMatchObject(refusal)
    await expect(db.query(`select pgq.drop_queue('q', false)`)).rejects.toMatchObject(refusal)
    await db.query(`select pgq.unregister_consumer('q', 'c')`)
    expect(await one(db, `select pgq.drop_queue('q') as n`)).toEqual({ n: 1 })
  })

  it('say what is wrong with a name that is null or unknown', async () => {
    await using db = await open()
    await expect(db.query('select pgq.create_queue(null)')).rejects.toMatchObject({
      code: 'PQ008',
      message: expect.stringContaining('Invalid NULL value'),
    })
    for (const sql of [
      `select pgq.drop_queue('none', true)`,
      `select pgq.drop_queue('none')`,
      `select pgq.set_queue_config('none', 'ticker_max_count', '1')`,
    ])
      await expect(db.query(sql), sql).rejects.toMatchObject({
        code: 'PQ001',
        message: expect.stringContaining('No such event queue'),
      })
    await expect(db.query(`select pgq.grant_perms('none')`)).rejects.toMatchObject({
      code: 'PQ001',
      message: expect.stringContaining('Queue not found'),
    })
    expect(await one(db, 'select pgq.drop_queue(null) as n')).toEqual({ n: null })
    expect(await one(db, `select pgq.tune_storage('none') as n`)).toEqual({ n: 0 })
  })

  it('take six settings by name, and say which when it is another', async () => {
    await using db = await open()
    await db.query(`select pgq.create_queue('q')`)
    const settings = {
      ticker_max_count: ['7', 7],
      ticker_max_lag: ['1 minute', '00:01:00'],
      ticker_idle_period: ['2 minutes', '00:02:00'],
      ticker_paused: ['true', true],
      rotation_period: ['3 days', '3 days'],
      external_ticker: ['on', true],
    } as const
    for (const [name, [value, stored]] of Object.entries(settings)) {
      expect(await one(db, `select pgq.set_queue_config('q', $1, $2) as n`, [name, value])).toEqual({ n: 1 })
      expect(await one(db, `select queue_${name} as value from pgq.queue`)).toEqual({ value: stored })
    }
    for (const name of ['foo', 'disable_insert', 'per_tx_limit', 'ntables', 'extra_maint', 'name'])
      await expect(db.query(`select pgq.set_queue_config('q', $1, '1')`, [name])).rejects.toMatchObject({
        code: 'PQ008',
        message: expect.stringContaining(`cannot change parameter "${name}"`),
      })
    await expect(db.query(`select pgq.set_queue_config('q', 'ticker_max_count', 'many')`)).rejects.toMatchObject({
      code: '22P02',
    })
    for (const args of [`null, 'ticker_paused', 'true'`, `'q', null, 'true'`, `'q', 'ticker_paused', null`])
      await expect(db.query(`select pgq.set_queue_config(${args})`)).rejects.toMatchObject({ code: 'PQ008' })
  })

  it('can be changed by UPDATE of pgq.queue, at once', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await db.query(`update pgq.queue set queue_disable_insert = true`)
    await expect(insert(db, 'q', 'no')).rejects.toMatchObject({
      code: 'PQ006',
      message: expect.stringContaining('Insert into queue disallowed'),
    })
    await expect(db.query(`select pgq.current_event_table('q')`)).rejects.toMatchObject({
      code: 'PQ006',
      message: expect.stringContaining('Writing to queue disabled'),
    })
    await expect(db.query(`select pgq.insert_events('q', array['t'], array['d'])`)).rejects.toMatchObject({
      code: 'PQ006',
    })
    await db.exec(`set session_replication_role = 'replica'`)
    await insert(db, 'q', 'replicated')
    await db.query(`select pgq.current_event_table('q')`)
    await db.exec(`set session_replication_role = 'local'`)
    await expect(insert(db, 'q', 'no')).rejects.toMatchObject({ code: 'PQ006' })
    await db.exec('reset session_replication_role')
    await db.query(`update pgq.queue set queue_disable_insert = false`)
    await insert(db, 'q', 'yes')
    await tick(db, 'q')
    expect(await consume(db, 'q', 'c')).toEqual(['replicated', 'yes'])
  })

  it('keep working under a new name', async () => {
    await using db = await open()
    await busyQueue(db, 'old', ['c'])
    await insert(db, 'old', '1')
    await db.query(`update pgq.queue set queue_name = 'new'`)
    await insert(db, 'new', '2')
    await expect(insert(db, 'old', '3')).rejects.toMatchObject({ code: 'PQ001' })
    await tick(db, 'new')
    expect(await consume(db, 'new', 'c')).toEqual(['1', '2'])
  })
})
