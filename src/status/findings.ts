import type { ConsumerInfo } from '../consumer/consumer.ts'
import type { QueueInfo } from '../queue/queue.ts'
import type { QueueActivity } from './activity.ts'
import { ago } from './ago.ts'
import { size } from './bytes.ts'
import type { LongTransaction } from './transactions.ts'
import type { Trouble } from './troubles.ts'

export interface Finding {
  /** What it is about, such as `queue orders`. */
  readonly subject: string
  readonly problem: string
  /** The command to type, or what to look at. */
  readonly remedy: string
}

export interface RetryState {
  readonly queue: string
  readonly waiting: bigint
  /** Seconds since the first of them could have come back; 0: none could yet. */
  readonly overdue: number
}

interface State {
  readonly queues: readonly QueueInfo[]
  readonly consumers: readonly ConsumerInfo[]
  readonly retries: readonly RetryState[]
  readonly sizes: readonly QueueActivity[]
  readonly transactions: readonly LongTransaction[]
  readonly troubles: readonly Trouble[]
}

/** Seconds that a ticker may be late, beyond what a queue's settings ask of it, before we say so. */
const tickerGrace = 30
/** Seconds for which a consumer may be behind, or silent with an open batch. */
const consumerGrace = 300
/** Seconds that maintenance may be late: it comes every two minutes, retries every half. */
const maintenanceGrace = 600
/** Events that may wait for a retry in one queue. */
const retryGrace = 10_000
/** Seconds for which a new dead letter is news. */
const recentDead = 86_400
/** Seconds for which a transaction may stay open. */
export const transactionGrace = 300

/** What is wrong, or may be, in the order in which one would look into it. */
export function findings(state: State): Finding[] {
  return [
    ...state.queues.flatMap((queue) => ofQueue(queue, state)),
    ...state.troubles.flatMap(ofTrouble),
    ...state.consumers.filter((consumer) => !explained(consumer, state.troubles)).flatMap(ofConsumer),
    ...state.retries.flatMap(ofRetries),
    ...state.transactions.map(ofTransaction),
  ]
}

function ofQueue(info: QueueInfo, { consumers, sizes, transactions }: State): Finding[] {
  const { queue, config, tickerLag } = info
  const found: Finding[] = []
  const say = (problem: string, remedy: string) => found.push({ subject: `queue ${queue}`, problem, remedy })
  const name = shellQuote(queue)
  if (config.tickerPaused) {
    say('its ticker is paused: consumers get nothing', `skytools queue resume ${name}`)
  } else if (!config.externalTicker && tickerLag !== null && tickerLag > config.tickerIdlePeriod + tickerGrace) {
    say(`no tick for ${ago(tickerLag)}: consumers get nothing`, 'run a ticker: skytools ticker')
  }
  if (config.disableInsert) say('it takes no events', `skytools queue config ${name} disable_insert=false`)
  const own = consumers.filter((consumer) => consumer.queue === queue)
  if (own.length === 0) {
    say('it has no consumer: its events are for nobody', `skytools consumer register ${name} <consumer>`)
  }
  const overdue = info.rotationAge - config.rotationPeriod
  if (overdue > Math.max(config.rotationPeriod, maintenanceGrace)) {
    const slowest = own.filter(({ lag }) => lag !== null).sort((a, b) => (b.lag ?? 0) - (a.lag ?? 0))[0]
    // Where nothing ticks, all consumers lag, and it is not their doing.
    const behind = slowest && (slowest.lag ?? 0) - (tickerLag ?? 0) > config.rotationPeriod
    const bytes = sizes.find((entry) => entry.queue === queue)?.bytes
    const writer = transactions.find(({ writes, age }) => writes && age > info.config.rotationPeriod)
    say(
      `its tables should have rotated ${ago(overdue)} ago, and grow${bytes === undefined ? '' : `: ${size(bytes)}`}`,
      behind
        ? `consumer ${slowest.consumer} is ${ago(slowest.lag ?? 0)} behind and holds the events: start it, or skytools consumer unregister ${name} ${shellQuote(slowest.consumer)}`
        : writer
          ? `${who(writer)} holds it up: see below`
          : 'run a ticker: skytools ticker',
    )
  }
  return found
}

