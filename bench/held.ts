import type pg from 'pg'
import type { BenchOptions } from './support/options.ts'
import type { BenchReport, Measurement } from './support/report.ts'
import { type BenchServer, startBenchServer } from './support/server.ts'

const chunk = 500
/** A contender that has used this many seconds of the held server stops, and the table says so. */
const patience = 120

/** One batch in five transactions, as a producer, a ticker and a consumer would make them. */
const loop = `do $$
declare
  v_batch bigint;
begin
  for i in 1..${chunk} loop
    perform pgq.insert_event('q', 'order', 'payload ' || i);
    commit;
    perform pgq.ticker('q');
    commit;
    v_batch := pgq.next_batch('q', 'c');
    commit;
    perform count(*) from pgq.get_batch_events(v_batch);
    perform pgq.finish_batch(v_batch);
    commit;
  end loop;
end $$`

async function prepare(server: BenchServer, kind: 'ours' | 'upstream'): Promise<pg.Client> {
  await server.createDatabase(kind, kind)
  const client = await server.connect(kind)
  for (const sql of [
    "select pgq.create_queue('q')",
    "select pgq.register_consumer('q', 'c')",
    "select pgq.set_queue_config('q', 'ticker_max_count', '1')",
    "select pgq.set_queue_config('q', 'ticker_max_lag', '0')",
    "select pgq.set_queue_config('q', 'ticker_idle_period', '0')",
    "select pgq.set_queue_config('q', 'rotation_period', '5 seconds')",
  ]) {
    await client.query(sql)
  }
  return client
}

/** What a ticker daemon does between batches. */
async function maintain(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ func_name: string; func_arg: string | null }>(
    'select func_name, func_arg from pgq.maint_operations()',
  )
  for (const { func_name: name, func_arg: argument } of rows) {
    if (name === 'vacuum') await client.query(`vacuum ${argument}`)
    else if (argument === null) await client.query(`select ${name}()`)
    else await client.query(`select ${name}($1)`, [argument])
  }
}

async function runChunk(client: pg.Client): Promise<number> {
  const start = performance.now()
  await client.query(loop)
  const elapsed = performance.now() - start
  await maintain(client)
  return (chunk * 1000) / elapsed
}

async function deadRows(client: pg.Client): Promise<{ sum: number; worst: string }> {
  // Counters of a session reach the views about a second after its last transaction.
  await new Promise((resolve) => setTimeout(resolve, 2000))
  const { rows } = await client.query<{ relname: string; dead: string }>(
    `select relname, n_dead_tup as dead from pg_stat_all_tables where schemaname = 'pgq' order by n_dead_tup desc`,
  )
  const sum = rows.reduce((total, { dead }) => total + Number(dead), 0)
  return { sum, worst: rows[0] ? `${rows[0].relname} ${rows[0].dead}` : 'none' }
}

async function measure(kind: 'ours' | 'upstream', free: BenchServer, held: BenchServer, batches: number) {
  const freeClient = await prepare(free, kind)
  const heldClient = await prepare(held, kind)
  const holder = await held.connect(kind)
  await holder.query('begin isolation level repeatable read')
  await holder.query('select txid_current(), (select count(*) from pgq.queue)')
  const rates = { free: [] as number[], held: [] as number[] }
  let used = 0
  let done = 0
  for (; done < batches && used < patience * 1000; done += chunk) {
    const runs = [
      async () => rates.free.push(await runChunk(freeClient)),
      async () => {
        const start = performance.now()
        rates.held.push(await runChunk(heldClient))
        used += performance.now() - start
      },
    ]
    for (const run of (done / chunk) % 2 === 0 ? runs : runs.reverse()) await run()
    process.stderr.write(
      `${kind}: ${done + chunk} batches, ${Math.round(rates.held.at(-1) ?? 0)}/s held, ${Math.round(rates.free.at(-1) ?? 0)}/s free\n`,
    )
  }
  const dead = { free: await deadRows(freeClient), held: await deadRows(heldClient) }
  await holder.query('rollback')
  await Promise.all([freeClient, heldClient, holder].map((client) => client.end()))
  return { rates, dead, done }
}

/** Batches a second while another session holds an old snapshot, and without; and the dead rows each leaves. */
export async function held(options: BenchOptions): Promise<BenchReport> {
  const settings = { synchronous_commit: 'off', autovacuum_naptime: '5s' }
  const free = await startBenchServer(settings)
  const heldServer = await startBenchServer(settings)
  const measurements: Measurement[] = []
  const last = <T>(values: T[]): T[] => values.slice(-Math.max(1, Math.round(values.length / 6)))
  try {
    for (const kind of ['ours', 'upstream'] as const) {
      const label = kind === 'ours' ? 'ours' : 'C extension'
      if (options.without.includes(label) || (kind === 'upstream' && !free.hasUpstream)) continue
      const { rates, dead, done } = await measure(kind, free, heldServer, options.batches)
      const row = (name: string, part: (values: number[]) => number[], note: string): Measurement => ({
        name: `${label}: ${name}`,
        unit: 'batches/s',
        rounds: { held: part(rates.held), free: part(rates.free) },
        note,
      })
      measurements.push(
        row(`${done} batches`, (values) => values, `dead rows held ${dead.held.sum} (${dead.held.worst})`),
      )
      measurements.push(row('the last sixth', last, `dead rows free ${dead.free.sum} (${dead.free.worst})`))
    }
    return {
      scenario: 'held',
      server: free.version,
      settings: `${options.batches} batches; two servers in turns, in one a session holds a REPEATABLE READ snapshot with a transaction id`,
      subject: 'held',
      measurements,
    }
  } finally {
    await free.stop()
    await heldServer.stop()
  }
}
