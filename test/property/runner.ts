import type { Db, Row } from '../../src/db/db.ts'
import { createModel, type Model } from './model.ts'
import { connections, consumers, expand, type Step } from './schedule.ts'
import { openSession, type Session, type Transaction } from './session.ts'
import { bodies, type Features, isolationOf, type StepContext } from './steps.ts'

/** A database with pgq in it, and the connections that a schedule uses. */
export interface Arena {
  readonly sessions: readonly Session[]
  /** Sees who waits for whom; none where there is one connection only. */
  readonly observer: Db | undefined
  readonly features: Features
  /** Counts what happened over all schedules, so that a test can tell that enough did. */
  readonly seen: Map<string, number>
}

export async function openArena(open: () => Promise<Db>, kind: 'pglite' | 'server'): Promise<Arena> {
  const count = kind === 'pglite' ? 1 : connections
  const sessions: Session[] = []
  for (let n = 0; n < count; n++) sessions.push(await openSession(String.fromCharCode(65 + n), await open()))
  const observer = kind === 'pglite' ? undefined : await open()
  const [first] = sessions
  const [row] =
    (await first?.db.query<{ many: boolean; positions: boolean }>(
      `select exists (select from pg_proc where proname = 'insert_events' and pronamespace = 'pgq'::regnamespace) as many,
            to_regprocedure('pgq.maint_rotate_positions()') is not null as positions`,
    )) ?? []
  const features = {
    insertMany: row?.many ?? false,
    rotatePositions: row?.positions ?? false,
    concurrent: row?.many ?? false,
  }
  return { sessions, observer, features, seen: new Map() }
}

let serial = 0
const transient = ['40001', '40P01']
const codeOf = (error: unknown): string => String((error as { code?: unknown }).code ?? '')

export class ScheduleFailure extends Error {}

