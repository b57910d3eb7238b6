import { join } from 'node:path'
import { statementsPerSecond } from './support/load.ts'
import type { BenchOptions } from './support/options.ts'
import type { BenchReport, Measurement } from './support/report.ts'
import { type BenchServer, startBenchServer } from './support/server.ts'

const singleRows = 20_000
const formats = { json: 'jsontriga', urlencode: 'logutriga', sql: 'sqltriga' } as const
type Format = keyof typeof formats

const columns = `id bigint primary key, customer text, state text, total numeric(10,2), paid boolean, note text, updated timestamptz`
const rows = (n: number): string =>
  `select g as id, 'c-' || lpad((g % 9000)::text, 5, '0') as customer, 'new' as state, g % 1000 + 0.9 as total, g % 2 = 0 as paid,
     'leave it at the door, please: ' || g as note, timestamptz '2026-01-01' + g * interval '1 second' as updated
   from generate_series(1, ${n}) g`

interface Contender {
  readonly name: string
  readonly database: string
  /** Makes what turns the changes of table t into events in queue q. */
  attach(format: Format): string
}

const trigger = (format: Format): string =>
  `create trigger t after insert or update or delete on t for each row execute function pgq.${formats[format]}('q')`

const all: readonly Contender[] = [
  { name: 'no trigger', database: 'ours', attach: () => '' },
  ...(['statement', 'row'] as const).map((level) => ({
    name: level,
    database: 'ours',
    attach: (format: Format) => `select pgq.capture('t', 'q', '{"format": "${format}", "level": "${level}"}')`,
  })),
  { name: 'trigger', database: 'ours', attach: trigger },
  { name: 'C trigger', database: 'upstream', attach: trigger },
]

/** A new table t with so many rows, and an empty queue. */
async function prepare(server: BenchServer, contender: Contender, format: Format, filled: number): Promise<void> {
  const client = await server.connect(contender.database)
  const found = await client.query(`select queue_data_pfx as pfx from pgq.queue where queue_name = 'q'`)
  const table = String(found.rows[0].pfx)
  await client.query(`drop table if exists t; truncate ${table}_0, ${table}_1, ${table}_2`)
  await client.query(`create table t (${columns}); insert into t ${rows(filled)}; analyze t`)
  await client.query(contender.attach(format))
  await client.query('checkpoint')
  await client.end()
}

interface Bulk {
  readonly name: string
  readonly filled: boolean
  statement(rows: number, file: string): string
}

const bulks: readonly Bulk[] = [
  { name: 'INSERT', filled: false, statement: (n) => `insert into t ${rows(n)}` },
  { name: 'COPY', filled: false, statement: (_n, file) => `copy t from '${file}'` },
  { name: 'UPDATE', filled: true, statement: () => `update t set state = 'paid', total = total + 1` },
  { name: 'DELETE', filled: true, statement: () => 'delete from t' },
]

const single = `update t set state = 'paid', total = total + 1 where id = (select 1 + floor(random() * ${singleRows})::bigint)`

/** Microseconds a row that a statement over many rows takes. */
async function runBulk(
  server: BenchServer,
  contender: Contender,
  format: Format,
  bulk: Bulk,
  n: number,
): Promise<number> {
  await prepare(server, contender, format, bulk.filled ? n : 0)
  const client = await server.connect(contender.database)
  // The first row of a session, and of a trigger, is another matter: it loads or makes code.
  await client.query(`insert into t values (0); delete from t where id = 0`)
  const start = performance.now()
  await client.query(bulk.statement(n, join(server.host, 'rows')))
  const elapsed = performance.now() - start
  await client.end()
  return (elapsed * 1000) / n
}

async function runSingle(server: BenchServer, contender: Contender, format: Format, seconds: number): Promise<number> {
  await prepare(server, contender, format, singleRows)
  const { database } = contender
  return statementsPerSecond(server, {
    database,
    statement: single,
    clients: 4,
    seconds,
    perTransaction: 1,
    prepared: true,
  })
}

/** Runs each contender once a round, beginning with another one each time. */
async function interleaved(
  contenders: readonly Contender[],
  count: number,
  run: (contender: Contender) => Promise<number>,
): Promise<Record<string, number[]>> {
  const rounds: Record<string, number[]> = Object.fromEntries(contenders.map(({ name }) => [name, []]))
  for (let round = 0; round < count; round++) {
    for (let turn = 0; turn < contenders.length; turn++) {
      const contender = contenders[(turn + round) % contenders.length]
      if (contender) rounds[contender.name]?.push(await run(contender))
    }
  }
  return rounds
}

/** What capturing adds to a statement, by statement, by row, and by the trigger functions: ours and those in C. */
export async function capture(options: BenchOptions): Promise<BenchReport> {
  const server = await startBenchServer({ synchronous_commit: 'off', autovacuum: 'off' })
  const contenders = all.filter(
    ({ name, database }) => !options.without.includes(name) && (database === 'ours' || server.hasUpstream),
  )
  const measurements: Measurement[] = []
  try {
    for (const kind of new Set(contenders.map(({ database }) => database))) {
      await server.createDatabase(kind, kind === 'upstream' ? 'upstream' : 'ours')
      const client = await server.connect(kind)
      await client.query(`select pgq.create_queue('q')`)
      if (kind === 'ours') await client.query(`copy (${rows(options.rows)}) to '${join(server.host, 'rows')}'`)
      await client.end()
    }
    for (const format of Object.keys(formats) as Format[]) {
      for (const bulk of bulks) {
        const name = `${bulk.name}, ${format}`
        if (!name.includes(options.only)) continue
        const rounds = await interleaved(contenders, options.rounds, (contender) =>
          runBulk(server, contender, format, bulk, options.rows),
        )
        const over = Object.entries(rounds).flatMap(([key, values]) =>
          key === 'no trigger'
            ? []
            : [[key, values.map((value, n) => value - (rounds['no trigger']?.[n] ?? 0))] as const],
        )
        measurements.push({ name, unit: 'µs a row', rounds, less: true })
        measurements.push({
          name: `${name}, over no trigger`,
          unit: 'µs a row',
          rounds: Object.fromEntries(over),
          less: true,
        })
        process.stderr.write(`${name}: done\n`)
      }
      const name = `single-row UPDATE, ${format}`
      if (!name.includes(options.only)) continue
      const rounds = await interleaved(contenders, options.rounds, (contender) =>
        runSingle(server, contender, format, options.seconds),
      )
      measurements.push({ name, unit: 'updates/s', rounds })
      process.stderr.write(`${name}: done\n`)
    }
    const client = server.hasPgbench ? 'pgbench' : 'node-postgres'
    return {
      scenario: 'capture',
      server: server.version,
      settings: `${options.rows} rows a statement, single rows by 4 clients (${client}), synchronous_commit = off, ${options.rounds} rounds`,
      subject: [
        ['statement', 'C trigger'],
        ['row', 'C trigger'],
        ['trigger', 'C trigger'],
      ],
      measurements,
    }
  } finally {
    await server.stop()
  }
}
