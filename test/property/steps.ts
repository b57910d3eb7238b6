import type { Row } from '../../src/db/db.ts'
import type { Effect, Epoch, ModelEvent } from './model.ts'
import { group, type Step, type StepKind } from './schedule.ts'
import type { Isolation, Session, Transaction } from './session.ts'

/** What a step may use: its session, inside a transaction, and the world around. */
export interface StepContext {
  readonly session: Session
  readonly tx: Transaction
  readonly step: Step
  readonly queue: string
  /** The event table that is the parent of the others. */
  readonly parent: string
  readonly consumer: string
  readonly features: Features
  /** The registration that a consumer has, as this transaction sees it; undefined too where the transaction changed it. */
  epochOf(consumer: string): Epoch | undefined
  /** Notes that something happened. */
  count(what: string): void
  /** A text that no other event has. */
  token(): string
  now(): number
  query<R extends Row>(sql: string, params?: readonly unknown[]): Promise<R[]>
}

/** What the pgq at hand promises beyond upstream. */
export interface Features {
  readonly insertMany: boolean
  readonly rotatePositions: boolean
  /** Ticks, rotation and registration within longer transactions and at every isolation level; several at a time. */
  readonly concurrent: boolean
}

export function isolationOf(n: number, { concurrent }: Features): Isolation {
  if (!concurrent) return 'read committed'
  const drawn = ['read committed', 'repeatable read', 'read committed', 'repeatable read'] as const
  return drawn[n % 5] ?? 'serializable'
}

const columns = `ev_id as id, ev_txid as txid, ev_type as type, ev_data as data, ev_extra1 as extra,
  ev_owner as owner, ev_retry as retry`

function record(tx: Transaction, event: Omit<ModelEvent, 'owner' | 'retry'>): void {
  tx.txid = event.txid
  tx.effects.push({ kind: 'event', event: { ...event, owner: null, retry: null } })
}

async function learnTxid({ tx, query }: StepContext): Promise<bigint> {
  if (tx.txid === undefined) {
    const [row] = await query<{ txid: bigint }>('select txid_current() as txid')
    tx.txid = row?.txid
  }
  return tx.txid ?? 0n
}

type Body = (context: StepContext) => Promise<void>