/** Runs the steps in a queue of their own; throws with everything that was done when the model and the queue differ. */
export async function runSchedule(arena: Arena, steps: readonly Step[]): Promise<void> {
  serial++
  const queue = `schedule ${process.pid}.${serial}`
  const { sessions, features } = arena
  const model = createModel()
  const log: string[] = []
  let clock = 0
  let tokens = 0
  const now = () => ++clock
  const count = (what: string) => arena.seen.set(what, (arena.seen.get(what) ?? 0) + 1)
  // Whatever a step that was blocked finds when it goes on, it finds after the step that let it go has been noted.
  let gate: Promise<void> = Promise.resolve()
  let failure: unknown

  const [main] = sessions
  if (!main) throw new Error('no session')
  const parent = await createQueue(main.db, queue)
  const [tick] = await main.db.query<{ id: bigint; snapshot: string }>(
    `select tick_id as id, tick_snapshot::text as snapshot
    from pgq.tick t join pgq.queue q on q.queue_id = t.tick_queue where q.queue_name = $1`,
    [queue],
  )
  if (tick) model.learnTick(tick.id, tick.snapshot)

  const query = async <R extends Row>(session: Session, sql: string, params: readonly unknown[] = []): Promise<R[]> => {
    const { transaction } = session
    if (transaction && transaction.snapshot === undefined) {
      transaction.snapshot = now()
      transaction.epochs = new Map(model.current)
    }
    try {
      return await session.db.query<R>(sql, params)
    } finally {
      if (session.blocked) await gate
    }
  }
  const learnTicks = async (session: Session): Promise<void> => {
    const rows = await query<{ id: bigint; snapshot: string }>(
      session,
      `select tick_id as id, tick_snapshot::text as snapshot
         from pgq.tick t join pgq.queue q on q.queue_id = t.tick_queue where q.queue_name = $1`,
      [queue],
    )
    for (const { id, snapshot } of rows) model.learnTick(id, snapshot)
  }
  const begin = async (session: Session, n: number): Promise<Transaction> => {
    const isolation = isolationOf(n, features)
    await session.db.exec(`begin isolation level ${isolation}`)
    const before = session.batch
    const tx: Transaction = {
      isolation,
      snapshot: undefined,
      epochs: new Map(),
      txid: undefined,
      effects: [],
      savepoints: [],
      table: undefined,
      before,
    }
    session.transaction = tx
    return tx
  }
  const end = async (session: Session, how: 'commit' | 'rollback'): Promise<void> => {
    const tx = session.transaction
    if (!tx) return
    if (how === 'commit' && tx.effects.some(({ kind }) => kind === 'tick')) await learnTicks(session)
    const from = now()
    try {
      await session.db.exec(how)
    } catch (error) {
      await session.db.exec('rollback')
      session.transaction = undefined
      session.batch = tx.before
      throw error
    }
    session.transaction = undefined
    if (how === 'commit') model.commit(tx.effects, tx.txid, from, now())
    else session.batch = tx.before
  }
  const abandon = async (session: Session): Promise<void> => {
    if (!session.transaction) return
    const { before } = session.transaction
    await session.db.exec('rollback')
    session.transaction = undefined
    session.batch = before
  }

  const perform = async (session: Session, step: Step): Promise<string> => {
    const tx = session.transaction
    switch (step.kind) {
      case 'begin':
        if (tx) return ''
        return (await begin(session, step.n)).isolation
      case 'commit':
      case 'rollback':
        if (!tx) return ''
        await end(session, step.kind)
        return 'done'
      case 'savepoint': {
        if (!tx) return ''
        const name = `s${tx.savepoints.length}`
        await session.db.exec(`savepoint ${name}`)
        tx.savepoints.push({ name, effects: tx.effects.length, batch: session.batch })
        return name
      }
      case 'rollbackTo': {
        const index = tx ? step.n % (tx.savepoints.length || 1) : 0
        const savepoint = tx?.savepoints[index]
        if (!tx || !savepoint) return ''
        await session.db.exec(`rollback to savepoint ${savepoint.name}`)
        tx.savepoints.length = index + 1
        tx.effects.length = savepoint.effects
        tx.table = undefined
        session.batch = savepoint.batch
        return savepoint.name
      }
      case 'release': {
        const savepoint = tx?.savepoints.pop()
        if (savepoint) await session.db.exec(`release savepoint ${savepoint.name}`)
        return savepoint?.name ?? ''
      }
      case 'otherQueue':
        if (tx) return ''
        return otherQueue(session, step)
      default: {
        const own = tx === undefined
        const maintenance = ['tick', 'tickAll', 'rotate1', 'rotate2', 'rotatePositions', 'putBack']
        const consuming = [
          'register',
          'registerAt',
          'unregister',
          'next',
          'retry',
          'retryBatch',
          'finish',
          ...cooperative,
        ]
        if (!own && !features.concurrent && [...maintenance, ...consuming].includes(step.kind)) return ''
        const inside = tx ?? (await begin(session, 0))
        const before = inside.effects.length
        const begun = new Map(model.current)
        const context: StepContext = {
          session,
          tx: inside,
          step,
          queue,
          parent,
          features,
          now,
          count,
          consumer: `consumer ${step.who % consumers}`,
          epochOf: (name) => {
            if (inside.effects.some((e) => (e.kind === 'register' || e.kind === 'unregister') && e.consumer === name))
              return undefined
            // A statement that waited may act on the registration that there was when it began.
            if (inside.isolation === 'read committed') return model.current.get(name) ?? begun.get(name)
            return inside.epochs.get(name)
          },
          token: () => `e${++tokens}`,
          query: (sql, params) => query(session, sql, params),
        }
        await bodies[step.kind]?.(context)
        const did = inside.effects.slice(before)
        for (const { kind } of did) count(kind)
        if (own) {
          await end(session, 'commit')
          if (step.kind === 'tickAll') await learnTicks(session)
        }
        return did.map((effect) => JSON.stringify(effect, plain)).join(' ')
      }
    }
  }
  const otherQueue = async (session: Session, step: Step): Promise<string> => {
    const name = `${queue} side ${step.n % 2}`
    const sql = step.n % 4 < 2 ? 'select pgq.create_queue($1) as n' : 'select pgq.drop_queue($1, true) as n'
    const [row] = await session.db.query<{ n: number }>(sql, [name])
    return `${name} ${row?.n}`
  }

  /** Errors that the schedule brings about by itself; anything else is a failure. */
  const expected = (code: string, step: Step, stable: boolean): boolean => {
    if (transient.includes(code)) return true
    if (!features.concurrent && code === 'P0001') return true
    if (step.kind === 'otherQueue') return ['PQ001', '23505'].includes(code)
    if (['register', 'registerAt', 'unregister'].includes(step.kind)) return ['PQ002', 'PQ005'].includes(code)
    // The batch of the plain consumer is open; or another worker has just taken this one's batch over.
    if (cooperative.includes(step.kind)) return ['PQ002', 'PQ042'].includes(code)
    if (code === 'PQ002') return !stable
    return ['PQ003', 'PQ004', 'PQ019'].includes(code) && ['read', 'retry', 'retryBatch', 'finish'].includes(step.kind)
  }
  const launch = (session: Session, step: Step): Promise<void> => {
    const consumer = `consumer ${step.who % consumers}`
    const started = `${now()}`
    const registration = model.current.get(consumer)
    const quiet = () =>
      session.transaction?.isolation !== 'repeatable read' &&
      session.transaction?.isolation !== 'serializable' &&
      !sessions.some(
        ({ transaction, busy }) =>
          busy !== undefined || transaction?.effects.some(({ kind }) => kind === 'register' || kind === 'unregister'),
      )
    const calm = quiet()
    const run = async (): Promise<void> => {
      let result: string
      try {
        result = await perform(session, step)
      } catch (error) {
        const code = codeOf(error)
        const stable = calm && quiet() && registration !== undefined && model.current.get(consumer) === registration
        result = `${code} ${(error as Error).message}`
        if (!expected(code, step, stable)) failure ??= error
        count(`error ${code}`)
        await abandon(session)
        if (code.startsWith('PQ0') || code === 'P0001') session.batch = undefined
      }
      const where = session.transaction ? ` in ${session.transaction.isolation}` : ''
      if (result !== '') log.push(`${started}-${now()} ${session.name}${where} ${step.kind} ${consumer} ${result}`)
      session.busy = undefined
      session.blocked = false
    }
    const busy = run()
    session.busy = busy
    return busy
  }
  /** Waits until each of these has ended or waits for a lock. */
  const settle = async (started: readonly Session[]): Promise<void> => {
    for (const session of started) {
      while (session.busy && !session.blocked) {
        const quick = await Promise.race([session.busy.then(() => true), brief()])
        if (quick || !arena.observer) continue
        const [row] = await arena.observer.query<{ waits: boolean }>(`select pg_blocking_pids($1) <> '{}' as waits`, [
          session.pid,
        ])
        if (row?.waits) {
          session.blocked = true
          count('blocked')
          log.push(`${now()} ${session.name} waits`)
        }
      }
    }
  }
  const wave = async (list: readonly [Session, Step][]): Promise<void> => {
    let open = (): void => undefined
    gate = new Promise((resolve) => {
      open = resolve
    })
    const started = list.filter(([session]) => !session.busy)
    for (const [session, step] of started) void launch(session, step)
    await settle(started.map(([session]) => session))
    open()
    if (failure) throw failure
  }
  /** Steps that may be in flight together: what they do is all told by the moments they began and ended. */
  const simple = (session: Session | undefined, { kind }: Step): boolean =>
    [
      'insert',
      'insertMany',
      'insertRaw',
      'direct',
      'tick',
      'tickAll',
      'rotate1',
      'rotate2',
      'rotatePositions',
    ].includes(kind) ||
    (kind === 'commit' && (session?.transaction?.effects.every((effect) => effect.kind === 'event') ?? true))
  const allEnded = async (): Promise<void> => {
    for (;;) {
      const free = sessions.find(({ busy, transaction }) => !busy && transaction)
      if (free)
        await wave([[free, { kind: clock % 3 === 0 ? 'rollback' : 'commit', on: 0, who: 0, n: 0, together: false }]])
      else if (sessions.some(({ busy }) => busy)) await Promise.race(sessions.flatMap(({ busy }) => busy ?? []))
      else break
      if (failure) throw failure
    }
  }

  try {
    const list = [...initial, ...expand(steps)]
    for (let at = 0; at < list.length; ) {
      const together: [Session, Step][] = []
      for (; at < list.length; at++) {
        const step = list[at]
        const session = step && sessions[step.on % sessions.length]
        if (!step || !session) break
        if (together.length > 0) {
          const joins = step.together && [...together, [session, step] as const].every(([s, one]) => simple(s, one))
          if (!joins || together.some(([other]) => other === session)) break
        }
        together.push([session, step])
      }
      await wave(together)
    }
    await allEnded()
    // Nobody is left who would have to go on first: what waits now, waits for the server's own work (autovacuum).
    const alone = async (step: Step) => {
      await wave([[main, step]])
      await main.busy
      if (failure) throw failure
    }
    const last = await drain(main, queue, alone, model)
    const problems = model.finish(last)
    if (problems.length > 0) throw new Error(problems.join('\n'))
    await main.db.query('select pgq.drop_queue($1, true)', [queue])
    for (const n of [0, 1])
      await main.db.query(`select pgq.drop_queue(queue_name, true) from pgq.queue where queue_name = $1`, [
        `${queue} side ${n}`,
      ])
  } catch (error) {
    throw new ScheduleFailure(`${(error as Error).message}\nqueue ${queue}\n${log.join('\n')}`, { cause: error })
  }
}

