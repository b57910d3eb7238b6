import { rows, value } from '../db/call.ts'
import { type Connectable, toDb } from '../db/open.ts'
import { mapErrors } from '../errors.ts'
import { duration, type Interval, seconds } from './interval.ts'

/** Creates a queue with its tables and its first tick. Any text is a good name.
 *
 * @returns true when it was created, false when there was one of that name
 * @throws InvalidArgumentError (PQ008) the name is null
 * @remarks Locks the set of queues until the transaction ends. Needs pgq_admin. */
export async function createQueue(db: Connectable, queue: string): Promise<boolean> {
  return (await value<number>(db, 'select pgq.create_queue($1) as value', [queue])) === 1
}

export interface DropQueueOptions {
  /** End the queue's subscriptions too. */
  readonly force?: boolean | undefined
}

/** Drops a queue with all its events.
 *
 * @throws QueueNotFoundError (PQ001)
 * @throws ConsumersAttachedError (PQ009) it has consumers, and `force` is not set
 * @remarks Locks the queue's tables ACCESS EXCLUSIVE: waits for transactions that use them. Needs pgq_admin. */
export async function dropQueue(db: Connectable, queue: string, options: DropQueueOptions = {}): Promise<void> {
  await value<number>(db, 'select pgq.drop_queue($1, $2) as value', [queue, options.force ?? false])
}

export interface QueueConfig {
  /** Tick when so many events are new. It triggers a batch, it does not cap one. */
  readonly tickerMaxCount?: number
  /** Tick when there are new events and the last tick is this old. */
  readonly tickerMaxLag?: Interval
  /** Without new events tick at least this often. */
  readonly tickerIdlePeriod?: Interval
  /** No ticks, so no batches; events go on coming in. */
  readonly tickerPaused?: boolean
  /** Ticks come from elsewhere, such as another database's copy of the queue. */
  readonly externalTicker?: boolean
  /** Rotate the event tables this often; events are kept for two to three times as long. */
  readonly rotationPeriod?: Interval
  /** Refuse new events. */
  readonly disableInsert?: boolean
  /** At most so many events in one transaction; null: any number. */
  readonly perTransactionLimit?: number | null
  /** Producers wake the ticker, and ticks the consumers: milliseconds instead of a polling period. Costs a NOTIFY for each
   * transaction that inserts; not for queues that are written to by PREPARE TRANSACTION. */
  readonly wakeup?: boolean
}

const functionSettings = {
  tickerMaxCount: 'ticker_max_count',
  tickerMaxLag: 'ticker_max_lag',
  tickerIdlePeriod: 'ticker_idle_period',
  tickerPaused: 'ticker_paused',
  externalTicker: 'external_ticker',
  rotationPeriod: 'rotation_period',
} as const satisfies Partial<Record<keyof QueueConfig, string>>

/** Changes settings of a queue, all of those given or none. Durations are seconds, or an interval as Postgres writes it.
 *
 * @throws QueueNotFoundError (PQ001)
 * @throws a database error of class 22 when a value does not fit its setting
 * @remarks Locks the queue's row until the transaction ends. Needs pgq_admin. */
export function setQueueConfig(db: Connectable, queue: string, config: QueueConfig): Promise<void> {
  return mapErrors(() =>
    toDb(db).transaction(async (tx) => {
      for (const [key, parameter] of Object.entries(functionSettings)) {
        const setting = config[key as keyof typeof functionSettings]
        if (setting === undefined) continue
        const text = key.endsWith('Lag') || key.endsWith('Period') ? duration(setting as Interval) : String(setting)
        await tx.query('select pgq.set_queue_config($1, $2, $3)', [queue, parameter, text])
      }
      const { disableInsert, perTransactionLimit, wakeup } = config
      if (wakeup !== undefined) await tx.query('select pgq.set_wakeup($1, $2)', [queue, wakeup])
      if (disableInsert === undefined && perTransactionLimit === undefined) return
      // No function sets these two: pgq_admin updates the table.
      const [queueFound] = await tx.query(
        `update pgq.queue
            set queue_disable_insert = coalesce($2, queue_disable_insert),
                queue_per_tx_limit = case when $3 then $4::integer else queue_per_tx_limit end
          where queue_name = $1 returning queue_id`,
        [queue, disableInsert ?? null, perTransactionLimit !== undefined, perTransactionLimit ?? null],
      )
      // The same error as from the settings above.
      if (!queueFound) await tx.query(`select pgq.set_queue_config($1, 'ticker_paused', 'false')`, [queue])
    }),
  )
}

