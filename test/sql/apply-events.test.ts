import { describe, expect, it } from 'vitest'
import { applyEvents } from '../../src/batch/apply-events.ts'
import type { Db } from '../../src/db/db.ts'
import { databases } from '../support/databases.ts'
import { one } from '../support/queues.ts'

const sum = { events: 0n, inserted: 0n, updated: 0n, deleted: 0n, missing: 0n, truncated: false, setWise: true }

async function prepare(db: Db, options = '{}'): Promise<void> {
  await db.exec(`select pgq.create_queue('q'), pgq.register_consumer('q', 'c');
    create table s (id int primary key, a text);
    create table t (id int primary key, a text, note text default 'new');
    select pgq.capture('s', 'q', '${options}')`)
}

/** The batch of events that these statements make; that of before is finished. */
async function batch(db: Db, statements: string): Promise<bigint> {
  await db.exec(statements)
  await db.query(`select pgq.finish_batch(b) from pgq.next_batch('q', 'c') b where b is not null`)
  await db.query(`select pgq.force_tick('q')`)
  await db.query(`select pgq.ticker('q')`)
  return (await one<{ id: bigint }>(db, `select pgq.next_batch('q', 'c') as id`)).id
}

const content = async (db: Db) =>
  (await db.query<{ row: string }>('select t::text as row from t order by id')).map(({ row }) => row)

describe.each(databases)('apply_events on $name', ({ open }) => {
  it('folds an insert and its updates where merged, and inserts and updates where correct', async () => {
    await using db = await open()
    await prepare(db)
    const id = await batch(db, `insert into s values (1, 'a'); update s set a = 'b'; update s set a = 'c'`)
    await db.exec('begin')
    expect(await applyEvents(db, id, 't', { source: 'public.s' })).toEqual({ ...sum, events: 3n, inserted: 1n })
    await db.exec('rollback')
    const correct = await applyEvents(db, id, 't', { source: 'public.s', method: 'correct' })
    expect(correct).toEqual({ ...sum, events: 3n, inserted: 1n, updated: 1n })
    expect(await content(db)).toEqual(['(1,c,new)'])
  })

  it('updates that follow each other over a unique key are applied one by one, and a missing row is counted', async () => {
    await using db = await open()
    await prepare(db)
    await batch(db, `insert into s select g, 'a' from generate_series(1, 4) g`)
    await db.exec(`insert into t (id, a, note) values (1, 'a', 'one'), (2, 'a', 'two')`)
    const id = await batch(
      db,
      `update s set id = 9 where id = 1; update s set id = 1 where id = 2; update s set id = 2 where id = 9; delete from s where id > 2`,
    )
    const done = await applyEvents(db, id, 't', { source: 'public.s', method: 'correct' })
    expect(done).toEqual({ ...sum, events: 5n, updated: 3n, missing: 2n, setWise: false })
    expect(await content(db)).toEqual(['(1,a,two)', '(2,a,one)'])
  })

  it('children that follow a delete by foreign key survive an update by any method', async () => {
    await using db = await open()
    await prepare(db)
    await db.exec(`create table child (id int references t on delete cascade); insert into t values (1, 'a');
      insert into child values (1)`)
    await batch(db, `insert into s values (1, 'a')`)
    const id = await batch(db, `update s set a = 'b'`)
    await applyEvents(db, id, 't', { source: 'public.s', method: 'delete' })
    expect(await one(db, 'select count(*)::int as n from child')).toEqual({ n: 1 })
  })

  it('a batch in which the table got another column is applied, and one that the target lacks is named', async () => {
    await using db = await open()
    await prepare(db)
    const altered = `insert into s values (1, 'a'); alter table s add b int; insert into s values (2, 'a', 5)`
    const id = await batch(db, altered)
    await expect(applyEvents(db, id, 't', { source: 'public.s' })).rejects.toMatchObject({
      code: 'PQ029',
      hint: expect.stringContaining('columns =>'),
    })
    const some = await applyEvents(db, id, 't', { source: 'public.s', columns: ['id', 'a'] })
    expect(some).toEqual({ ...sum, events: 2n, inserted: 2n, setWise: false })
  })

  it('refuses what it cannot apply, and names the event that fails', async () => {
    await using db = await open()
    await prepare(db, '{"format": "sql"}')
    const id = await batch(db, `insert into s values (1, 'a')`)
    await expect(applyEvents(db, id, 't', { source: 'public.s' })).rejects.toMatchObject({ code: 'PQ029' })
    await expect(applyEvents(db, 999n, 't')).rejects.toMatchObject({ code: 'PQ003' })
    expect(await applyEvents(db, id, 't')).toEqual(sum)
    await expect(db.query(`select skytools.apply_events($1, 't', method => 'x')`, [id])).rejects.toMatchObject({
      code: 'PQ024',
    })
    await db.exec(`select pgq.capture('s', 'q', '{}'); insert into t values (2, 'there')`)
    const twice = await batch(db, `insert into s values (2, 'a')`)
    await expect(applyEvents(db, twice, 't', { source: 'public.s' })).rejects.toMatchObject({
      code: '23505',
      message: expect.stringMatching(/^event \d+ of batch \d+: /),
    })
  })
})
