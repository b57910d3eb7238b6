import { type ConsumerInfo, consumerInfo } from '../consumer/consumer.ts'
import { rows } from '../db/call.ts'
import type { Db } from '../db/db.ts'
import { type Connectable, toDb } from '../db/open.ts'
import { SkytoolsError } from '../errors.ts'
import { type QueueInfo, queueInfo } from '../queue/queue.ts'
import { schemaStatus } from '../schema/install.ts'
import { type Activity, activity } from './activity.ts'
import { type Finding, findings, type RetryState, transactionGrace } from './findings.ts'
import { type LongTransaction, longTransactions } from './transactions.ts'
import { type Trouble, troubles } from './troubles.ts'

export interface Status {
  readonly version: string | undefined
  readonly queues: readonly QueueInfo[]
  readonly consumers: readonly ConsumerInfo[]
  /** Events that wait for a retry, by queue; undefined where the role may not read them (pgq_admin may). */
  readonly retries: readonly RetryState[] | undefined
  /** What queues and consumers have done so far, and the size of the event tables. */
  readonly activity: Activity
  /** Transactions that are open for long, in any database of the cluster: they hold up rotation, or VACUUM. */
  readonly transactions: readonly LongTransaction[]
  /** Consumers that are paused, fail, or have dead letters. */
  readonly troubles: readonly Trouble[]
  /** What is wrong, or may be, and what to do; empty when all is well. */
  readonly findings: readonly Finding[]
}

/** Queues, consumers, and what is wrong with them.
 *
 * @returns all durations in seconds
 * @throws NotInstalledError (PQ035)
 * @remarks Takes no locks and changes nothing. Everybody may call it. */
export async function status(connection: Connectable): Promise<Status> {
  const db = toDb(connection)
  const { installed, version, newest, pending } = await schemaStatus(db)
  if (!installed) throw new SkytoolsError('PQ035', 'skytools is not installed in this database', 'skytools install')
  const queues = await queueInfo(db)
  const consumers = await consumerInfo(db)
  const retries = await retryStates(db)
  const stopped = await troubles(db)
  const done = await activity(db)
  const transactions = await longTransactions(db, transactionGrace)
  return {
    version,
    queues,
    consumers,
    retries,
    activity: done,
    transactions,
    troubles: stopped,
    findings: [
      ...(pending.length > 0
        ? [{ subject: 'bundle', problem: `version ${version}; this is ${newest}`, remedy: 'skytools upgrade' }]
        : []),
      ...findings({ queues, consumers, retries: retries ?? [], sizes: done.queues, transactions, troubles: stopped }),
    ],
  }
}

async function retryStates(db: Db): Promise<RetryState[] | undefined> {
  const [right] = await rows<{ readable: boolean }>(
    db,
    `select has_table_privilege('pgq.retry_queue', 'select') as readable`,
  )
  if (!right?.readable) return undefined
  return rows<RetryState & Record<string, unknown>>(
    db,
    `select q.queue_name as queue, count(*) as waiting,
            greatest(extract(epoch from now() - min(r.ev_retry_after)), 0)::float8 as overdue
       from pgq.retry_queue r join pgq.queue q on q.queue_id = r.ev_queue
      group by q.queue_name order by q.queue_name`,
  )
}
