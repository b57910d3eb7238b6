import { parseSnapshot, type Snapshot, sees } from './snapshot.ts'

export interface ModelEvent {
  readonly id: bigint
  readonly txid: bigint
  readonly type: string | null
  readonly data: string | null
  readonly extra: string | null
  /** sub_id of the only subscription that gets it: an event that was retried. */
  readonly owner: number | null
  readonly retry: number | null
}

/** What a transaction did, in order: it counts when the transaction commits. */
export type Effect =
  | { kind: 'event'; event: ModelEvent }
  | { kind: 'tick'; id: bigint; from: number; until: number }
  | { kind: 'register'; consumer: string; subId: number; start: bigint }
  | { kind: 'unregister'; consumer: string }
  | { kind: 'next'; consumer: string; epoch: Epoch | undefined; batch: bigint; previous: bigint; current: bigint }
  | { kind: 'finish'; consumer: string; epoch: Epoch | undefined; batch: bigint; events: ModelEvent[] }
  | { kind: 'retry'; consumer: string; epoch: Epoch | undefined; event: ModelEvent }
  | { kind: 'moved'; event: ModelEvent }

interface Delivery {
  readonly batch: bigint
  readonly previous: bigint
  readonly current: bigint
  readonly events: readonly ModelEvent[]
}
/** From a registration, or a new position, to the next one. */
export interface Epoch {
  readonly consumer: string
  readonly subId: number
  readonly start: bigint
  readonly deliveries: Delivery[]
  live: boolean
  unregistered: boolean
}
interface CommittedTransaction {
  readonly txid: bigint | undefined
  readonly from: number
  readonly until: number
}

export interface Model {
  readonly epochs: Epoch[]
  readonly current: Map<string, Epoch>
  readonly events: ModelEvent[]
  readonly ticks: Map<bigint, Snapshot>
  readonly problems: string[]
  /** Retries that wait to be put back, by sub_id and event id. */
  readonly waiting: Map<string, ModelEvent>
  /** Applies the effects of a transaction whose commit began and ended at these moments. */
  commit(effects: readonly Effect[], txid: bigint | undefined, from: number, until: number): void
  learnTick(id: bigint, snapshot: string): void
  /** Everything that can be said at the end, when all is consumed. */
  finish(lastTick: bigint): string[]
}

const describeEvent = ({ id, txid, data, owner, retry }: ModelEvent): string =>
  `${id} ${data} (txid ${txid}${owner === null ? '' : `, owner ${owner}, retry ${retry}`})`
const keyOf = (event: ModelEvent): string =>
  [event.id, event.txid, event.type, event.data, event.extra, event.retry].join('|')

