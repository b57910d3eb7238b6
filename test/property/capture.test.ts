import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Db } from '../../src/db/db.ts'
import { databases } from '../support/databases.ts'
import { replay } from './capture-replay.ts'
import {
  type Change,
  change,
  create,
  quoted,
  statement,
  type Table,
  table,
  tableName,
  typeSql,
} from './capture-tables.ts'

// SKYTOOLS_SEED=… repeats a run, SKYTOOLS_TABLES=… asks for more tables.
const seed = Number(process.env.SKYTOOLS_SEED ?? Math.floor(Math.random() * 2 ** 31))
const runs = Number(process.env.SKYTOOLS_TABLES ?? 8)
const formats = ['json', 'urlencode', 'sql']
const limits = {
  seed,
  numRuns: runs,
  interruptAfterTimeLimit: 540_000,
  markInterruptAsFailure: false,
  endOnFailure: true,
}

/** What a statement may run into without fault of the capture: a key that is there already, an arbiter that hits twice. */
const expectable = ['23505', '21000', '42P10']

/** Runs the statements; returns how many succeeded. */
async function runAll(db: Db, definition: Table, changes: readonly Change[]): Promise<number> {
  let done = 0
  for (const item of changes) {
    try {
      await db.transaction((tx) => tx.exec(statement(definition, item)))
      done++
    } catch (error) {
      if (!expectable.includes(String((error as { code?: unknown }).code))) throw error
    }
  }
  return done
}

async function contents(db: Db, name: string, { columns }: Table): Promise<string[]> {
  const list = columns.map((column) => `${quoted(column)}::text`).join(', ')
  const rows = await db.query<{ row: string }>(`select row(${list})::text as row from ${name} order by 1`)
  return rows.map(({ row }) => row)
}

class RolledBack extends Error {}

async function inTransaction(db: Db, keep: boolean, work: (tx: Db) => Promise<void>): Promise<void> {
  const body = async (tx: Db) => {
    await work(tx)
    if (!keep) throw new RolledBack()
  }
  await db.transaction(body).catch((error: unknown) => {
    if (!(error instanceof RolledBack)) throw error
  })
}

async function fresh(db: Db, definition: Table): Promise<void> {
  const tables = await db.query<{ name: string }>(
    `select format('%I', tablename) as name from pg_tables where schemaname = 'public'`,
  )
  for (const { name } of tables) await db.exec(`drop table if exists ${name} cascade`)
  await db.exec('select pgq.drop_queue(queue_name, true) from pgq.queue')
  await db.exec(create(definition, false))
  await db.exec(create(definition, true))
}

async function empty(db: Db): Promise<void> {
  const queues = await db.query<{ parent: string }>('select queue_data_pfx as parent from pgq.queue')
  for (const { parent } of queues)
    await db.exec(`truncate ${parent} cascade; truncate ${parent}_0, ${parent}_1, ${parent}_2`)
}

describe.each(databases)('captured tables on $name', ({ open }) => {
  it(`end equal to a copy that got their events, in every format (seed ${seed}, ${runs} tables)`, {
    timeout: 600_000,
  }, async () => {
    await using db = await open()
    await db.exec(typeSql)
    let statements = 0
    let events = 0
    const steps = fc.record({
      before: fc.array(change, { minLength: 8, maxLength: 16 }),
      after: fc.array(change, { minLength: 4, maxLength: 8 }),
    })
    await fc.assert(
      fc.asyncProperty(table, steps, async (definition, { before, after }) => {
        await fresh(db, definition)
        const name = tableName(definition, false)
        for (const format of formats) {
          await db.query('select pgq.create_queue($1)', [format])
          await db.query('select pgq.capture($1::regclass, $2, $3::jsonb)', [name, format, JSON.stringify({ format })])
        }
        // The second time, with a table that is not as it was when the code was generated.
        const added = { ...definition, columns: [...definition.columns, { name: 'added "later"', type: 'numeric' }] }
        for (const [now, changes] of [
          [definition, before],
          [added, after],
        ] as const) {
          if (now === added) {
            for (const copy of [false, true])
              await db.exec(`alter table ${tableName(now, copy)} add "added ""later""" numeric`)
          }
          statements += await runAll(db, now, changes)
          const original = await contents(db, name, now)
          for (const format of formats) {
            // The last format's stays: the second half goes on from there.
            const keep = format === formats.at(-1)
            await inTransaction(db, keep, async (tx) => {
              events += await replay(tx, format, format, now)
              expect(await contents(tx, tableName(now, true), now), `${format} of ${JSON.stringify(now)}`).toEqual(
                original,
              )
            })
          }
          await empty(db)
        }
      }),
      limits,
    )
    // Changes that do nothing prove nothing.
    expect(statements).toBeGreaterThan(runs * 6)
    expect(events).toBeGreaterThan(runs * 20)
  })

  it(`get the events that PgQ's trigger functions make (seed ${seed}, ${runs} tables)`, {
    timeout: 600_000,
  }, async () => {
    await using db = await open()
    await db.exec(typeSql)
    const functions = { json: 'jsontriga', urlencode: 'logutriga', sql: 'sqltriga' }
    let events = 0
    const changes = fc.array(
      change.filter(({ kind }) => kind !== 'key'),
      { minLength: 8, maxLength: 16 },
    )
    const keyed = table
      .filter(({ key, shape }) => key > 0 && shape === 'plain')
      .map((definition) => ({ ...definition, generated: false }))
    await fc.assert(
      fc.asyncProperty(keyed, changes, async (definition, list) => {
        await fresh(db, definition)
        const name = tableName(definition, false)
        for (const [format, trigger] of Object.entries(functions)) {
          for (const queue of [format, trigger]) await db.query('select pgq.create_queue($1)', [queue])
          await db.query('select pgq.capture($1::regclass, $2, $3::jsonb)', [
            name,
            format,
            JSON.stringify({ format, old_row: true }),
          ])
          await db.exec(`create trigger ${trigger} after insert or update or delete on ${name}
              for each row execute function pgq.${trigger}('${trigger}', 'backup');
            create trigger ${trigger}_truncate after truncate on ${name} for each statement execute function pgq.${trigger}('${trigger}')`)
        }
        await runAll(db, definition, list)
        for (const [format, trigger] of Object.entries(functions)) {
          const [captured, logged] = [await logOf(db, format), await logOf(db, trigger)]
          // The old row as sqltriga writes it is urlencoded, as ours is.
          expect(captured, format).toEqual(logged)
          events += captured.length
        }
      }),
      limits,
    )
    expect(events).toBeGreaterThan(runs * 10)
  })
})

/** In each transaction sorted by content: one by row mixes what an upsert inserts and updates, one by statement does not. */
async function logOf(db: Db, queue: string): Promise<string[]> {
  const [found] = await db.query<{ parent: string }>(
    'select queue_data_pfx as parent from pgq.queue where queue_name = $1',
    [queue],
  )
  const rows = await db.query<{ row: string }>(
    `select row(dense_rank() over (order by ev_txid), ev_type, ev_data, ev_extra1, ev_extra2)::text as row
       from ${found?.parent} order by ev_txid, ev_type, ev_data, ev_extra2`,
  )
  return rows.map(({ row }) => row)
}
