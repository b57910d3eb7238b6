import { setTimeout as sleep } from 'node:timers/promises'
import {
  type BatchHandler,
  consumeBatch,
  createQueue,
  type Db,
  dropQueue,
  type QueueEvent,
  queueInfo,
  registerConsumer,
  returnRetries,
  SkytoolsError,
  setQueueConfig,
  tickQueue,
} from '../../src/index.ts'
import type { InputRecord } from '../records.ts'
import type { Scenario } from './scenario.ts'

export const queue = 'skytools-demo'
const counter = 'counter'
const schemaComment = 'skytools demo: npm start drops it and makes it anew'

export interface ConsumerFigures {
  readonly name: string
  batches: number
  /** Events done with: each counts once, when it succeeds. */
  events: number
  retries: number
  /** When the last event of a first delivery was done with, in seconds since the start. */
  seconds: number
}

export interface Figures {
  in: number
  transactions: number
  /** Seconds until the last record was in. */
  seconds: number
  ticks: number
  readonly consumers: readonly [ConsumerFigures, ConsumerFigures]
  /** The event that failed the first time, and when it came back. */
  failed: { readonly id: bigint; readonly data: string | null; readonly at: number; afterSeconds?: number } | undefined
  /** From and to which table the queue rotated. */
  rotated: { readonly from: number; readonly to: number } | undefined
  /** What could not be done, and why. */
  readonly notes: string[]
}

/** Makes the queue, its consumers and the schema of the result anew. What is not the demo's own it refuses to drop. */
export async function prepare(db: Db, scenario: Scenario): Promise<void> {
  const [schema] = await db.query<{ comment: string | null }>(
    `select obj_description(oid, 'pg_namespace') as comment from pg_namespace where nspname = 'skytools_demo'`,
  )
  const [existing] = await queueInfo(db, queue)
  if (schema ? schema.comment !== schemaComment : existing) {
    throw new Error(
      `this database has a ${schema ? 'schema skytools_demo' : `queue ${queue}`} that the demo did not make: it leaves it alone`,
    )
  }
  if (existing) await dropQueue(db, queue, { force: true })
  await db.exec(`drop schema if exists skytools_demo cascade; create schema skytools_demo;
    comment on schema skytools_demo is '${schemaComment}';
    create table ${scenario.table};
    create table skytools_demo.counter (type text primary key, events bigint not null, characters bigint not null)`)
  await createQueue(db, queue)
  // Ticks also when nothing happens: a rotation waits until the consumers stand at one from after the last.
  await setQueueConfig(db, queue, { tickerMaxLag: 0.1, tickerIdlePeriod: 1 })
  await registerConsumer(db, queue, scenario.consumer)
  await registerConsumer(db, queue, counter)
  await scenario.prepare(db, queue)
}

/**
 * Replays the records while a ticker and two consumers run, and comes back when each consumer has had every event, and the
 * queue has rotated or `patience` seconds have passed since.
 */
export async function replay(
  db: Db,
  scenario: Scenario,
  records: AsyncIterable<InputRecord>,
  patience = 5,
): Promise<Figures> {
  const figures: Figures = {
    in: 0,
    transactions: 0,
    seconds: 0,
    ticks: 0,
    consumers: [figuresOf(scenario.consumer), figuresOf(counter)],
    failed: undefined,
    rotated: undefined,
    notes: [],
  }
  const started = performance.now()
  const elapsed = () => (performance.now() - started) / 1000
  const state: State = { db, figures, elapsed, producing: true, ticking: true, stop: new AbortController() }
  const [main, count] = figures.consumers
  try {
    await Promise.all(
      [
        produce(state, scenario, records),
        runTicker(state, patience).finally(() => {
          state.ticking = false
        }),
        consume(state, main, failingOnce(state, scenario)),
        consume(state, count, countEvents),
      ].map((job) => job.catch((error: unknown) => fail(state, error))),
    )
  } finally {
    state.stop.abort()
  }
  return figures
}

interface State {
  readonly db: Db
  readonly figures: Figures
  readonly elapsed: () => number
  producing: boolean
  ticking: boolean
  /** Ends the others when one of them fails. */
  readonly stop: AbortController
}

function figuresOf(name: string): ConsumerFigures {
  return { name, batches: 0, events: 0, retries: 0, seconds: 0 }
}

function fail({ stop }: State, error: unknown): never {
  stop.abort()
  throw error
}

const perTransaction = 250

async function produce(state: State, scenario: Scenario, records: AsyncIterable<InputRecord>): Promise<void> {
  const { db, figures, stop } = state
  let chunk: InputRecord[] = []
  const flush = async () => {
    if (chunk.length === 0) return
    await scenario.load(db, queue, chunk)
    figures.in += chunk.length
    figures.transactions += 1
    figures.seconds = state.elapsed()
    chunk = []
  }
  for await (const record of records) {
    if (stop.signal.aborted) return
    if (chunk.push(record) === perTransaction) await flush()
  }
  await flush()
  state.producing = false
}

/** Long enough without an event for a person to wonder. */
const eventsWithin = 15

