import { setTimeout as delay } from 'node:timers/promises'
import pLimit from 'p-limit'
import pRetry from 'p-retry'
import { registerConsumer } from '../consumer/consumer.ts'
import { rows } from '../db/call.ts'
import type { Db } from '../db/db.ts'
import { openDb } from '../db/open.ts'
import { createQueue, queueInfo } from '../queue/queue.ts'
import { type MoverConfig, type MoverOptions, moverConfig } from './config.ts'
import { moveBatch } from './move.ts'
import { type Origin, type Router, router } from './route.ts'
import { findSources, type Source, type SourceQueue, sourceQueues } from './sources.ts'

export interface MoverStats {
  /** Sources that answered when last asked, and those that did not. */
  readonly sources: number
  readonly failing: number
  readonly batches: number
  readonly events: number
}

export interface MoverListeners {
  /** A batch has been moved; `events` by destination queue. */
  readonly onBatch?: (origin: Origin, batch: bigint, events: ReadonlyMap<string, number>) => void
  /** A source or the target failed; it is tried again. */
  readonly onError?: (error: unknown, source: string) => void
}

export interface Mover {
  /** Moves until the signal; then ends what it is moving, and its connections. */
  run(signal: AbortSignal): Promise<void>
  /** Moves what there is now from every source, once, and ends.
   *
   * @throws AggregateError when sources failed; the others were moved */
  once(): Promise<MoverStats>
  stats(): MoverStats
}

/** So many batches of a queue at one go: then the others have their turn. */
const batchesInTurn = 20

/** Moves events from queues of many databases into queues of one, exactly once.
 *
 * @throws MoverConfigError (PQ060)
 * @remarks One process holds at most `connections` connections to sources and `targetConnections` to the target. Needs
 * pgq_reader at the sources, pgq_writer at the target; pgq_admin there to create queues. See docs/mover.md. */
export function createMover(options: MoverOptions & MoverListeners): Mover {
  const { onBatch, onError, ...rest } = options
  const config = moverConfig(rest)
  const routes = router(config)
  const limit = pLimit(config.connections)
  const counts = { batches: 0, events: 0 }
  const failing = new Set<string>()
  const running = new Map<string, { readonly stop: AbortController; readonly ended: Promise<void> }>()
  let target: Promise<Db> | undefined
  const readyQueues = new Set<string>()

  const openTarget = async () => {
    if (config.target === undefined) return undefined
    target ??= openDb(config.target, { max: config.targetConnections })
    try {
      return await target
    } catch (error) {
      target = undefined
      throw error
    }
  }
  const closeTarget = async () => {
    const opened = target
    target = undefined
    await (await opened)?.close()
  }

  /** One look at a source: every queue of it, a number of batches each. Returns how many batches there were. */
  const visit = async (state: SourceState, signal: AbortSignal): Promise<number> => {
    const destination = await openTarget()
    state.db ??= await openDb(state.source.url, { max: 2, idleSeconds: state.keepOpen ? 60 : 0.01 })
    if (state.queuesUntil < Date.now()) {
      state.queues = await subscribed(state.db, state.source, config, routes)
      state.queuesUntil = Date.now() + config.refresh * 1000
    }
    let batches = 0
    for (const { queue, identity } of state.queues) {
      const origin = { source: state.source.name, queue }
      const destinations = preparing(routes, destination ?? state.db, config, readyQueues)
      for (let n = 0; n < batchesInTurn && !signal.aborted; n += 1) {
        await destinations.prepare()
        const moved = await moveBatch({
          origin,
          identity,
          source: state.db,
          target: destination,
          router: destinations.router,
          config,
        }).catch(async (error: unknown) => {
          // Queues that it needs were found while it read the batch: make them, and read it again.
          if (await destinations.prepare()) return 'again' as const
          throw error
        })
        if (moved === 'again') continue
        if (!moved) break
        batches += 1
        counts.batches += 1
        for (const events of moved.events.values()) counts.events += events
        onBatch?.(origin, moved.batch, moved.events)
      }
    }
    failing.delete(state.source.name)
    return batches
  }

  const report = (error: unknown, source: string) => {
    failing.add(source)
    onError?.(error, source)
  }

  const follow = async (source: Source, keepOpen: boolean, signal: AbortSignal): Promise<void> => {
    const state: SourceState = { source, keepOpen, db: undefined, queues: [], queuesUntil: 0 }
    // An abort ends the waiting between attempts at once; what is under way is waited for below.
    let underWay: Promise<unknown> = Promise.resolve()
    const attempt = () => {
      const visited = limit(() => (signal.aborted ? 0 : visit(state, signal)))
      underWay = visited.catch(() => undefined)
      return visited
    }
    const patiently = () =>
      pRetry(attempt, {
        retries: Number.POSITIVE_INFINITY,
        factor: 2,
        randomize: true,
        minTimeout: config.retry.min * 1000,
        maxTimeout: config.retry.max * 1000,
        signal,
        onFailedAttempt: ({ error }) => report(error, source.name),
      })
    try {
      while (!signal.aborted) {
        if ((await patiently()) === 0) await delay(config.poll * 1000, undefined, { signal })
      }
    } catch (error) {
      if (!signal.aborted) throw error
    } finally {
      await underWay
      failing.delete(source.name)
      await state.db?.close()
    }
  }

  const run = async (signal: AbortSignal): Promise<void> => {
    try {
      while (!signal.aborted) {
        const { sources, failures } = await findSources(config)
        for (const { server, error } of failures) report(error, server)
        const names = new Set(sources.map(({ name }) => name))
        for (const [name, { stop }] of running) if (!names.has(name) && failures.length === 0) stop.abort()
        for (const source of sources.filter(({ name }) => !running.has(name))) {
          const stop = new AbortController()
          const ended = follow(source, sources.length <= config.connections, AbortSignal.any([signal, stop.signal]))
          running.set(source.name, { stop, ended: ended.finally(() => running.delete(source.name)) })
        }
        await delay(config.refresh * 1000, undefined, { signal }).catch(() => undefined)
      }
    } finally {
      await Promise.all([...running.values()].map(({ ended }) => ended))
      await closeTarget()
    }
  }

  const once = async (): Promise<MoverStats> => {
    const { sources, failures } = await findSources(config)
    const errors = failures.map(({ error }) => error)
    const { signal } = new AbortController()
    const drain = async (source: Source) => {
      const state: SourceState = { source, keepOpen: true, db: undefined, queues: [], queuesUntil: 0 }
      try {
        while ((await visit(state, signal)) > 0);
      } catch (error) {
        report(error, source.name)
        errors.push(error)
      } finally {
        await state.db?.close()
      }
    }
    await Promise.all(sources.map((source) => limit(() => drain(source))))
    await closeTarget()
    if (errors.length > 0)
      throw new AggregateError(errors, `${errors.length} sources failed: ${errors.map(String).join('; ')}`)
    return stats(sources.length)
  }

  const stats = (sources = running.size): MoverStats => ({
    sources: sources - failing.size,
    failing: failing.size,
    ...counts,
  })
  return { run, once, stats: () => stats() }
}

