import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { connectionLost, transient } from '../../../src/db/lost.ts'
import {
  type Batch,
  createConsumer,
  createTicker,
  type Db,
  type EventContext,
  type EventsContext,
  insertEvent,
  insertEventAt,
  insertEventOnce,
  insertEvents,
  type QueueEvent,
} from '../../../src/index.ts'

/** What one process of the chaos test does until it is told to end. */
export type Role =
  | { readonly kind: 'producer'; readonly queues: readonly string[] }
  | { readonly kind: 'ticker' }
  | {
      readonly kind: 'consumer'
      readonly queue: string
      readonly consumer: string
      /** Called for each event, or for many of them. */
      readonly by: 'event' | 'batch'
      readonly transactional: boolean
      readonly worker?: string
    }

/** Events of this type fail at their first delivery, */
const flaky = 'flaky'
/** and of this one each time: they become dead letters. */
export const poison = 'poison'

const backoff = { base: 0.05, factor: 2, max: 0.5 }

export function play(role: Role, url: string, db: Db, signal: AbortSignal): Promise<unknown> {
  switch (role.kind) {
    case 'producer':
      return Promise.all([produce(db, role.queues, signal), produce(db, role.queues, signal)])
    case 'ticker':
      return createTicker({
        databases: [url],
        ...{ period: 0.2, retryPeriod: 0.2, maintenancePeriod: 0.5, checkPeriod: 1, takeover: 1 },
        retry: { min: 0.05, max: 0.5 },
        onError: (error) => complain(error),
      }).run(signal)
    case 'consumer':
      return consume(db, role, signal)
  }
}

const complain = (error: unknown) => process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)

const chance = (share: number) => Math.random() < share
const given = new Error('rolled back on purpose')

/** Transactions of events, each noted in chaos.sent by the same transaction; some are rolled back, some take long. */
async function produce(db: Db, queues: readonly string[], signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await db.transaction(async (tx) => {
        if (chance(0.25)) await tx.exec('set transaction isolation level repeatable read')
        for (const queue of queues) await send(tx, queue)
        if (chance(0.05)) await delay(Math.random() * 500)
        if (chance(0.1)) throw given
      })
    } catch (error) {
      if (error !== given && !connectionLost(error) && !transient(error)) throw error
    }
    await delay(30)
  }
}

async function send(tx: Db, queue: string): Promise<void> {
  const events = Array.from({ length: 1 + Math.floor(Math.random() * 4) }, () => {
    const at = Math.random()
    return { type: at < 0.02 ? poison : at < 0.1 ? flaky : 'plain', data: randomUUID() }
  })
  const ids = events.map(({ data }) => data)
  const types = events.map(({ type }) => type)
  await tx.query('insert into chaos.sent (queue, id, type) select $1, * from unnest($2::text[], $3::text[])', [
    queue,
    ids,
    types,
  ])
  const way = Math.random()
  if (way < 0.4) await insertEvents(tx, queue, events)
  else
    for (const event of events) {
      if (way < 0.8) await insertEvent(tx, queue, event)
      else if (way < 0.9) await insertEventAt(tx, queue, new Date(Date.now() + Math.random() * 1500), event)
      else {
        const ids = [
          await insertEventOnce(tx, queue, event.data, '1 minute', event),
          await insertEventOnce(tx, queue, event.data, '1 minute', event),
        ]
        if (ids[0] === null || ids[1] !== null) throw new Error(`a key was taken, or was taken twice: ${ids}`)
      }
    }
}

type ConsumerRole = Extract<Role, { kind: 'consumer' }>

/** Notes each event in chaos.handled: through the consumer's transaction where it has one. */
function consume(db: Db, role: ConsumerRole, signal: AbortSignal): Promise<void> {
  const { queue, consumer, by, transactional, worker } = role
  const note = (to: Db, batch: Batch, events: readonly QueueEvent[]) =>
    to.query(
      `insert into chaos.handled (queue, consumer, id, how)
       select $1, $2, e.id, format('%s: event %s, retry %s, batch %s, transaction %s', clock_timestamp(), e.event, e.retry, $3::text, txid_current())
         from unnest($4::text[], $5::text[], $6::text[]) e (id, event, retry)`,
      [
        ...[queue, consumer, `${batch.id} (${batch.previousTick}, ${batch.tick}] of ${worker} ${process.pid}`],
        ...[events.map(({ data }) => data), events.map(({ id }) => `${id}`), events.map(({ retry }) => `${retry}`)],
      ],
    )
  const fails = ({ type, retry }: QueueEvent) => type === poison || (type === flaky && retry === 0)
  const handling =
    by === 'event'
      ? {
          // What it writes before it fails must be undone.
          handler: async (event: QueueEvent, { tx, batch, bury, attempt }: EventContext) => {
            await note(tx, batch, [event])
            if (event.type === poison && !transactional && attempt > 2) bury('poison')
            else if (fails(event)) throw new Error(`${event.type} event`)
          },
        }
      : {
          batchHandler: async (events: readonly QueueEvent[], context: EventsContext) => {
            for (const event of events.filter(fails)) {
              if (event.type === poison) context.bury(event, 'poison')
              else context.retry(event, 0.1)
            }
            await note(
              context.tx,
              context.batch,
              events.filter((event) => !fails(event)),
            )
          },
        }
  return createConsumer({
    ...{ db, queue, consumer, transactional, ...handling },
    ...{ chunk: 20, poll: 0.1, drain: 5, backoff, ...(by === 'event' && !transactional && { concurrency: 4 }) },
    // A handler outside of the consumer's transaction fails with its own connection too, and is to be given a chance.
    retry: { base: 0.1, max: 0.5, limit: transactional ? 3 : 10 },
    ...(worker !== undefined && { coop: { worker, deadInterval: 1.5, heartbeat: 0.3 } }),
    onError: complain,
  }).run(signal)
}