function ofConsumer({ queue, consumer, lag, lastSeen, batch, pendingEvents }: ConsumerInfo): Finding[] {
  const subject = `consumer ${consumer} of ${queue}`
  const names = `${shellQuote(queue)} ${shellQuote(consumer)}`
  if (batch !== null && lastSeen > consumerGrace) {
    return [
      {
        subject,
        problem: `batch ${batch} is open since ${ago(lastSeen)}`,
        remedy: 'if its worker has died, start it again: it gets the same batch',
      },
    ]
  }
  if (lag !== null && lag > consumerGrace && lastSeen > consumerGrace && (pendingEvents ?? 0n) > 0n) {
    return [
      {
        subject,
        problem: `about ${pendingEvents} events wait, it was last seen ${ago(lastSeen)} ago`,
        remedy: `start it; if it is not wanted any more: skytools consumer unregister ${names}`,
      },
    ]
  }
  return []
}

function ofTrouble(trouble: Trouble): Finding[] {
  const { queue, consumer, paused, failures, error, failing, deadLetters, lastDead } = trouble
  const subject = `consumer ${consumer} of ${queue}`
  const names = `${shellQuote(queue)} ${shellQuote(consumer)}`
  const found: Finding[] = []
  if (paused !== null) {
    const problem = `it is paused since ${ago(paused)}: it gets nothing, and holds the events of the queue`
    found.push({ subject, problem, remedy: `skytools consumer resume ${names}` })
  }
  if (failures > 0) {
    const problem = `its batch has failed ${failures} times since ${ago(failing ?? 0)}: ${oneLine(error ?? 'no reason given')}`
    found.push({ subject, problem, remedy: 'mend what its handler fails at: it tries again by itself' })
  }
  // Old ones are known: whoever keeps them is not told again each day.
  if (lastDead !== null && lastDead < recentDead) {
    const problem = `${deadLetters} dead letters, the last ${ago(lastDead)} ago`
    const list = `skytools dlq list ${shellQuote(queue)} --consumer ${shellQuote(consumer)}`
    found.push({ subject, problem, remedy: `${list}; then skytools dlq replay ${names}, or purge` })
  }
  return found
}

/** Why it lags is said already. */
function explained({ queue, consumer }: ConsumerInfo, troubles: readonly Trouble[]): boolean {
  return troubles.some(
    (trouble) =>
      trouble.queue === queue && trouble.consumer === consumer && (trouble.paused !== null || trouble.failures > 0),
  )
}

const oneLine = (text: string) => (text.length > 200 ? `${text.slice(0, 200)}…` : text).replace(/\s+/g, ' ')

function ofTransaction(transaction: LongTransaction): Finding {
  const { pid, gid, user, database, application, state, age, writes } = transaction
  const by = [user, application && `application ${application}`, database && `database ${database}`, state]
  return {
    subject: who(transaction),
    problem: `its transaction is open since ${ago(age)} (${by.filter(Boolean).join(', ')}): ${
      writes ? 'queues do not rotate past it' : 'dead rows of all tables stay'
    }`,
    remedy:
      pid === null
        ? `in that database: rollback prepared '${gid?.replaceAll("'", "''")}'`
        : `end it: select pg_terminate_backend(${pid})`,
  }
}

const who = ({ pid, gid }: LongTransaction) => (pid === null ? `prepared transaction ${gid}` : `session ${pid}`)

function ofRetries({ queue, waiting, overdue }: RetryState): Finding[] {
  if (overdue <= maintenanceGrace && waiting > retryGrace) {
    return [
      {
        subject: `queue ${queue}`,
        problem: `${waiting} events wait for a retry`,
        remedy: 'see what fails: skytools consumer list, and the logs of its consumers',
      },
    ]
  }
  if (overdue <= maintenanceGrace) return []
  return [
    {
      subject: `queue ${queue}`,
      problem: `${waiting} events wait for a retry, the first could have come back ${ago(overdue)} ago`,
      remedy: 'run a ticker: skytools ticker',
    },
  ]
}

/** As one would type it. */
function shellQuote(name: string): string {
  return /^[\w.-]+$/.test(name) ? name : `'${name.replaceAll("'", `'\\''`)}'`
}
