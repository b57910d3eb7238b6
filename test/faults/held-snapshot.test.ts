import { describe, expect, it } from 'vitest'
import { servers } from '../support/databases.ts'
import { busyQueue, one } from '../support/queues.ts'

const batches = 2000

describe.each(servers)('another session that holds an old snapshot on $name', ({ open }) => {
  it(`makes ${batches} batches leave no dead rows behind`, { timeout: 180_000 }, async () => {
    await using db = await open()
    await using holder = await db.connect()
    await busyQueue(db, 'q', ['c'])
    await db.exec(`select pgq.set_queue_config('q', 'rotation_period', '1 second')`)
    await holder.exec('begin isolation level repeatable read')
    await holder.query('select txid_current()')
    for (let done = 0; done < batches; done += 250) {
      await db.exec(`do $$
        declare
          v_batch bigint;
          v_events bigint;
        begin
          for i in 1..250 loop
            perform pgq.insert_event('q', 'test', i::text);
            commit;
            perform pgq.ticker('q');
            commit;
            v_batch := pgq.next_batch('q', 'c');
            commit;
            select count(*) into v_events from pgq.get_batch_events(v_batch);
            if v_events <> 1 or pgq.finish_batch(v_batch) <> 1 then
              raise exception '% events in batch %', v_events, v_batch;
            end if;
            commit;
          end loop;
        end $$`)
      const operations = await db.query<{ name: string; argument: string | null }>(
        'select func_name as name, func_arg as argument from pgq.maint_operations()',
      )
      for (const { name, argument } of operations)
        if (name !== 'vacuum')
          await db.query(
            argument === null ? `select ${name}()` : `select ${name}($1)`,
            argument === null ? [] : [argument],
          )
    }
    // Rows on the pages, less those that a new snapshot sees: free of what the statistics collector has heard so far.
    const tables = await db.query<{ name: string }>(
      `select oid::regclass::text as name from pg_class where relnamespace = 'pgq'::regnamespace and relkind = 'r' order by 1`,
    )
    const dead: Record<string, number> = {}
    await db.exec('set vacuum_cost_delay = 0')
    for (const { name } of tables) {
      const notices: string[] = []
      await db.exec(`vacuum (verbose) ${name}`, { onNotice: ({ message }) => notices.push(message) })
      const count = [
        ...notices
          .join('\n')
          .matchAll(/(\d+) (?:are dead but not yet removable|dead row versions cannot be removed yet)/g),
      ]
      const removed = [...notices.join('\n').matchAll(/(?:tuples|found): (\d+) remov|found (\d+) removable/g)]
      for (const [, n, old] of [...count, ...removed]) dead[name] = (dead[name] ?? 0) + Number(n ?? old)
    }
    const sum = Object.values(dead).reduce((total, n) => total + n, 0)
    expect(Object.keys(dead).length).toBeGreaterThan(10)
    expect(sum, JSON.stringify(dead)).toBeLessThan(500)
    expect(await one(db, `select count(*) as n from pgq.get_consumer_info('q', 'c') where pending_events = 0`)).toEqual(
      { n: 1n },
    )
    await holder.exec('rollback')
  })
})