async function consume(state: State, figures: ConsumerFigures, handler: BatchHandler): Promise<void> {
  const { db, stop } = state
  let lastWork = state.elapsed()
  while (!stop.signal.aborted) {
    const finished = !state.producing && figures.events === state.figures.in
    if (finished && !state.ticking) return
    const done = await consumeBatch(db, queue, figures.name, handler)
    if (finished && done) continue
    if (!done) {
      if (!state.producing && !finished && state.elapsed() - lastWork > eventsWithin) throw stuck(state, figures)
      await sleep(50)
      continue
    }
    figures.batches += 1
    figures.retries += done.retries
    figures.events += done.events - done.retries
    if (done.events === 0) continue
    lastWork = state.elapsed()
    if (done.events > 1) figures.seconds = lastWork
  }
}

function stuck({ figures: { in: all, notes } }: State, { name, events }: ConsumerFigures): Error {
  const reason = notes.length > 0 ? notes.join('; ') : 'is an old transaction open in this database?'
  return new Error(`consumer ${name} has got ${events} of ${all} events, and none for ${eventsWithin} s: ${reason}`)
}

/** The first event that comes fails, is put off for a second, and succeeds when it comes again. */
function failingOnce(state: State, scenario: Scenario): BatchHandler {
  return async (events, context) => {
    const good: QueueEvent[] = []
    for (const event of events) {
      try {
        succeedOrFail(state, event)
        good.push(event)
      } catch (error) {
        if (!(error instanceof FirstTimeError)) throw error
        await context.retry(event, 1)
      }
    }
    if (good.length > 0) await scenario.store(good, context)
  }
}

class FirstTimeError extends Error {}

function succeedOrFail({ figures, elapsed }: State, event: QueueEvent): void {
  if (event.retry === 0 && (!figures.failed || figures.failed.id === event.id)) {
    figures.failed = { id: event.id, data: event.data, at: elapsed() }
    throw new FirstTimeError('it fails the first time, on purpose')
  }
  if (event.retry > 0 && figures.failed) figures.failed.afterSeconds = elapsed() - figures.failed.at
}

const countEvents: BatchHandler = async (events, { tx }) => {
  await tx.query(
    `insert into skytools_demo.counter as c (type, events, characters)
     select type, count(*), sum(length(data)) from unnest($1::text[], $2::text[]) as e (type, data) group by type
     on conflict (type) do update set events = c.events + excluded.events, characters = c.characters + excluded.characters`,
    [events.map(({ type }) => type ?? ''), events.map(({ data }) => data ?? '')],
  )
}

/** A ticker for the demo's queue alone, faster than `skytools ticker`: a person waits. */
async function runTicker(state: State, patience: number): Promise<void> {
  const { db, figures, stop } = state
  const finished = () => !state.producing && figures.consumers.every(({ events }) => events === figures.in)
  const begun = state.elapsed()
  let rotating = false
  while (!stop.signal.aborted) {
    if ((await tickQueue(db, queue)) !== undefined) figures.ticks += 1
    if (figures.failed && figures.failed.afterSeconds === undefined) await returnOwnRetries(state)
    // After some batches, as a table that a consumer may still need does not rotate away.
    rotating ||= figures.consumers.every(({ batches }) => batches >= 3) || finished()
    if (rotating && !figures.rotated) await rotate(state)
    if (finished()) {
      if (figures.rotated) return
      if (state.elapsed() - Math.max(begun, figures.seconds) > patience) {
        figures.notes.push(
          'the queue did not rotate: an old transaction is open in this cluster, or a table is being read',
        )
        return
      }
    }
    await sleep(50)
  }
}

/** Retries and the second step of a rotation are done for all queues together: other queues' are left to their ticker. */
async function othersAreDue(db: Db, condition: string): Promise<string | undefined> {
  const [other] = await db.query<{ name: string }>(
    `select q.queue_name as name from pgq.queue q where q.queue_name <> $1 and ${condition} order by 1 limit 1`,
    [queue],
  )
  return other?.name
}

function note(state: State, text: string): void {
  if (!state.figures.notes.includes(text)) state.figures.notes.push(text)
}

async function returnOwnRetries(state: State): Promise<void> {
  const due = 'exists (select from pgq.retry_queue r where r.ev_queue = q.queue_id and r.ev_retry_after <= now())'
  const other = await othersAreDue(state.db, due)
  if (other === undefined) await returnRetries(state.db)
  else note(state, `retries wait, as those of queue ${other} are due too and not the demo's to return: run its ticker`)
}

async function rotate(state: State): Promise<void> {
  const { db, figures } = state
  const other = await othersAreDue(db, 'q.queue_switch_step2 is null')
  if (other !== undefined)
    return note(state, `no rotation, as queue ${other} is in the middle of its own: run its ticker`)
  const before = await currentTable(db)
  await setQueueConfig(db, queue, { rotationPeriod: 0 })
  await db.query('select pgq.maint_rotate_tables_step1($1)', [queue])
  await db.query('select pgq.maint_rotate_tables_step2()')
  await setQueueConfig(db, queue, { rotationPeriod: '2 hours' })
  const after = await currentTable(db)
  if (after !== before) figures.rotated = { from: before, to: after }
}

async function currentTable(db: Db): Promise<number> {
  const [info] = await queueInfo(db, queue)
  if (!info) throw new SkytoolsError('PQ001', `No such event queue: ${queue}`)
  return info.currentTable
}
