import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { batchUpdate, toDb } from '../src/index.ts'
import type { BenchOptions } from './support/options.ts'
import { plot } from './support/plot.ts'
import type { BenchReport, Measurement } from './support/report.ts'
import { type BenchServer, startBenchServer } from './support/server.ts'
import { median } from './support/statistics.ts'

interface Item {
  id: number
  n: number
  txt: string
}
/** Changes these rows, and returns how many it did: the slow ones stop early, as the figure is rows a second. */
type Contender = (client: pg.Client, rows: readonly Item[], few: number) => Promise<number>

const tableRows = 1_000_000
const ids = (rows: readonly Item[]) => [rows.map((row) => row.id), rows.map((row) => row.n), rows.map((row) => row.txt)]
const arrays = 'unnest($1::int[], $2::int[], $3::text[]) s (id, n, txt)'

const contenders: Record<string, Contender> = {
  async skytools(client, rows) {
    await batchUpdate(client, { table: 'item', rows })
    return rows.length
  },
  async 'one UPDATE a row'(client, rows, few) {
    const some = rows.slice(0, few)
    for (const { id, n, txt } of some)
      await client.query({ name: 'one', text: 'update item set n = $2, txt = $3 where id = $1', values: [id, n, txt] })
    return some.length
  },
  async 'one UPDATE a row, 1000 a message'(client, rows, few) {
    const some = rows.slice(0, few * 10)
    for (let start = 0; start < some.length; start += 1000) {
      const statements = some
        .slice(start, start + 1000)
        .map(({ id, n, txt }) => `update item set n = ${n}, txt = ${client.escapeLiteral(txt)} where id = ${id};`)
      await client.query(`begin;${statements.join('')}commit`)
    }
    return some.length
  },
  async 'multi-row VALUES'(client, rows) {
    await client.query('begin')
    // A statement has at most 65,535 parameters.
    for (let start = 0; start < rows.length; start += 20_000) {
      const some = rows.slice(start, start + 20_000)
      const list = some.map((_, i) => `($${i * 3 + 1}::int, $${i * 3 + 2}::int, $${i * 3 + 3}::text)`)
      await client.query(
        `update item t set n = s.n, txt = s.txt from (values ${list.join()}) s (id, n, txt) where t.id = s.id`,
        some.flatMap(({ id, n, txt }) => [id, n, txt]),
      )
    }
    await client.query('commit')
    return rows.length
  },
  async unnest(client, rows) {
    await client.query(`update item t set n = s.n, txt = s.txt from ${arrays} where t.id = s.id`, ids(rows))
    return rows.length
  },
  async 'COPY, UPDATE FROM'(client, rows) {
    await client.query('begin; create temp table pushed (id int, n int, txt text) on commit drop')
    await toDb(client).copyIn('pushed', lines(rows))
    await client.query('analyze pushed; update item t set n = s.n, txt = s.txt from pushed s where t.id = s.id; commit')
    return rows.length
  },
  async MERGE(client, rows) {
    await client.query(
      `merge into item t using ${arrays} on t.id = s.id when matched then update set n = s.n, txt = s.txt`,
      ids(rows),
    )
    return rows.length
  },
  async 'ON CONFLICT'(client, rows) {
    await client.query(
      `insert into item (id, n, txt) select s.id, s.n, s.txt from ${arrays} on conflict (id) do update set n = excluded.n, txt = excluded.txt`,
      ids(rows),
    )
    return rows.length
  },
}
/** Written with care by hand, for that size: what ours is compared with. */
const handWritten = ['multi-row VALUES', 'unnest', 'COPY, UPDATE FROM', 'MERGE', 'ON CONFLICT']

function* lines(rows: readonly Item[]): Generator<string> {
  for (let start = 0; start < rows.length; start += 1000)
    yield rows
      .slice(start, start + 1000)
      .map(({ id, n, txt }) => `${id}\t${n}\t${txt}\n`)
      .join('')
}

/** Rows spread over the table, for one of several writers: they do not meet. */
function rowsFor(size: number, writer: number, writers: number, salt: number): Item[] {
  const step = Math.floor(tableRows / size)
  return Array.from({ length: Math.floor(size / writers) }, (_, i) => ({
    id: ((i * writers + writer) * step + (salt % step)) % tableRows,
    n: salt * 7 + i,
    txt: `text ${salt} ${i}`,
  }))
}

async function delayed(server: BenchServer, milliseconds: number) {
  const host = join(server.host, `delay-${milliseconds}`)
  mkdirSync(host)
  const child = fork(fileURLToPath(new URL('./support/delay.ts', import.meta.url)), [
    join(host, `.s.PGSQL.${server.port}`),
    join(server.host, `.s.PGSQL.${server.port}`),
    String(milliseconds),
  ])
  await once(child, 'message')
  return { host, stop: () => child.kill() }
}

