import type { Db } from '../db/db.ts'
import { SkytoolsError } from '../errors.ts'

/** The part of a transaction that one call of a handler may use. */
export interface Guard {
  readonly db: Db
  /** What was written stays. Afterwards `db` refuses to be used. */
  keep(): Promise<void>
  /** What was written is undone; needs `undoable`. Afterwards `db` refuses to be used. */
  undo(): Promise<void>
}

const savepoint = 'skytools_event'

/** A handler that goes on after its time is up must not write into what comes after it.
 *
 * @param undoable sets a savepoint before the first statement; a handler that sends none costs nothing */
export function guard(tx: Db, undoable: boolean): Guard {
  let over = false
  let begun: Promise<void> | undefined
  const ready = async (): Promise<void> => {
    if (over)
      throw new SkytoolsError(
        'PQ073',
        'the transaction of this handler is over',
        'a handler must wait for all that it starts, and stop when its signal is aborted',
      )
    if (!undoable) return
    begun ??= tx.exec(`savepoint ${savepoint}`)
    await begun
  }
  const db: Db = {
    ...tx,
    query: async (sql, params, options = {}) => {
      await ready()
      return tx.query(sql, params, options)
    },
    exec: async (sql, options) => {
      await ready()
      return tx.exec(sql, options)
    },
    copyIn: async (target, chunks) => {
      await ready()
      return tx.copyIn(target, chunks)
    },
    transaction: async (work) => {
      await ready()
      return tx.transaction(work)
    },
  }
  const end = async (sql: string): Promise<void> => {
    over = true
    if (begun === undefined) return
    await begun
    await tx.exec(sql)
  }
  return {
    db,
    keep: () => end(`release savepoint ${savepoint}`),
    undo: () => end(`rollback to savepoint ${savepoint}; release savepoint ${savepoint}`),
  }
}
