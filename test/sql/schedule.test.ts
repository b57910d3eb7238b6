import { describe, expect, it } from 'vitest'
import { databases, servers } from '../support/databases.ts'
import { busyQueue, insert, one } from '../support/queues.ts'

/** The part of pg_cron that we call: it only notes its jobs. */
const fakeCron = `
  create schema cron;
  create table cron.job (jobid bigint generated always as identity, jobname text unique, schedule text, command text,
    database text default current_database());
  create function cron.schedule(job_name text, schedule text, command text) returns bigint language sql as $$
    insert into cron.job (jobname, schedule, command) values ($1, $2, $3)
    on conflict (jobname) do update set command = excluded.command returning jobid $$;
  create function cron.schedule_in_database(job_name text, schedule text, command text, database text,
    username text default null, active boolean default true) returns bigint language sql as $$
    insert into cron.job (jobname, schedule, command, database) values ($1, $2, $3, $4) returning jobid $$;
  create function cron.unschedule(job_id bigint) returns boolean language sql as $$
    delete from cron.job where jobid = $1 returning true $$;`

describe.each(databases)('a ticker without a process on $name', ({ open }) => {
  it('is a job of pg_cron, one for each database', async () => {
    await using db = await open()
    await db.exec(fakeCron)
    const { name } = await one<{ name: string }>(db, 'select current_database() as name')
    expect(await one(db, 'select pgq.schedule() as id')).toEqual({ id: 1n })
    expect(await one(db, 'select pgq.schedule(0.2) as id')).toEqual({ id: 1n })
    await db.query(`select pgq.schedule(i_database => 'app')`)
    const jobs = () => db.query('select jobname, schedule, command, database from cron.job order by jobid')
    expect(await jobs()).toEqual([
      {
        jobname: `pgq ticker of ${name}`,
        schedule: '* * * * *',
        command: 'call pgq.ticker_loop(i_period => 0.2)',
        database: name,
      },
      {
        jobname: 'pgq ticker of app',
        schedule: '* * * * *',
        command: 'call pgq.ticker_loop(i_period => 0.5)',
        database: 'app',
      },
    ])
    expect(await one(db, 'select pgq.unschedule() as n')).toEqual({ n: 1 })
    expect(await one(db, 'select pgq.unschedule() as n')).toEqual({ n: 0 })
    expect(await one(db, `select pgq.unschedule('app') as n`)).toEqual({ n: 1 })
    expect(await jobs()).toEqual([])
  })

  it('says what to run where pg_cron is in another database', async () => {
    await using db = await open()
    await expect(db.query('select pgq.schedule()')).rejects.toMatchObject({
      code: 'PQ055',
      hint: expect.stringMatching(/^in database postgres: select cron\.schedule_in_database\('pgq ticker of /),
    })
    await expect(db.query('select pgq.unschedule()')).rejects.toMatchObject({ code: 'PQ055' })
    for (const period of ['0', '31', 'null'])
      await expect(db.query(`select pgq.schedule(${period})`)).rejects.toMatchObject({ code: 'PQ008' })
  })

  it('ticks several times a second, returns retries and rotates', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    await busyQueue(db, 'empty')
    await insert(db, 'q', '1')
    await db.query(
      `select pgq.event_retry_raw('q', 'c', now() - interval '1 hour', null, now(), 1, 't', 'd', null, null, null, null)`,
    )
    await db.exec('call pgq.ticker_loop(0.5, 0.1)')
    expect((await one<{ n: number }>(db, 'select count(*)::int as n from pgq.tick')).n).toBeGreaterThan(3)
    expect(await db.query('select * from pgq.retry_queue')).toEqual([])
    expect(await one(db, `select queue_cur_table as n from pgq.queue where queue_name = 'empty'`)).toEqual({ n: 1 })
    // The lock by which it leads is free again.
    await db.exec('call pgq.ticker_loop(0)')
  })

  it('goes on after an operation has failed', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    await db.exec(`create function boom(queue text) returns int language sql as 'select 1 / 0';
      update pgq.queue set queue_extra_maint = '{public.boom}'`)
    const warnings: string[] = []
    await db.exec('call pgq.ticker_loop(0.2, 0.05)', { onNotice: ({ message }) => warnings.push(message) })
    expect(warnings).toEqual(['public.boom: division by zero'])
    expect((await one<{ n: number }>(db, 'select count(*)::int as n from pgq.tick')).n).toBeGreaterThan(2)
  })
})

describe.each(servers)('a ticker without a process on $name', ({ open }) => {
  it('leaves at once where another ticker leads', async () => {
    await using db = await open()
    await using other = await db.connect()
    await busyQueue(db, 'q')
    const ticks = () => one(db, 'select count(*)::int as n from pgq.tick')
    const before = await ticks()
    await other.query(`select pg_advisory_lock('pgq.tick'::regclass::oid::bigint::integer, 0)`)
    await db.exec('call pgq.ticker_loop(100, 0.05)')
    expect(await ticks()).toEqual(before)
  })
})
