import type { Db } from '../../src/db/db.ts'
import type { Effect, Epoch, ModelEvent } from './model.ts'

export type Isolation = 'read committed' | 'repeatable read' | 'serializable'

export interface Transaction {
  readonly isolation: Isolation
  /** When its first statement, which takes the snapshot of REPEATABLE READ, was sent. */
  snapshot: number | undefined
  /** Registrations at that moment. */
  epochs: ReadonlyMap<string, Epoch>
  txid: bigint | undefined
  effects: Effect[]
  savepoints: { name: string; effects: number; batch: OpenBatch | undefined }[]
  /** From pgq.current_event_table(), good to the end of the transaction. */
  table: string | undefined
  /** The batch the session held before: a rollback brings it back. */
  readonly before: OpenBatch | undefined
}

export interface OpenBatch {
  readonly consumer: string
  readonly batch: bigint
  readonly events: readonly ModelEvent[] | undefined
  /** The cooperative worker that has it. */
  readonly worker?: string
}

/** One connection, and what it is in the middle of. */
export interface Session {
  readonly name: string
  readonly db: Db
  readonly pid: number
  transaction: Transaction | undefined
  batch: OpenBatch | undefined
  /** The step it is busy with: it may be waiting for a lock. */
  busy: Promise<void> | undefined
  blocked: boolean
}

export async function openSession(name: string, db: Db): Promise<Session> {
  const [row] = await db.query<{ pid: number }>('select pg_backend_pid() as pid')
  return { name, db, pid: row?.pid ?? 0, transaction: undefined, batch: undefined, busy: undefined, blocked: false }
}
