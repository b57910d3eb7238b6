import { bell } from '../db/bell.ts'
import { rows, value } from '../db/call.ts'
import type { Db } from '../db/db.ts'

/** The lock by which one ticker of a database leads: an advisory one, which goes with its connection. */
const lock = `'pgq.tick'::regclass::oid::bigint::integer, 0`

export interface Leading {
  readonly signal: AbortSignal
  /** Seconds between looks. */
  readonly period: number
  /** Seconds for which due ticks may be missing before the leading ticker is pushed aside. */
  readonly takeover: number
  readonly onState: (state: 'leading' | 'standby') => void
}

/** Works whenever this ticker is the one that leads, until the signal. Another waits, and takes over as soon as the leader's
 * connection is gone. A leader that hangs, while its connection stays, is told from one with nothing to do by the ticks
 * that are due; then its connection is ended.
 *
 * @param holder one connection: it holds the lock
 * @param work is told by its signal when it leads no more
 * @throws when the connection is lost; what `work` throws
 * @remarks Tickers that run at once do no harm: each queue is ticked by one at a time. */
export async function lead(
  holder: Db,
  { signal, period, takeover, onState }: Leading,
  work: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const rest = (until = signal) => bell().wait(period, until)
  while (!signal.aborted) {
    const [own] = await rows<{ pid: number; held: boolean }>(
      holder,
      `select pg_backend_pid() as pid, pg_try_advisory_lock(${lock}) as held`,
    )
    if (!own?.held) {
      onState('standby')
      if (await overdue(holder, takeover)) await pushAside(holder)
      await rest()
      continue
    }
    onState('leading')
    const lost = new AbortController()
    const leading = AbortSignal.any([signal, lost.signal])
    const working = work(leading)
    working.catch(() => lost.abort())
    try {
      // The lock is there as long as the connection is the same.
      while (!leading.aborted) {
        await rest(leading)
        if (leading.aborted) break
        if ((await value<number>(holder, 'select pg_backend_pid() as value')) !== own.pid) break
      }
    } finally {
      lost.abort()
      await working
    }
    if (signal.aborted) await holder.query(`select pg_advisory_unlock(${lock})`)
  }
}

/** Whether ticks have been due for so many seconds, and not come. */
function overdue(db: Db, seconds: number): Promise<boolean> {
  return value<boolean>(
    db,
    `select exists (
       select from pgq.get_queue_info()
        where not queue_external_ticker and not queue_ticker_paused
          and (ticker_lag > queue_ticker_idle_period + make_interval(secs => $1)
               or ev_new > 0 and ticker_lag > queue_ticker_max_lag + make_interval(secs => $1))) as value`,
    [seconds],
  )
}

async function pushAside(db: Db): Promise<void> {
  await db.query(
    `select pg_terminate_backend(l.pid) from pg_locks l
      where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.objid = 0
        and l.classid = 'pgq.tick'::regclass::oid
        and l.database = (select d.oid from pg_database d where d.datname = current_database())`,
  )
}
