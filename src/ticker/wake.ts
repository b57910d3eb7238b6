import { bell } from '../db/bell.ts'
import { value } from '../db/call.ts'
import type { Db } from '../db/db.ts'

interface TickLoop {
  readonly signal: AbortSignal
  /** Seconds between rounds over all queues. */
  readonly period: number
  /** Runs a round when nothing else is done on this connection. */
  readonly turn: <T>(work: () => Promise<T>) => Promise<T>
  readonly listen: boolean
  readonly onTicks: (count: number) => void
  readonly onError: (error: unknown) => void
}

/** So many wake-ups in this many milliseconds are too many: each costs the producer a NOTIFY. */
const [rush, rushWindow] = [60, 200]
/** Milliseconds between two looks while producers do not notify; a look that takes long is followed by a longer pause. */
const [lookEvery, lookShare] = [5, 3]
/** Fewer ticks than this in a second, and the producers may notify again. */
const calm = 60
/** Milliseconds between two ticks at the most: what is committed meanwhile comes in one batch. */
const gather = 2

/** A tick that is lost in a crash is made again: whatever was consumed up to it has been flushed together with it. */
const lazily = `select set_config('synchronous_commit', 'off', true)`

/** Ticks at its period, and at once where producers of a queue with wake-up on have committed.
 *
 * Woken too often, it tells the producers not to notify, and looks by itself every few milliseconds until it is calmer.
 * What was inserted meanwhile may still commit unannounced: it goes on looking until those transactions have ended. */
export async function tickUntil(db: Db, { signal, period, turn, listen, onTicks, onError }: TickLoop): Promise<void> {
  const woken = bell()
  const heard = new Set<string>()
  let missed = false
  let wakes: number[] = []
  let deaf: (() => Promise<void>) | undefined
  /** Looking by itself, since when the producers do not notify, */
  let looking: { since: number; ticks: number } | undefined
  /** or only until the transactions below this id have ended. */
  let horizon: bigint | undefined
  let wait = lookEvery
  let due = 0
  let last = 0

  const hear = async (): Promise<void> => {
    if (deaf || !listen || (db.kind === 'pg' && !db.pooled)) return
    // Another ticker may have died while it looked by itself.
    await db.query('select pgq.wakeup_polling(false)')
    deaf = await db.listen('pgq_insert', (queue) => {
      wakes.push(performance.now())
      if (queue === undefined) missed = true
      else heard.add(queue)
      woken.ring()
    })
  }
  const all = () => value<bigint>(db, `${lazily}, pgq.ticker() as value`)
  const fresh = () => value<number>(db, `${lazily}, pgq.tick_new() as value`)
  const named = async (queues: readonly string[]): Promise<number> => {
    const counted = `${lazily}, count(pgq.tick_now(queue_name)) as value
      from (select queue_name from pgq.queue where queue_id = any ($1::integer[]) order by queue_id) q`
    return Number(await value<bigint>(db, counted, [queues]))
  }
  const announce = async (polling: boolean): Promise<void> => {
    await db.query('select pgq.wakeup_polling($1)', [polling])
    looking = polling ? { since: performance.now(), ticks: 0 } : undefined
    horizon = polling
      ? undefined
      : await value<bigint>(db, 'select txid_snapshot_xmax(txid_current_snapshot()) as value')
    wait = lookEvery
  }
  /** One look at what nobody has announced. */
  const look = async (): Promise<number> => {
    const began = performance.now()
    const count = await fresh()
    const took = performance.now() - began
    if (looking) {
      looking.ticks += count
      wait = Math.max(lookEvery, took * lookShare)
      if (began - looking.since > 1000) {
        const quiet = (looking.ticks * 1000) / (began - looking.since) < calm
        looking = { since: began, ticks: 0 }
        if (quiet) await announce(false)
      }
    } else if (horizon !== undefined) {
      wait = Math.min(wait * 1.5, period * 1000)
      const oldest = await value<bigint>(db, 'select txid_snapshot_xmin(txid_current_snapshot()) as value')
      if (oldest >= horizon) horizon = undefined
    }
    return count
  }
  const round = async (): Promise<number> => {
    if (performance.now() >= due) {
      due = performance.now() + period * 1000
      await hear()
      return Number(await all())
    }
    if (looking || horizon !== undefined || missed) {
      missed = false
      return look()
    }
    if (heard.size === 0) return 0
    // Between two ticks there is time for more to come.
    const left = last + gather - performance.now()
    if (left > 0) await bell().wait(left / 1000, signal)
    last = performance.now()
    const queues = [...heard]
    heard.clear()
    return named(queues)
  }

  try {
    while (!signal.aborted) {
      woken.clear()
      try {
        onTicks(await turn(round))
        wakes = wakes.filter((at) => at > performance.now() - rushWindow)
        if (wakes.length > rush && !looking) await announce(true)
      } catch (error) {
        onError(error)
        // Not at once: what failed may fail for long.
        await bell().wait(Math.min(period, 1), signal)
      }
      const left = looking || horizon !== undefined ? Math.min(wait, due - performance.now()) : due - performance.now()
      if (looking) await bell().wait(Math.max(left, 0) / 1000, signal)
      else await woken.wait(Math.max(left, 0) / 1000, signal)
    }
  } finally {
    if (looking) await announce(false).catch(() => undefined)
    await deaf?.()
  }
}
