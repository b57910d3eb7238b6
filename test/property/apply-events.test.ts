import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Db } from '../../src/db/db.ts'
import { databases } from '../support/databases.ts'

// SKYTOOLS_SEED=… repeats a run, SKYTOOLS_SCHEDULES=… asks for more of them.
const seed = Number(process.env.SKYTOOLS_SEED ?? Math.floor(Math.random() * 2 ** 31))
const runs = Math.ceil(Number(process.env.SKYTOOLS_SCHEDULES ?? 60) / 10)

const id = fc.integer({ min: 1, max: 6 })
const text = fc.constantFrom(null, '', 'x', `'"\\`, 'a=b&c+d%20', 'õ€\n', '{"k": 1}')
const change = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('insert' as const), id, text, n: fc.integer() }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('update' as const), id, text, n: fc.integer() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('delete' as const), id }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('move' as const), id, to: id }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('swap' as const), id, to: id }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'truncate' as const }) },
)
type Change = typeof change extends fc.Arbitrary<infer T> ? T : never

/** The same change of a table and of its copy, which thereby is what replaying row by row would make of it. */
async function apply(db: Db, step: Change): Promise<void> {
  for (const name of ['source', 'replayed']) {
    if (step.kind === 'insert') {
      const row = [step.id, step.text, step.n]
      await db.query(
        `insert into ${name} (id, region, a, n, doc, list, twin)
         values ($1, 'r', $2::text, $3, to_jsonb($2::text), array[$2::text, 'b c'], $1) on conflict do nothing`,
        row,
      )
    } else if (step.kind === 'update') {
      await db.query(`update ${name} set a = $2, n = $3 / 7.0, list = null where id = $1`, [step.id, step.text, step.n])
    } else if (step.kind === 'delete') await db.query(`delete from ${name} where id = $1`, [step.id])
    else if (step.kind === 'move') {
      await db.query(`update ${name} set id = $2 where id = $1 and not exists (select from ${name} where id = $2)`, [
        step.id,
        step.to,
      ])
    } else if (step.kind === 'swap') {
      await db.query(`update ${name} set twin = -twin where id in ($1, $2)`, [step.id, step.to])
      await db.query(
        `update ${name} t set twin = -o.twin from ${name} o where t.id = $1 and o.id = $2 and t.id <> o.id and not exists (select from ${name} x where x.twin = -o.twin)`,
        [step.id, step.to],
      )
    } else await db.query(`truncate ${name}`)
  }
}

const columns = `id int not null, region text not null default 'r', a varchar(20), n numeric, doc jsonb, list text[], twin int unique,
  double numeric generated always as (n * 2) stored, primary key (id, region)`

describe.each(databases)('apply_events on $name', ({ open }) => {
  it(`ends as row by row replay does, by each method and format (seed ${seed}, ${runs} batches)`, async () => {
    await using db = await open()
    await db.exec(`create table source (${columns});
      create table replayed (${columns}, note text default 'new');
      create table target (${columns}, note text default 'new');`)
    const formats = ['json', 'urlencode']
    for (const format of formats) {
      await db.query('select pgq.create_queue($1), pgq.register_consumer($1, $2)', [format, 'c'])
      await db.query(
        `select pgq.capture('source', $1, jsonb_build_object('format', $1::text, 'ignore', array['double']))`,
        [format],
      )
    }
    const content = (name: string) => db.query(`select t::text as row from ${name} t order by id`)
    let setWise = 0
    const check = async (changes: Change[]) => {
      await db.exec(`update replayed set note = 'old ' || id; truncate target; alter table target disable trigger all;
        insert into target (id, region, a, n, doc, list, twin, note) select id, region, a, n, doc, list, twin, note from replayed`)
      await db.transaction(async (tx) => {
        for (const step of changes) await apply(tx, step)
      })
      for (const format of formats) {
        await db.query('select pgq.force_tick($1)', [format])
        await db.query('select pgq.ticker($1)', [format])
        const [batch] = await db.query('select pgq.next_batch($1, $2) as id', [format, 'c'])
        for (const method of ['correct', 'delete', 'merged']) {
          await db.exec('begin')
          const [done] = await db.query(
            `select * from skytools.apply_events($1, 'target', method => $2, source => 'public.source')`,
            [batch?.id, method],
          )
          expect(await content('target'), `${format}, ${method}`).toEqual(await content('replayed'))
          if (done?.set_wise) setWise++
          await db.exec('rollback')
        }
        await db.query('select pgq.finish_batch($1)', [batch?.id])
      }
    }
    await fc.assert(fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 25 }), check), { seed, numRuns: runs })
    expect(setWise).toBeGreaterThan(runs)
  })
})