/** Two of the three consumers are there from the start, and the one that is a group at times. */
const initial: readonly Step[] = [
  ...[0, 1].map((who): Step => ({ kind: 'register', on: 0, who, n: 0, together: false })),
  { kind: 'registerGroup', on: 0, who: 0, n: 0, together: false },
]

const cooperative = ['coopNext', 'groupNext', 'registerGroup']

const brief = (): Promise<false> => new Promise((resolve) => setTimeout(resolve, 2, false))
const plain = (key: string, value: unknown): unknown =>
  key === 'epoch' ? undefined : typeof value === 'bigint' ? Number(value) : value

async function createQueue(db: Db, queue: string): Promise<string> {
  await db.query('select pgq.create_queue($1)', [queue])
  const settings = { ticker_max_count: '1', ticker_max_lag: '0', ticker_idle_period: '0', rotation_period: '0' }
  for (const [name, value] of Object.entries(settings))
    await db.query('select pgq.set_queue_config($1, $2, $3)', [queue, name, value])
  const [row] = await db.query<{ pfx: string }>('select queue_data_pfx as pfx from pgq.queue where queue_name = $1', [
    queue,
  ])
  return row?.pfx ?? ''
}

/** Everything that was committed reaches everybody who is registered. Returns the last tick. */
async function drain(main: Session, queue: string, run: (step: Step) => Promise<void>, model: Model): Promise<bigint> {
  const step = (kind: Step['kind'], who = 0, n = 1): Step => ({ kind, on: 0, who, n, together: false })
  const consumeAll = async (): Promise<void> => {
    // One worker gets what is there, and whatever the other, or the plain consumer, has open: n says that those are dead.
    for (let turn = 0; ; turn++) {
      if (turn > 1000) throw new Error('the group is given batches without end')
      main.batch = undefined
      await run(step('coopNext', 0, 0))
      if (!main.batch) break
      await run(step('read'))
      await run(step('finish'))
    }
    for (let who = 0; who < consumers; who++) {
      if (!model.current.has(`consumer ${who}`)) continue
      for (let turn = 0; ; turn++) {
        if (turn > 1000) throw new Error(`consumer ${who} is given batches without end`)
        main.batch = undefined
        await run(step('next', who))
        if (!main.batch) break
        await run(step('read', who))
        await run(step('finish', who))
      }
    }
  }
  await run(step('rotate2'))
  let left = 0
  do {
    await run(step('putBack'))
    const rows = await main.db.query<{ n: number }>(
      `select count(*)::int as n from pgq.retry_queue r join pgq.queue q on q.queue_id = r.ev_queue where q.queue_name = $1`,
      [queue],
    )
    left = rows[0]?.n ?? 0
  } while (left > 0)
  await run(step('tick'))
  await consumeAll()
  await run(step('rotate1'))
  await run(step('rotate2'))
  await run(step('rotatePositions'))
  await run(step('tick'))
  await consumeAll()
  const [row] = await main.db.query<{ id: bigint }>(
    `select max(tick_id) as id from pgq.tick t join pgq.queue q on q.queue_id = t.tick_queue where q.queue_name = $1`,
    [queue],
  )
  return row?.id ?? 0n
}