export function createModel(): Model {
  const epochs: Epoch[] = []
  const current = new Map<string, Epoch>()
  const events: ModelEvent[] = []
  const ticks = new Map<bigint, Snapshot>()
  const batches = new Map<bigint, { epoch: Epoch; previous: bigint; current: bigint }>()
  const tickTimes = new Map<bigint, { from: number; until: number; txid: bigint | undefined }>()
  const transactions: CommittedTransaction[] = []
  const waiting = new Map<string, ModelEvent>()
  const problems: string[] = []

  /**
   * Whoever unregisters a consumer does not wait for a transaction that consumes as this consumer: it is as if that one
   * had been first. A new position, on the other hand, must wait for it.
   */
  function epochOf({ consumer, epoch }: { consumer: string; epoch: Epoch | undefined }): Epoch | undefined {
    return epoch?.unregistered ? epoch : current.get(consumer)
  }

  function apply(effect: Effect, txid: bigint | undefined): void {
    switch (effect.kind) {
      case 'event':
        events.push(effect.event)
        return
      case 'tick':
        tickTimes.set(effect.id, { from: effect.from, until: effect.until, txid })
        return
      case 'register':
      case 'unregister': {
        const before = current.get(effect.consumer)
        if (before) before.live = false
        if (before) before.unregistered = effect.kind === 'unregister'
        current.delete(effect.consumer)
        if (effect.kind === 'register') {
          const { consumer, subId, start } = effect
          const epoch: Epoch = { consumer, subId, start, deliveries: [], live: true, unregistered: false }
          epochs.push(epoch)
          current.set(consumer, epoch)
        } else if (before) {
          for (const [key, event] of waiting) if (event.owner === before.subId) waiting.delete(key)
        }
        return
      }
      case 'next': {
        const epoch = epochOf(effect)
        const known = batches.get(effect.batch)
        if (!epoch) problems.push(`${effect.consumer} got batch ${effect.batch} while it was not registered`)
        else if (!known) batches.set(effect.batch, { epoch, previous: effect.previous, current: effect.current })
        else if (known.previous !== effect.previous || known.current !== effect.current)
          problems.push(`batch ${effect.batch} changed while it was open`)
        return
      }
      case 'finish': {
        const batch = batches.get(effect.batch)
        if (!batch || batch.epoch !== epochOf(effect))
          problems.push(`batch ${effect.batch} was finished, but ${effect.consumer} had been moved away from it`)
        else batch.epoch.deliveries.push({ batch: effect.batch, ...batch, events: effect.events })
        return
      }
      case 'retry': {
        const epoch = epochOf(effect)
        const owner = epoch?.subId
        if (epoch === undefined || owner === undefined)
          problems.push(`a retry of ${effect.consumer}, which is not registered`)
        else if (!epoch.unregistered) {
          const event = { ...effect.event, owner, retry: (effect.event.retry ?? 0) + 1 }
          waiting.set(`${owner}/${event.id}`, event)
        }
        return
      }
      case 'moved': {
        const key = `${effect.event.owner}/${effect.event.id}`
        const expected = waiting.get(key)
        waiting.delete(key)
        events.push(effect.event)
        const live = epochs.some(({ subId, live }) => live && subId === effect.event.owner)
        if (!expected && live) problems.push(`${describeEvent(effect.event)} was put back, but nobody asked for it`)
        else if (expected && keyOf({ ...expected, txid: effect.event.txid }) !== keyOf(effect.event))
          problems.push(`${describeEvent(effect.event)} came back changed from ${describeEvent(expected)}`)
      }
    }
  }

  function checkTicks(): void {
    for (const [id, { from, until, txid: own }] of tickTimes) {
      const snapshot = ticks.get(id)
      if (!snapshot) continue
      for (const { txid, from: begun, until: done } of transactions) {
        if (txid === undefined) continue
        if (txid === own) {
          if (sees(snapshot, txid)) problems.push(`tick ${id} sees its own transaction, which could still write events`)
          continue
        }
        if (done < from && !sees(snapshot, txid)) problems.push(`tick ${id} misses txid ${txid}, committed before it`)
        if (begun > until && sees(snapshot, txid)) problems.push(`tick ${id} sees txid ${txid}, committed after it`)
      }
    }
    const ids = [...ticks.keys()].sort((a, b) => Number(a - b))
    for (const [index, id] of ids.entries()) {
      const [before, after] = [ticks.get(ids[index - 1] ?? id), ticks.get(id)]
      for (const { txid } of transactions)
        if (before && after && txid !== undefined && sees(before, txid) && !sees(after, txid))
          problems.push(`tick ${id} no longer sees txid ${txid}, which the tick before it saw`)
    }
  }

  function difference(label: string, expected: readonly ModelEvent[], found: readonly ModelEvent[]): void {
    const left = new Map<string, number>()
    for (const event of expected) left.set(keyOf(event), (left.get(keyOf(event)) ?? 0) + 1)
    const surplus = found.filter((event) => {
      const count = left.get(keyOf(event)) ?? 0
      left.set(keyOf(event), count - 1)
      return count <= 0
    })
    const missing = expected.filter((event) => (left.get(keyOf(event)) ?? 0) > 0)
    for (const event of missing) problems.push(`${label}: lost ${describeEvent(event)}`)
    for (const event of surplus) problems.push(`${label}: should not have ${describeEvent(event)}`)
  }

  function checkEpoch({ consumer, subId, start, deliveries, live }: Epoch, lastTick: bigint): void {
    const chain = [...deliveries].sort((a, b) => Number(a.current - b.current))
    let position = start
    for (const { batch, previous, current: next, events: found } of chain) {
      const label = `${consumer} (sub ${subId}) batch ${batch} (ticks ${previous} to ${next})`
      if (previous !== position)
        problems.push(`${label}: starts at tick ${previous}, but the one before ended at ${position}`)
      position = next
      const [low, high] = [ticks.get(previous), ticks.get(next)]
      if (!low || !high) {
        problems.push(`${label}: unknown tick`)
        continue
      }
      const mine = (event: ModelEvent) => event.owner === null || event.owner === subId
      difference(
        label,
        events.filter((event) => mine(event) && sees(high, event.txid) && !sees(low, event.txid)),
        found,
      )
      for (const [index, event] of found.entries())
        if (index > 0 && event.id < (found[index - 1]?.id ?? event.id)) problems.push(`${label}: not in order of ev_id`)
    }
    if (!live) return
    if (position !== lastTick) problems.push(`${consumer} stands at tick ${position} after everything was consumed`)
    // The same once more without the ticks between: from its start on, each event once.
    const low = ticks.get(start)
    const expected = events.filter(
      (event) => (event.owner === null || event.owner === subId) && !(low && sees(low, event.txid)),
    )
    difference(
      `${consumer} in all`,
      expected,
      deliveries.flatMap((delivery) => delivery.events),
    )
  }

  return {
    epochs,
    current,
    events,
    ticks,
    problems,
    waiting,
    commit(effects, txid, from, until) {
      transactions.push({ txid, from, until })
      for (const effect of effects) apply(effect, txid)
    },
    learnTick(id, snapshot) {
      if (!ticks.has(id)) ticks.set(id, parseSnapshot(snapshot))
    },
    finish(lastTick) {
      checkTicks()
      for (const epoch of epochs) checkEpoch(epoch, lastTick)
      const snapshot = ticks.get(lastTick)
      for (const event of events)
        if (!(snapshot && sees(snapshot, event.txid)))
          problems.push(`the last tick does not see ${describeEvent(event)}`)
      for (const event of waiting.values())
        if (epochs.some(({ live, subId }) => live && subId === event.owner))
          problems.push(`${describeEvent(event)} was retried and never came back`)
      return problems
    },
  }
}
