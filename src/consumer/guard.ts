import { type Db, inSavepoint } from '../db/db.ts'
import { SkytoolsError } from '../errors.ts'

/** The part of a transaction that one call of a handler may use. */
export interface Guard {
  readonly db: Db
  /** What was written stays. Afterwards `db` refuses to be used. */
  keep(): Promise<void>
  /** What was written is undone; needs `undoable`. Afterwards `db` refuses to be used. */
  undo(): Promise<void>
  /** The transaction will be rolled back: `db` refuses to be used from now on. */
  close(): void
}

const savepoint = 'skytools_event'

/** A handler that goes on after its time is up must not write into what comes after it.
 *
 * @param undoable sets a savepoint before the first statement; a handler that sends none costs nothing */
export function guard(tx: Db, undoable: boolean): Guard {
  let over = false
  let begun: Promise<void> | undefined
  const check = (): void => {
    if (!over) return
    throw new SkytoolsError(
      'PQ073',
      'the transaction of this handler is over',
      'a handler must wait for all that it starts, and stop when its signal is aborted',
    )
  }
  /** Sends a statement, if that may still be: nothing comes between the check and the sending. */
  const within = async <T>(send: () => Promise<T>): Promise<T> => {
    check()
    if (undoable) {
      begun ??= tx.exec(`savepoint ${savepoint}`)
      await begun
      check()
    }
    return send()
  }
  const guarded = (depth: number): Db => {
    const db: Db = {
      ...tx,
      query: (sql, params, options = {}) => within(() => tx.query(sql, params, options)),
      exec: (sql, options) => within(() => tx.exec(sql, options)),
      copyIn: (target, chunks) => within(() => tx.copyIn(target, chunks)),
      transaction: (work) =>
        inSavepoint(
          depth,
          (sql) => db.exec(sql),
          () => work(guarded(depth + 1)),
        ),
    }
    return db
  }
  const end = async (sql: string): Promise<void> => {
    over = true
    if (begun === undefined) return
    await begun
    await tx.exec(sql)
  }
  return {
    db: guarded(1),
    keep: () => end(`release savepoint ${savepoint}`),
    undo: () => end(`rollback to savepoint ${savepoint}; release savepoint ${savepoint}`),
    close: () => {
      over = true
    },
  }
}
