import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { databases, servers, type TestDb } from '../support/databases.ts'
import { type Arena, openArena, runSchedule } from './runner.ts'
import { type Step, schedule } from './schedule.ts'

// SKYTOOLS_SEED=… repeats a run, SKYTOOLS_SCHEDULES=… asks for more of them on each server.
const seed = Number(process.env.SKYTOOLS_SEED ?? Math.floor(Math.random() * 2 ** 31))
const schedules = Number(process.env.SKYTOOLS_SCHEDULES ?? 60)
/** A backend keeps the code of each queue that it has used: with hundreds behind it, it slows down. */
const schedulesPerDatabase = 10

async function arenaOf(db: TestDb, kind: 'pglite' | 'server'): Promise<Arena> {
  return openArena(() => (kind === 'pglite' ? Promise.resolve(db) : db.connect()), kind)
}

describe.each(databases)('random interleavings on $name', ({ kind, open }) => {
  const runs = kind === 'pglite' ? Math.ceil(schedules / 4) : schedules

  it(`deliver each committed event once to each consumer (seed ${seed}, ${runs} schedules)`, {
    timeout: 60_000 + runs * 10_000,
  }, async () => {
    const seen = new Map<string, number>()
    for (let done = 0; done < runs; done += schedulesPerDatabase) {
      await using db = await open()
      const arena = await arenaOf(db, kind)
      await fc.assert(
        fc.asyncProperty(schedule, (steps: Step[]) => runSchedule(arena, steps)),
        { seed: seed + done, numRuns: Math.min(schedulesPerDatabase, runs - done) },
      )
      for (const [what, times] of arena.seen) seen.set(what, (seen.get(what) ?? 0) + times)
    }
    const times = (what: string): number => seen.get(what) ?? 0
    // A schedule in which nothing happens proves nothing.
    expect(times('event')).toBeGreaterThan(runs * 5)
    expect(times('finish')).toBeGreaterThan(runs * 3)
    expect(times('moved')).toBeGreaterThan(0)
    expect(times('cooperative batch')).toBeGreaterThan(runs)
    // On a server, transactions of other databases may hold rotation up all the time.
    if (kind === 'server') expect(times('blocked')).toBeGreaterThan(0)
    else expect(times('truncated')).toBeGreaterThan(0)
  })
})

describe.each(servers)('the model on $name', ({ open }) => {
  const broken = [
    {
      what: 'a batch that leaves events out',
      sql: `alter function pgq.get_batch_events(bigint) rename to whole_batch;
        create function pgq.get_batch_events(x_batch_id bigint, out ev_id bigint, out ev_time timestamptz,
          out ev_txid bigint, out ev_retry int4, out ev_type text, out ev_data text, out ev_extra1 text,
          out ev_extra2 text, out ev_extra3 text, out ev_extra4 text) returns setof record language sql
        as 'select * from pgq.whole_batch(x_batch_id) e where e.ev_id % 3 <> 0'`,
      finds: /lost/,
    },
    {
      what: 'a batch that is given out again after it was finished',
      sql: `create or replace function pgq.finish_batch(x_batch_id bigint) returns int4 language sql as 'select 1'`,
      finds: /should not have|without end|starts at tick/,
    },
    {
      what: 'a rotation that empties a table that is still needed',
      sql: `create or replace function pgq.maint_rotate_tables_step1(i_queue_name text) returns int4 language plpgsql as $$
        begin
          execute (select format('truncate %s_%s', queue_data_pfx, queue_cur_table)
                     from pgq.queue where queue_name = i_queue_name);
          return 0;
        end $$`,
      finds: /lost/,
    },
    {
      what: 'a ticker that does not see what is committed',
      sql: `create or replace function pgq.ticker(i_queue_name text) returns bigint language sql as $$
        insert into pgq.tick (tick_queue, tick_id, tick_snapshot, tick_event_seq)
        select q.queue_id, nextval(q.queue_tick_seq::regclass),
               coalesce((select t.tick_snapshot from pgq.tick t where t.tick_queue = q.queue_id order by t.tick_id limit 1),
                        txid_current_snapshot()), 1
          from pgq.queue q where q.queue_name = i_queue_name returning tick_id $$`,
      finds: /misses txid|does not see|ticks .* out of order/,
    },
  ]

  it.each(broken)('finds $what', { timeout: 120_000 }, async ({ sql, finds }) => {
    await using db = await open()
    await db.exec(sql)
    const arena = await arenaOf(db, 'server')
    const result = await fc.check(
      fc.asyncProperty(schedule, (steps: Step[]) => runSchedule(arena, steps)),
      { seed, numRuns: 40, endOnFailure: true },
    )
    expect(result.failed).toBe(true)
    expect(String((result.errorInstance as Error).message)).toMatch(finds)
  })
})
