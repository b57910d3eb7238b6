import { statementsPerSecond } from './support/load.ts'
import type { BenchOptions } from './support/options.ts'
import type { BenchReport, Measurement } from './support/report.ts'
import { type BenchServer, startBenchServer } from './support/server.ts'

const payload = `'{"order": 4711, "customer": "c-00042", "total": "199.90", "items": [{"sku": "A-1", "n": 2}]}'`
const bulk = 100_000

interface Contender {
  readonly name: string
  readonly database: string
  /** The statement that writes one event into this queue. */
  single(queue: string, extras: boolean): string
  /** Statements that write `bulk` events, in one transaction. */
  readonly many: string
  /** Empties what the last round wrote: each round starts with an empty table. */
  reset(queue: string): Promise<void>
}

const rows = `select g::text as type, ${payload}::text as data from generate_series(1, ${bulk}) g`

async function contenders(server: BenchServer, { queues, without }: BenchOptions): Promise<Contender[]> {
  const list: Contender[] = []
  const name = (n: number): string => `queue_${String(n).padStart(3, '0')}`
  for (const kind of ['ours', 'upstream'] as const) {
    const label = kind === 'ours' ? 'ours' : 'C extension'
    if (without.includes(label) || (kind === 'upstream' && !server.hasUpstream)) continue
    await server.createDatabase(kind, kind)
    const client = await server.connect(kind)
    for (let n = 1; n <= queues; n++) await client.query('select pgq.create_queue($1)', [name(n)])
    // As autovacuum does within a minute; at some moment of the run it would change plans.
    await client.query('analyze')
    await client.end()
    list.push({
      name: label,
      database: kind,
      single: (queue, extras) =>
        `select pgq.insert_event('${queue}', 'order', ${payload}${extras ? ", 'x1', 'x2', null, null" : ''})`,
      many:
        kind === 'ours'
          ? `select count(*) from pgq.insert_events('${name(1)}',
               array(select g::text from generate_series(1, ${bulk}) g),
               array(select ${payload}::text from generate_series(1, ${bulk}) g))`
          : `select count(pgq.insert_event('${name(1)}', type, data)) from (${rows}) r`,
      async reset(queue) {
        const session = await server.connect(kind)
        const found = await session.query('select queue_data_pfx as pfx from pgq.queue where queue_name = $1', [queue])
        const table = String(found.rows[0].pfx)
        await session.query(`truncate ${table}_0, ${table}_1, ${table}_2`)
        await session.end()
      },
    })
  }
  if (without.includes('plain INSERT')) return list
  await server.createDatabase('plain', 'empty')
  const client = await server.connect('plain')
  await client.query(`
    create sequence ev_seq;
    create table ev (ev_id bigint not null default nextval('ev_seq'), ev_time timestamptz not null,
      ev_txid bigint not null default txid_current(), ev_owner int4, ev_retry int4, ev_type text, ev_data text,
      ev_extra1 text, ev_extra2 text, ev_extra3 text, ev_extra4 text) with (fillfactor = 100, autovacuum_enabled = off);
    create index on ev (ev_txid)`)
  await client.end()
  list.push({
    name: 'plain INSERT',
    database: 'plain',
    single: (_queue, extras) =>
      extras
        ? `insert into ev (ev_time, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4)
           values (now(), 'order', ${payload}, 'x1', 'x2', null, null) returning ev_id`
        : `insert into ev (ev_time, ev_type, ev_data) values (now(), 'order', ${payload}) returning ev_id`,
    many: `insert into ev (ev_time, ev_type, ev_data) select now(), type, data from (${rows}) r`,
    async reset() {
      const session = await server.connect('plain')
      await session.query('truncate ev')
      await session.end()
    },
  })
  return list
}

interface Case {
  readonly name: string
  measure(contender: Contender): Promise<number>
}

function cases(server: BenchServer, { seconds, queues }: BenchOptions): Case[] {
  const targets = { first: 1, middle: Math.ceil(queues / 2), last: queues }
  const list: Case[] = []
  for (const [target, n] of Object.entries(targets)) {
    const queue = `queue_${String(n).padStart(3, '0')}`
    for (const perTransaction of [1, 100]) {
      for (const prepared of [true, false]) {
        for (const extras of [false, true]) {
          // The 7-argument form and the simple protocol differ by a constant: the middle queue shows it.
          if ((extras || !prepared) && target !== 'middle') continue
          const name = [
            extras ? '7 args' : '3 args',
            `${target} queue`,
            perTransaction === 1 ? 'autocommit' : `${perTransaction} a tx`,
            prepared ? 'prepared' : 'simple',
          ].join(', ')
          list.push({
            name,
            async measure(contender) {
              await contender.reset(queue)
              const statement = contender.single(queue, extras).replace(/\s+/g, ' ')
              return statementsPerSecond(server, {
                database: contender.database,
                statement,
                clients: 4,
                seconds,
                perTransaction,
                prepared,
              })
            },
          })
        }
      }
    }
  }
  list.push({
    name: `${bulk / 1000}k events in one transaction`,
    async measure(contender) {
      await contender.reset('queue_001')
      const client = await server.connect(contender.database)
      // As in a session of a pool: its first call is not its only one.
      await client.query(contender.many)
      await contender.reset('queue_001')
      await client.query('checkpoint') // which takes used WAL files back, see startBenchServer()
      const start = performance.now()
      await client.query(contender.many)
      const elapsed = performance.now() - start
      await client.end()
      return (bulk * 1000) / elapsed
    },
  })
  return list
}

/** Events a second: by name into one of many queues, one a statement and many a call. */
export async function insert(options: BenchOptions): Promise<BenchReport> {
  const server = await startBenchServer({ synchronous_commit: 'off' })
  try {
    const all = await contenders(server, options)
    const measurements: Measurement[] = []
    for (const { name, measure } of cases(server, options)) {
      if (!name.includes(options.only)) continue
      const rounds: Record<string, number[]> = Object.fromEntries(all.map((contender) => [contender.name, []]))
      for (let round = 0; round < options.rounds; round++) {
        for (let turn = 0; turn < all.length; turn++) {
          const contender = all[(turn + round) % all.length]
          if (contender) rounds[contender.name]?.push(await measure(contender))
        }
      }
      measurements.push({ name, unit: 'events/s', rounds })
      process.stderr.write(`${name}: done\n`)
    }
    const client = server.hasPgbench ? 'pgbench' : 'node-postgres'
    return {
      scenario: 'insert',
      server: server.version,
      settings: `${options.queues} queues, 4 clients (${client}), synchronous_commit = off, ${options.rounds} rounds`,
      subject: 'ours',
      measurements,
    }
  } finally {
    await server.stop()
  }
}
