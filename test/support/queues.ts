import { setTimeout as delay } from 'node:timers/promises'
import type { Db, Row } from '../../src/db/db.ts'

/** A queue that ticks whenever it is asked to and rotates whenever nothing is in the way, with these consumers. */
export async function busyQueue(db: Db, queue: string, consumers: readonly string[] = []): Promise<void> {
  await db.query('select pgq.create_queue($1)', [queue])
  const settings = { ticker_max_count: '1', ticker_max_lag: '0', ticker_idle_period: '0', rotation_period: '0' }
  for (const [name, value] of Object.entries(settings))
    await db.query('select pgq.set_queue_config($1, $2, $3)', [queue, name, value])
  for (const consumer of consumers) await db.query('select pgq.register_consumer($1, $2)', [queue, consumer])
}

export async function tick(db: Db, queue: string): Promise<bigint | null> {
  const [row] = await db.query<{ id: bigint | null }>('select pgq.ticker($1) as id', [queue])
  return row?.id ?? null
}

export async function insert(db: Db, queue: string, data: string): Promise<bigint> {
  const [row] = await db.query<{ id: bigint }>(`select pgq.insert_event($1, 'test', $2) as id`, [queue, data])
  return row?.id ?? 0n
}

/** Both steps of a rotation. Returns whether the queue writes to another table now. */
export async function rotate(db: Db, queue: string): Promise<boolean> {
  const before = await one<{ n: number }>(db, 'select queue_cur_table as n from pgq.queue where queue_name = $1', [
    queue,
  ])
  await db.query('select pgq.maint_rotate_tables_step1($1)', [queue])
  await db.query('select pgq.maint_rotate_tables_step2()')
  const after = await one<{ n: number }>(db, 'select queue_cur_table as n from pgq.queue where queue_name = $1', [
    queue,
  ])
  return before.n !== after.n
}

/** Rotates as soon as nothing is in the way: a transaction in another database of the server, too, can be. */
export async function rotateSoon(db: Db, queue: string, consumers: readonly string[]): Promise<string[]> {
  const found: string[] = []
  for (;;) {
    await tick(db, queue)
    for (const consumer of consumers) found.push(...(await consume(db, queue, consumer)))
    if (await rotate(db, queue)) return found
    await delay(20)
  }
}

/** Every event of every batch there is, each batch finished, in the order of delivery. */
export async function consume(db: Db, queue: string, consumer: string): Promise<string[]> {
  const found: string[] = []
  for (;;) {
    const { batch } = await one<{ batch: bigint | null }>(db, 'select pgq.next_batch($1, $2) as batch', [
      queue,
      consumer,
    ])
    if (batch === null) return found
    const events = await db.query<{ data: string }>('select ev_data as data from pgq.get_batch_events($1)', [batch])
    found.push(...events.map(({ data }) => data))
    await db.query('select pgq.finish_batch($1)', [batch])
  }
}

export async function one<R extends Row>(db: Db, sql: string, params: readonly unknown[] = []): Promise<R> {
  const rows = await db.query<R>(sql, params)
  const [row] = rows
  if (!row || rows.length > 1) throw new Error(`${rows.length} rows, not one: ${sql}`)
  return row
}

/** The statement of `work` waits for a lock; returns it, still waiting. Throws what `work` throws before that. */
export async function waiting<T>(observer: Db, pid: number, work: Promise<T>): Promise<{ result: Promise<T> }> {
  let ended = false
  const note = () => {
    ended = true
  }
  work.then(note, note)
  while (!ended) {
    const { waits } = await one<{ waits: boolean }>(observer, `select pg_blocking_pids($1) <> '{}' as waits`, [pid])
    if (waits) return { result: work }
  }
  await work
  throw new Error('the statement ended without waiting')
}

export async function backend(db: Db): Promise<number> {
  return (await one<{ pid: number }>(db, 'select pg_backend_pid() as pid')).pid
}