export interface QueueInfo {
  readonly queue: string
  /** How many event tables, and which of them takes events now. */
  readonly tables: number
  readonly currentTable: number
  readonly rotatedAt: Date
  /** Seconds since then. */
  readonly rotationAge: number
  /** Both steps of the last rotation are done. */
  readonly rotationComplete: boolean
  /** The settings; durations in seconds. */
  readonly config: {
    readonly tickerMaxCount: number
    readonly tickerMaxLag: number
    readonly tickerIdlePeriod: number
    readonly tickerPaused: boolean
    readonly externalTicker: boolean
    readonly rotationPeriod: number
    readonly disableInsert: boolean
    readonly perTransactionLimit: number | null
    readonly wakeup: boolean
  }
  /** Seconds since the newest tick. */
  readonly tickerLag: number | null
  /** Over the last 20 ticks; null while unknown. */
  readonly eventsPerSecond: number | null
  /** Since the newest tick. Rolled back events count too. */
  readonly newEvents: bigint
  readonly lastTick: bigint | null
}

type InfoRow = Omit<QueueInfo, 'config'> & QueueInfo['config']

/** Settings and state of the queues, by name.
 *
 * @param queue that queue alone; no rows when there is none of that name
 * @remarks Takes no locks. Everybody may call it. */
export async function queueInfo(db: Connectable, queue?: string): Promise<QueueInfo[]> {
  const found = await rows<InfoRow>(
    db,
    `select i.queue_name as queue, i.queue_ntables as tables, i.queue_cur_table as "currentTable",
            i.queue_switch_time as "rotatedAt", ${seconds('now() - i.queue_switch_time')} as "rotationAge", q.queue_switch_step2 is not null as "rotationComplete",
            i.queue_ticker_max_count as "tickerMaxCount", ${seconds('i.queue_ticker_max_lag')} as "tickerMaxLag",
            ${seconds('i.queue_ticker_idle_period')} as "tickerIdlePeriod", i.queue_ticker_paused as "tickerPaused",
            i.queue_external_ticker as "externalTicker", ${seconds('i.queue_rotation_period')} as "rotationPeriod",
            q.queue_disable_insert as "disableInsert", q.queue_per_tx_limit as "perTransactionLimit",
            coalesce(o.wakeup, false) as wakeup,
            ${seconds('i.ticker_lag')} as "tickerLag", i.ev_per_sec as "eventsPerSecond", i.ev_new as "newEvents",
            i.last_tick_id as "lastTick"
       from pgq.get_queue_info($1) i join pgq.queue q using (queue_name)
       left join pgq.queue_option o using (queue_id) order by i.queue_name`,
    [queue ?? null],
  )
  return found.map(
    ({
      tickerMaxCount,
      tickerMaxLag,
      tickerIdlePeriod,
      tickerPaused,
      externalTicker,
      rotationPeriod,
      disableInsert,
      perTransactionLimit,
      wakeup,
      ...state
    }) => ({
      ...state,
      config: {
        tickerMaxCount,
        tickerMaxLag,
        tickerIdlePeriod,
        tickerPaused,
        externalTicker,
        rotationPeriod,
        disableInsert,
        perTransactionLimit,
        wakeup,
      },
    }),
  )
}
