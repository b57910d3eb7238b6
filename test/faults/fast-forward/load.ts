import { setTimeout as delay } from 'node:timers/promises'
import {
  consumerInfo,
  coopBatchEvents,
  createConsumer,
  type Db,
  finishCoopBatch,
  insertEvent,
  insertEventAt,
  insertEventOnce,
  nextCoopBatch,
  nextPartition,
  purgeDeadLetters,
  type QueueEvent,
  runTicker,
  touchBatch,
} from '../../../src/index.ts'

export const queue = 'day'
export const plain = 'plain'
export const outside = 'outside'
export const group = 'group'
export const keyed = 'keyed'

/** Everything that the runtime does, as fast as it goes, until the signal. */
export async function load(db: Db, signal: AbortSignal, onError: (error: unknown) => void): Promise<void> {
  const again = async (pause: number, work: (n: number) => Promise<unknown>): Promise<void> => {
    for (let n = 0; !signal.aborted; n += 1) {
      try {
        await work(n)
      } catch (error) {
        onError(error)
      }
      await delay(pause)
    }
  }
  const fail = ({ type, retry }: QueueEvent) => {
    if (type === 'poison' || (type === 'flaky' && retry === 0)) throw new Error(`${type} event`)
  }
  // A batch of several ticks: a machine that is busy with something else keeps up.
  const settings = {
    db,
    queue,
    poll: 0.02,
    minCount: 100,
    minInterval: 0.05,
    chunk: 50,
    retry: { base: 0.05, max: 0.1, limit: 3 },
    onError,
  }
  await Promise.all([
    runTicker(db, { signal, period: 0.01, retryPeriod: 0.1, maintenancePeriod: 0.05, onError }),
    // It would be left at a megabyte.
    again(500, () => db.query('select pgq.maint_rotate_positions()')),
    again(20, (n) => produce(db, n, signal)),
    again(1000, () => purgeDeadLetters(db, queue)),
    createConsumer({ ...settings, consumer: plain, handler: fail }).run(signal),
    createConsumer({
      ...{ ...settings, consumer: outside, transactional: false },
      batchHandler: (events) =>
        db.transaction(async (tx) => {
          for (const { id, txid } of events)
            await tx.query(`select pgq_ext.set_event_done('outside', $1, $2)`, [txid, id])
          await tx.query(`select pgq_ext.set_batch_done('outside', $1), pgq_ext.set_last_tick('outside', $1)`, [
            events[0]?.id,
          ])
        }),
    }).run(signal),
    ...['a', 'b'].map((worker) =>
      createConsumer({
        ...{ ...settings, consumer: group, handler: fail },
        coop: { worker, deadInterval: 0.3, heartbeat: 0.05 },
      }).run(signal),
    ),
    // A worker that comes with a new name each time, does something, and goes; every other one dies.
    again(100, (n) => (n % 2 === 0 ? die(db, `worker ${n}`) : visit(db, `worker ${n}`))),
    again(20, (n) => workOnPartition(db, `w${n % 2}`)),
  ])
}

async function produce(db: Db, n: number, signal: AbortSignal): Promise<void> {
  // No more than is consumed: what waits would look like growth.
  if (n % 10 === 0) while (!signal.aborted && (await lag(db)) > 0.5) await delay(50)
  const data = 'x'.repeat(100)
  await insertEvent(db, queue, {
    type: n % 20 === 0 ? 'poison' : n % 5 === 0 ? 'flaky' : 'plain',
    data,
    extra1: `${n % 7}`,
  })
  await insertEventOnce(db, queue, `key ${n}`, '0.5 seconds', { type: 'once', data })
  await insertEventAt(db, queue, new Date(Date.now() + 200), { type: 'delayed', data })
}

/** Seconds by which the slowest consumer lags behind. */
async function lag(db: Db): Promise<number> {
  return Math.max(0, ...(await consumerInfo(db, queue)).map((consumer) => consumer.lag ?? 0))
}

async function die(db: Db, worker: string): Promise<void> {
  const batch = await nextCoopBatch(db, queue, group, worker, { deadInterval: 0.3 })
  if (batch !== undefined) await touchBatch(db, batch, worker)
}

async function visit(db: Db, worker: string): Promise<void> {
  await createConsumer({
    ...{ db, queue, consumer: group, listen: false, coop: { worker, deadInterval: 0.3 } },
    batchHandler: () => undefined,
  }).run(AbortSignal.timeout(20))
}

async function workOnPartition(db: Db, worker: string): Promise<void> {
  const batch = await nextPartition(db, queue, keyed, worker, 0.3)
  if (batch === undefined) return
  await coopBatchEvents(db, batch)
  await finishCoopBatch(db, batch, worker)
}