/** The steps that are statements of a transaction; begin, commit and the like are the runner's. */
export const bodies: Partial<Record<StepKind, Body>> = {
  async look({ query }) {
    await query('select count(*) from pgq.queue')
  },

  async insert({ query, queue, tx, step, token }) {
    const data = token()
    const extra = step.n % 2 === 0 ? null : `x${step.n}`
    const sql =
      extra === null
        ? 'select pgq.insert_event($1, $2, $3) as id, txid_current() as txid'
        : 'select pgq.insert_event($1, $2, $3, $4, null, null, null) as id, txid_current() as txid'
    const [row] = await query<{ id: bigint; txid: bigint }>(sql, [queue, 't', data, ...(extra === null ? [] : [extra])])
    if (row) record(tx, { ...row, type: 't', data, extra })
  },

  async insertMany({ query, queue, tx, step, token, features }) {
    const datas = Array.from({ length: 1 + (step.n % 5) }, token)
    const sql = features.insertMany
      ? `select id, txid_current() as txid from pgq.insert_events($1, $2::text[], $3::text[]) id`
      : `select pgq.insert_event($1, t, d) as id, txid_current() as txid from unnest($2::text[], $3::text[]) u(t, d)`
    const rows = await query<{ id: bigint; txid: bigint }>(sql, [queue, datas.map(() => 'm'), datas])
    if (rows.length !== datas.length) throw new Error(`insert_events returned ${rows.length} ids of ${datas.length}`)
    for (const [index, row] of rows.entries()) record(tx, { ...row, type: 'm', data: datas[index] ?? '', extra: null })
  },

  async insertRaw({ query, queue, tx, token }) {
    const data = token()
    const [row] = await query<{ id: bigint; txid: bigint }>(
      `select pgq.insert_event_raw($1, null, now(), null, null, 'raw', $2, null, null, null, null) as id, txid_current() as txid`,
      [queue, data],
    )
    if (row) record(tx, { ...row, type: 'raw', data, extra: null })
  },

  async table({ query, queue, tx }) {
    const [row] = await query<{ name: string }>('select pgq.current_event_table($1) as name', [queue])
    tx.table = row?.name
  },

  async direct(context) {
    const { query, tx, token, features, parent } = context
    if (tx.table === undefined || !features.concurrent) await bodies.table?.(context)
    const data = token()
    const [row] = await query<{ id: bigint; txid: bigint }>(
      `insert into ${tx.table} (ev_time, ev_type, ev_data) values (now(), 'direct', $1) returning ev_id as id, ev_txid as txid`,
      [data],
    )
    // After this very transaction has rotated the queue the event is diverted: INSERT says 0 rows, and it is in the current table.
    const [stored] = row
      ? [row]
      : await query<{ id: bigint; txid: bigint }>(
          `select ev_id as id, ev_txid as txid from ${parent} where ev_data = $1`,
          [data],
        )
    if (!stored) throw new Error(`${data} went into ${tx.table} and is nowhere`)
    record(tx, { ...stored, type: 'direct', data, extra: null })
  },

  async tick(context) {
    const { query, queue, tx, now } = context
    const own = now()
    const [row] = await query<{ id: bigint | null }>('select pgq.ticker($1) as id', [queue])
    const until = now()
    if (row?.id == null) return
    // REPEATABLE READ and SERIALIZABLE tick with the snapshot that they have had all along.
    const stale = tx.isolation !== 'read committed'
    const from = stale ? (tx.snapshot ?? own) : own
    await learnTxid(context)
    tx.effects.push({ kind: 'tick', id: row.id, from, until })
  },

  async tickAll(context) {
    await context.query('select pgq.ticker() as n')
    await learnTxid(context)
  },

  async rotate1({ query, queue, parent, count }) {
    const state = `select queue_cur_table as n, (select count(*)::int from ${parent}) as rows from pgq.queue where queue_name = $1`
    const [before] = await query<{ n: number; rows: number }>(state, [queue])
    await query('select pgq.maint_rotate_tables_step1($1)', [queue])
    const [after] = await query<{ n: number; rows: number }>(state, [queue])
    if (before && after && before.n !== after.n) count(before.rows > after.rows ? 'truncated' : 'rotated')
  },
  async rotate2({ query }) {
    await query('select pgq.maint_rotate_tables_step2()')
  },
  async rotatePositions({ query, features }) {
    if (features.rotatePositions) await query('select pgq.maint_rotate_positions()')
  },

  async next({ query, queue, consumer, session, tx, epochOf }) {
    const [row] = await query<{ batch: bigint | null; current: bigint; previous: bigint }>(
      `select batch_id as batch, cur_tick_id as current, prev_tick_id as previous from pgq.next_batch_info($1, $2)`,
      [queue, consumer],
    )
    if (row?.batch == null) return
    const { batch, current, previous } = row
    tx.effects.push({ kind: 'next', consumer, epoch: epochOf(consumer), batch, current, previous })
    session.batch = { consumer, batch, events: undefined }
  },

  async coopNext({ query, queue, session, step, tx, epochOf, count }) {
    // Two workers from four connections: one is restarted elsewhere, or thought dead while it is not.
    const worker = `w${step.n % 2}`
    const [row] = await query<{ batch: bigint | null }>(`select pgq_coop.next_batch($1, $2, $3, $4) as batch`, [
      queue,
      group,
      worker,
      step.n % 5 === 0 ? '0' : null,
    ])
    if (row?.batch == null) return
    const { batch } = row
    const [info] = await query<{ previous: bigint; current: bigint }>(
      'select prev_tick_id as previous, tick_id as current from pgq.get_batch_info($1)',
      [batch],
    )
    if (!info) throw new Error(`batch ${batch} has no ticks`)
    tx.effects.push({ kind: 'next', consumer: group, epoch: epochOf(group), batch, ...info })
    session.batch = { consumer: group, batch, events: undefined, worker }
    count('cooperative batch')
  },

  async groupNext(context) {
    await bodies.next?.({ ...context, consumer: group })
  },

  async registerGroup(context) {
    await bodies.register?.({ ...context, consumer: group })
  },

  async read({ query, session }) {
    const open = session.batch
    if (!open) return
    const events = await query<Row & ModelEvent>(
      `select ev_id as id, ev_txid as txid, ev_type as type, ev_data as data, ev_extra1 as extra, null::int as owner,
              ev_retry as retry
         from pgq.get_batch_events($1)`,
      [open.batch],
    )
    session.batch = { ...open, events }
  },

  async retry({ query, session, step, tx, epochOf }) {
    const open = session.batch
    const event = open?.events?.[step.n % (open.events.length || 1)]
    if (!open || !event || hasTwins(open.events ?? [])) return
    const [row] = await query<{ n: number }>('select pgq.event_retry($1, $2, 0::int) as n', [open.batch, event.id])
    if (row?.n === 1) tx.effects.push({ kind: 'retry', consumer: open.consumer, epoch: epochOf(open.consumer), event })
  },

  async retryBatch({ query, session, tx, epochOf }) {
    const open = session.batch
    if (!open?.events || hasTwins(open.events)) return
    const known = await query<{ id: bigint }>(
      `select r.ev_id as id from pgq.retry_queue r join pgq.subscription s on s.sub_id = r.ev_owner where s.sub_batch = $1`,
      [open.batch],
    )
    const [row] = await query<{ n: number }>('select pgq.batch_retry($1, 0) as n', [open.batch])
    const fresh = new Map(open.events.map((event) => [event.id, event]))
    for (const { id } of known) fresh.delete(id)
    if (row?.n !== fresh.size) throw new Error(`batch_retry stored ${row?.n} events of ${fresh.size}`)
    for (const event of fresh.values())
      tx.effects.push({ kind: 'retry', consumer: open.consumer, epoch: epochOf(open.consumer), event })
  },

  async putBack(context) {
    const { query, parent, tx } = context
    const seen = `select ${columns} from ${parent} where ev_txid = $1 and ev_owner is not null`
    const known = new Set<string>()
    const txid = await learnTxid(context)
    for (const { id, owner } of await query<Row & ModelEvent>(seen, [txid])) known.add(`${owner}/${id}`)
    const [row] = await query<{ n: number }>('select pgq.maint_retry_events() as n')
    const moved = (await query<Row & ModelEvent>(seen, [txid])).filter(({ id, owner }) => !known.has(`${owner}/${id}`))
    if (row?.n !== moved.length) throw new Error(`maint_retry_events says ${row?.n}, ${moved.length} rows came back`)
    for (const event of moved) tx.effects.push({ kind: 'moved', event })
  },

  async finish({ query, session, tx, epochOf }) {
    const open = session.batch
    if (!open?.events) return
    const [row] =
      open.worker === undefined
        ? await query<{ n: number }>('select pgq.finish_batch($1) as n', [open.batch])
        : await query<{ n: number }>('select pgq_coop.finish_batch($1, $2) as n', [open.batch, open.worker])
    if (row?.n === 1)
      tx.effects.push({
        kind: 'finish',
        consumer: open.consumer,
        epoch: epochOf(open.consumer),
        batch: open.batch,
        events: [...open.events],
      })
    session.batch = undefined
  },

  async register(context) {
    const { query, queue, consumer } = context
    const [row] = await query<{ n: number }>('select pgq.register_consumer($1, $2) as n', [queue, consumer])
    if (row?.n === 1) await learnRegistration(context)
  },

  async registerAt(context) {
    const { query, queue, consumer, step } = context
    const ticks = await query<{ id: bigint }>(
      `select tick_id as id from pgq.tick t join pgq.queue q on q.queue_id = t.tick_queue where q.queue_name = $1 order by 1`,
      [queue],
    )
    const tick = ticks[step.n % (ticks.length || 1)]
    if (!tick) return
    await query('select pgq.register_consumer_at($1, $2, $3)', [queue, consumer, tick.id])
    const start = await learnRegistration(context)
    if (start !== tick.id) throw new Error(`registered at tick ${tick.id}, stands at ${start}`)
  },

  async unregister({ query, queue, consumer, tx }) {
    const [row] = await query<{ n: number }>('select pgq.unregister_consumer($1, $2) as n', [queue, consumer])
    if (row && row.n > 0) tx.effects.push({ kind: 'unregister', consumer })
  },
}

/** After a step back a batch can hold an event and its retried copy: which of them is retried is not said. */
function hasTwins(events: readonly ModelEvent[]): boolean {
  return new Set(events.map(({ id }) => id)).size < events.length
}

async function learnRegistration({ query, queue, consumer, tx }: StepContext): Promise<bigint | undefined> {
  const [row] = await query<{ subId: number; start: bigint }>(
    `select s.sub_id as "subId", s.sub_last_tick as start
       from pgq.subscription s join pgq.queue q on q.queue_id = s.sub_queue join pgq.consumer c on c.co_id = s.sub_consumer
      where q.queue_name = $1 and c.co_name = $2`,
    [queue, consumer],
  )
  if (!row) throw new Error(`${consumer} was registered and is not there`)
  const effect: Effect = { kind: 'register', consumer, ...row }
  tx.effects.push(effect)
  return row.start
}
