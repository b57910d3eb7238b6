import { describe, expect, it } from 'vitest'
import type { Db } from '../../src/db/db.ts'
import { databases } from '../support/databases.ts'
import { busyQueue, consume, insert, one, rotate, rotateSoon, tick } from '../support/queues.ts'

const step1 = `select pgq.maint_rotate_tables_step1('q') as n`
const state = 'select queue_cur_table as cur, queue_switch_step2 is null as pending from pgq.queue'

/** A transaction in another database of the server can hold the snapshot of a tick back to before the rotation. */
async function tickAfterRotation(db: Db): Promise<void> {
  const newest = `select txid_snapshot_xmin(t.tick_snapshot) >= q.queue_switch_step2 as after
                    from pgq.tick t join pgq.queue q on q.queue_id = t.tick_queue order by t.tick_id desc limit 1`
  do await tick(db, 'q')
  while (!(await one<{ after: boolean }>(db, newest)).after)
}

describe.each(databases)('rotation on $name', ({ open }) => {
  it('goes in two steps, each in its own transaction, and both return 0', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    expect(await one(db, step1)).toEqual({ n: 0 })
    expect(await one(db, state)).toEqual({ cur: 1, pending: true })
    expect(await one(db, step1)).toEqual({ n: 0 })
    expect(await one(db, state)).toEqual({ cur: 1, pending: true })
    expect(await one(db, 'select pgq.maint_rotate_tables_step2() as n')).toEqual({ n: 0 })
    expect(await one(db, state)).toEqual({ cur: 1, pending: false })
    expect(await one(db, `select pgq.maint_rotate_tables_step1('none') as n`)).toEqual({ n: 0 })
    expect(await one(db, 'select pgq.maint_rotate_tables_step1(null) as n')).toEqual({ n: 0 })
  })

  it('does nothing before its period has passed', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    await db.query(`select pgq.set_queue_config('q', 'rotation_period', '1 hour')`)
    expect(await rotate(db, 'q')).toBe(false)
    await db.query(`update pgq.queue set queue_switch_time = now() - interval '61 minutes'`)
    expect(await rotate(db, 'q')).toBe(true)
  })

  it('waits for the slowest consumer, and empties the tables in turn', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['fast', 'slow'])
    await insert(db, 'q', 'kept')
    await tick(db, 'q')
    await consume(db, 'q', 'fast')
    expect(await rotate(db, 'q')).toBe(false)
    expect(await consume(db, 'q', 'slow')).toEqual(['kept'])
    for (let n = 0; n < 3; n++) {
      expect(await one(db, 'select count(*) as n from pgq.event_template')).toEqual({ n: 1n })
      await rotateSoon(db, 'q', ['fast', 'slow'])
    }
    expect(await one(db, 'select count(*) as n from pgq.event_template')).toEqual({ n: 0n })
  })

  it('keeps the ticks of about one period, so that a consumer can go back over it', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    for (let n = 0; n < 4; n++) await rotateSoon(db, 'q', ['c'])
    const { low } = await one<{ low: bigint }>(db, 'select min(tick_id) as low from pgq.tick')
    expect(low).toBeGreaterThan(1n)
    await tickAfterRotation(db)
    await insert(db, 'q', '1')
    await rotateSoon(db, 'q', ['c'])
    await insert(db, 'q', '2')
    await tick(db, 'q')
    await consume(db, 'q', 'c')
    const { oldest } = await one<{ oldest: bigint }>(db, 'select min(tick_id) as oldest from pgq.tick')
    await db.query(`select pgq.register_consumer_at('q', 'c', $1)`, [oldest])
    expect(await consume(db, 'q', 'c')).toEqual(['1', '2'])
  })

  it('says so when transaction ids have gone back, or the tick of a consumer is gone', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await tick(db, 'q')
    await db.query('delete from pgq.tick where tick_id = 1')
    await expect(db.query(step1)).rejects.toMatchObject({
      code: 'PQ011',
      message: expect.stringContaining('queue q maint failure: tick 1 not found'),
    })
    await db.query(`update pgq.queue set queue_switch_step1 = 999999999, queue_switch_step2 = 999999999`)
    await expect(db.query(step1)).rejects.toMatchObject({
      code: 'PQ011',
      message: expect.stringContaining('queue q maint failure: step1=999999999, current='),
    })
  })

  it('moves the position log on without moving a consumer or losing its open batch', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c', 'idle'])
    await insert(db, 'q', '1')
    await tick(db, 'q')
    const { batch } = await one<{ batch: bigint }>(db, `select pgq.next_batch('q', 'c') as batch`)
    const positions = () =>
      db.query('select sub_id, sub_last_tick, sub_batch, sub_next_tick, sub_active from pgq.subscription order by 1')
    const before = await positions()
    for (let n = 0; n < 7; n++) {
      expect(await one(db, 'select pgq.maint_rotate_positions() as n')).toEqual({ n: 0 })
      expect(await positions()).toEqual(before)
    }
    expect(await db.query('select ev_data from pgq.get_batch_events($1)', [batch])).toEqual([{ ev_data: '1' }])
    expect(await one(db, 'select pgq.finish_batch($1) as n', [batch])).toEqual({ n: 1 })
    expect(await consume(db, 'q', 'idle')).toEqual(['1'])
  })

  it('maintenance names what is due: rotations by name, the second step once, hooks', async () => {
    await using db = await open()
    await busyQueue(db, 'b')
    await busyQueue(db, 'a')
    await db.query('select pgq.create_queue($1)', ['quiet'])
    const operations = () =>
      db.query<{ func_name: string; func_arg: string | null }>('select * from pgq.maint_operations()')
    const rows = (await operations()).filter(({ func_name: name }) => name !== 'vacuum')
    expect(rows).toEqual([
      { func_name: 'pgq.maint_rotate_tables_step1', func_arg: 'a' },
      { func_name: 'pgq.maint_rotate_tables_step1', func_arg: 'b' },
      { func_name: 'pgq.maint_rotate_tables_step2', func_arg: null },
    ])
    await db.query(`select pgq.maint_rotate_tables_step1('a')`)
    await db.query(
      `update pgq.queue set queue_rotation_period = '1 hour', queue_extra_maint = '{hook,other.hook}' where queue_name = 'a'`,
    )
    await db.query(`update pgq.queue set queue_rotation_period = '1 hour' where queue_name = 'b'`)
    const later = (await operations()).filter(({ func_name: name }) => name !== 'vacuum')
    expect(later).toEqual([
      { func_name: 'pgq.maint_rotate_tables_step2', func_arg: null },
      { func_name: 'hook', func_arg: 'a' },
      { func_name: 'other.hook', func_arg: 'a' },
    ])
  })

  it('leaves vacuum to autovacuum where that is on', async () => {
    await using db = await open()
    const { setting } = await one<{ setting: string }>(db, `select current_setting('autovacuum') as setting`)
    const tables = (await db.query<{ name: string }>('select * from pgq.maint_tables_to_vacuum() as name')).map(
      ({ name }) => name,
    )
    if (setting === 'on') expect(tables).toEqual([])
    else expect(tables).toEqual(expect.arrayContaining(['pgq.queue', 'pgq.tick', 'pgq.consumer', 'pgq.retry_queue']))
  })
})
