import { rows } from '../db/call.ts'
import type { Connectable } from '../db/open.ts'

/** A transaction that has been open for long, in any database of the cluster. */
export interface LongTransaction {
  /** Of its session; null for a prepared transaction, which has none. */
  readonly pid: number | null
  /** Of a prepared transaction: what `rollback prepared` takes. */
  readonly gid: string | null
  readonly database: string | null
  readonly user: string | null
  readonly application: string | null
  readonly state: string | null
  /** Seconds since it began. */
  readonly age: number
  /** It has a transaction id, so every tick's snapshot lists it, and rotation waits for its end. */
  readonly writes: boolean
}

/** Transactions that have been open for longer than so many seconds, the oldest first.
 *
 * @param olderThan seconds
 * @remarks Takes no locks. Sessions of other roles are seen by superusers and members of pg_read_all_stats only. */
export function longTransactions(db: Connectable, olderThan: number): Promise<LongTransaction[]> {
  return rows<LongTransaction & Record<string, unknown>>(
    db,
    `select * from (
       select pid, null as gid, datname as database, usename as "user", application_name as application, state,
              extract(epoch from clock_timestamp() - xact_start)::float8 as age, backend_xid is not null as writes
         from pg_stat_activity
        where (backend_xid is not null or backend_xmin is not null) and pid <> pg_backend_pid()
          and backend_type = 'client backend'
       union all
       select null, gid, database, owner, null, 'prepared', extract(epoch from clock_timestamp() - prepared)::float8, true
         from pg_prepared_xacts) t
      where age > $1 order by age desc`,
    [olderThan],
  )
}