interface SourceState {
  readonly source: Source
  /** Whether its connection stays open between two looks: there are not more sources than connections. */
  readonly keepOpen: boolean
  db: Db | undefined
  queues: readonly SourceQueue[]
  queuesUntil: number
}

/** The queues of a source that have routes, each with our consumer subscribed. */
async function subscribed(db: Db, source: Source, config: MoverConfig, routes: Router): Promise<SourceQueue[]> {
  const queues = (await sourceQueues(db, source.name)).filter(({ queue }) =>
    routes.takes({ source: source.name, queue }),
  )
  const there = new Set(
    (
      await rows<{ queue: string }>(
        db,
        `select queue_name as queue from pgq.get_consumer_info() where consumer_name = $1`,
        [config.consumer],
      )
    ).map(({ queue }) => queue),
  )
  for (const { queue } of queues.filter((entry) => !there.has(entry.queue))) {
    const [oldest] =
      config.start === 'oldest'
        ? await rows<{ tick: bigint }>(
            db,
            `select min(tick_id) as tick from pgq.tick where tick_queue = (select queue_id from pgq.queue where queue_name = $1)`,
            [queue],
          )
        : []
    await registerConsumer(db, queue, config.consumer, { at: oldest?.tick })
  }
  return queues
}

/** A router that remembers destinations which are not known to exist, and makes them when asked. */
function preparing(routes: Router, target: Db, config: MoverConfig, ready: Set<string>) {
  const missing = new Set<string>()
  return {
    router: {
      takes: routes.takes,
      destination(origin: Origin, event: Parameters<Router['destination']>[1]) {
        const queue = routes.destination(origin, event)
        if (queue !== undefined && config.createQueues && !ready.has(queue)) missing.add(queue)
        return queue
      },
    },
    /** Returns whether there was any to make. */
    async prepare(): Promise<boolean> {
      const queues = [...missing]
      for (const queue of queues) {
        if ((await queueInfo(target, queue)).length === 0) await createQueue(target, queue)
        ready.add(queue)
      }
      missing.clear()
      return queues.length > 0
    },
  }
}