/** Many rows changed: rows a second by size, for each way to do it, near and over a network, with one writer and four. */
export async function batch({ rounds, only, without, plotTo }: BenchOptions): Promise<BenchReport> {
  const server = await startBenchServer({ synchronous_commit: 'off', shared_buffers: '1GB' })
  const measurements: Measurement[] = []
  const stops: (() => unknown)[] = []
  try {
    await server.createDatabase('batch', 'ours')
    const admin = await server.connect('batch')
    await admin.query(`create table item (id int primary key, n int, txt text, filler text default repeat('f', 50));
      insert into item (id, n, txt) select g, 0, 'text' from generate_series(0, ${tableRows - 1}) g`)
    let salt = 0
    for (const delay of [0, 1]) {
      const network = delay === 0 ? { host: server.host, stop: () => undefined } : await delayed(server, delay)
      stops.push(network.stop)
      for (const writers of [1, 4]) {
        const clients = Array.from(
          { length: writers },
          () => new pg.Client({ host: network.host, port: server.port, user: 'postgres', database: 'batch' }),
        )
        await Promise.all(clients.map((client) => client.connect()))
        for (const size of [10, 100, 1000, 10_000, 100_000, 1_000_000]) {
          if (size < writers * 10) continue
          const name = `${size.toLocaleString('en')} rows, ${delay} ms, ${writers} writer${writers > 1 ? 's' : ''}`
          if (!name.includes(only)) continue
          // What takes less than a millisecond is measured more often: it varies more.
          const times =
            size < 1000 ? rounds * 20 : size < 10_000 ? rounds * 4 : size === 1_000_000 ? Math.min(rounds, 2) : rounds
          const few = delay === 0 ? 10_000 : 500
          const figures: Record<string, number[]> = {}
          const entries = Object.entries(contenders).filter(
            ([contender]) =>
              !without.includes(contender) && (contender !== 'MERGE' || Number.parseInt(server.version, 10) > 14),
          )
          // The first rounds are not counted: caches fill, statements are written, a prepared one gets its lasting plan after
          // five, and JavaScript is compiled after some dozens.
          const warmUp = size < 1000 && delay === 0 ? 50 : size < 10_000 ? 6 : 1
          for (let round = -warmUp; round < times; round += 1) {
            // Each is first in turn, and none is always behind the same one's garbage.
            const turn = (round + warmUp) % entries.length
            for (const [contender, change] of [...entries.slice(turn), ...entries.slice(0, turn)]) {
              if (size >= 10_000) await admin.query('vacuum item')
              salt += 1
              const rows = clients.map((_, writer) => rowsFor(size, writer, writers, salt))
              const start = performance.now()
              const done = await Promise.all(clients.map((client, writer) => change(client, rows[writer] ?? [], few)))
              const rate = (done.reduce((sum, count) => sum + count, 0) * 1000) / (performance.now() - start)
              if (round >= 0) figures[contender] = [...(figures[contender] ?? []), rate]
            }
          }
          measurements.push({ name, unit: 'rows/s', rounds: figures, note: best(figures) })
        }
        await Promise.all(clients.map((client) => client.end()))
      }
    }
    await admin.end()
  } finally {
    for (const stop of stops) stop()
    await server.stop()
  }
  if (plotTo) writeFileSync(plotTo, chart(measurements))
  return {
    scenario: 'batch',
    server: server.version,
    settings: `a table of ${tableRows.toLocaleString('en')} rows, two columns of each changed; synchronous_commit = off`,
    subject: 'skytools',
    measurements,
  }
}

function best(figures: Record<string, number[]>): string {
  const [name, rate] = handWritten
    .flatMap((name): [string, number][] => (figures[name] ? [[name, median(figures[name])]] : []))
    .sort((a, b) => b[1] - a[1])[0] ?? ['', Number.NaN]
  const ours = median(figures.skytools ?? [Number.NaN])
  return `best by hand: ${name}, ours takes ${(rate / ours).toFixed(2)} of its time`
}

function chart(measurements: readonly Measurement[]): string {
  const lines = [0, 1].flatMap((delay) =>
    ['skytools', 'unnest', 'one UPDATE a row, 1000 a message', 'one UPDATE a row'].map((contender) => ({
      name: `${contender}${delay === 0 ? '' : ', 1 ms'}`,
      points: measurements
        .filter(({ name, rounds }) => name.endsWith(`${delay} ms, 1 writer`) && rounds[contender])
        .map(({ name, rounds }): [number, number] => [
          Number(name.split(' ')[0]?.replaceAll(',', '')),
          median(rounds[contender] ?? []),
        ]),
    })),
  )
  return plot({ title: 'Rows changed a second', x: 'rows in the batch', y: 'rows/s', log: { x: true, y: true }, lines })
}
