import { type BatchContext, batchUpsert, capture, type Db, insertEvents, type QueueEvent } from '../../src/index.ts'
import { table } from '../connection.ts'
import type { InputRecord, Source } from '../records.ts'

/** What the demo does with the records: how they become events, and what its first consumer makes of them. */
export interface Scenario {
  /** What one record is called, and many. */
  readonly nouns: readonly [string, string]
  readonly consumer: string
  /** The result's table, in the demo's own schema. */
  readonly table: string
  /** The table that the records go into, if its changes are the events. */
  readonly captured?: string
  /** What the records go into, once the queue is there. */
  prepare(db: Db, queue: string): Promise<void>
  /** Takes records in, in one transaction; each is an event then. */
  load(db: Db, queue: string, records: readonly InputRecord[]): Promise<void>
  /** Takes in events; throws what is wrong with one of them in `check`. */
  store(events: readonly QueueEvent[], context: BatchContext): Promise<void>
  /** The result, drawn. */
  result(db: Db): Promise<{ readonly title: string; readonly drawn: string }>
}

/** The sample flights get a table of delays by airport; anything else is counted by a column of its own. */
export function scenarioFor(first: InputRecord, { format }: Source): Scenario {
  const columns = Object.keys(first)
  const flights = ['time', 'delay', 'distance', 'origin', 'destination']
  if (format === 'CSV' && flights.join() === columns.join()) return flightScenario
  return countScenario(format === 'CSV' ? (columns[0] ?? '') : keyOf(first), format === 'CSV' ? 'row' : 'record')
}

interface Flight {
  readonly time: string
  readonly delay: number
  readonly origin: string
}

const flightScenario: Scenario = {
  nouns: ['flight', 'flights'],
  consumer: 'delays',
  captured: 'skytools_demo.flights',
  table: `skytools_demo.delays (
    airport text primary key, flights bigint not null, late bigint not null, minutes bigint not null)`,
  async prepare(db, queue) {
    await db.exec(`create table skytools_demo.flights (
      id integer generated always as identity primary key,
      time text not null, delay integer not null, distance integer not null, origin text not null, destination text not null)`)
    await capture(db, 'skytools_demo.flights', queue, { operations: ['insert'], eventType: 'flight' })
  },
  async load(db, _queue, records) {
    const column = (name: string) => records.map((record) => record[name])
    await db.query(
      `insert into skytools_demo.flights (time, delay, distance, origin, destination)
       select * from unnest($1::text[], $2::integer[], $3::integer[], $4::text[], $5::text[])`,
      ['time', 'delay', 'distance', 'origin', 'destination'].map(column),
    )
  },
  async store(events, { tx }) {
    const airports = new Map<string, { flights: number; late: number; minutes: number }>()
    for (const { data } of events) {
      const { origin, delay } = JSON.parse(data ?? '') as Flight
      const sum = airports.get(origin) ?? { flights: 0, late: 0, minutes: 0 }
      airports.set(origin, {
        flights: sum.flights + 1,
        late: sum.late + (delay > 15 ? 1 : 0),
        minutes: sum.minutes + delay,
      })
    }
    await batchUpsert(tx, {
      table: 'skytools_demo.delays',
      rows: [...airports].map(([airport, sums]) => ({ airport, ...sums })),
      set: { flights: 't.flights + s.flights', late: 't.late + s.late', minutes: 't.minutes + s.minutes' },
    })
  },
  async result(db) {
    const found = await db.query<{ airport: string; flights: bigint; late: number; average: number; airports: bigint }>(
      `select airport, flights, 100.0 * late::float8 / flights as late, minutes::float8 / flights as average,
              count(*) over () as airports
         from skytools_demo.delays order by flights desc, airport limit 8`,
    )
    const rows = found.map(({ airport, flights, late, average }) => [
      airport,
      flights.toLocaleString('en'),
      `${late.toFixed(1)} %`,
      `${average.toFixed(1)} min`,
    ])
    return {
      title: `Delays by airport: the busiest of ${found[0]?.airports ?? 0}, from skytools_demo.delays`,
      drawn: table(['airport', 'flights', 'more than 15 min late', 'average delay'], rows),
    }
  },
}

/** `type` where records have one, else the first key with a simple value. */
function keyOf(record: InputRecord): string {
  if ('type' in record) return 'type'
  return Object.entries(record).find(([, value]) => typeof value !== 'object')?.[0] ?? Object.keys(record)[0] ?? 'type'
}

/** JSON may hold zero characters, a text of Postgres may not. */
function storable(text: string): string {
  return text.replaceAll('\0', '\uFFFD')
}

function countScenario(key: string, noun: string): Scenario {
  return {
    nouns: [noun, `${noun}s`],
    consumer: 'groups',
    table: 'skytools_demo.groups (name text primary key, events bigint not null)',
    prepare: async () => undefined,
    async load(db, queue, records) {
      const type = (record: InputRecord) => (typeof record.type === 'string' ? storable(record.type) : noun)
      await insertEvents(
        db,
        queue,
        records.map((record) => ({ type: type(record), data: record })),
      )
    },
    async store(events, { tx }) {
      const groups = new Map<string, number>()
      for (const { data } of events) {
        const value = (JSON.parse(data ?? '') as InputRecord)[key]
        const name = value === undefined ? '(none)' : typeof value === 'string' ? value : JSON.stringify(value)
        groups.set(storable(name), (groups.get(storable(name)) ?? 0) + 1)
      }
      await batchUpsert(tx, {
        table: 'skytools_demo.groups',
        rows: [...groups].map(([name, events]) => ({ name, events })),
        set: { events: 't.events + s.events' },
      })
    },
    async result(db) {
      const found = await db.query<{ name: string; events: bigint; groups: bigint }>(
        `select name, events, count(*) over () as groups from skytools_demo.groups order by events desc, name limit 8`,
      )
      const total = found[0]?.groups ?? 0n
      return {
        title: `Counts by ${key}: ${total > 8n ? `the first of ${total}` : `${total} in all`}, from skytools_demo.groups`,
        drawn: table(
          [key, 'events'],
          found.map(({ name, events }) => [name.slice(0, 60), events.toLocaleString('en')]),
        ),
      }
    },
  }
}
