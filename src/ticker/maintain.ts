import { rows, value } from '../db/call.ts'
import { type Connectable, toDb } from '../db/open.ts'
import { SkytoolsError } from '../errors.ts'

export interface Operation {
  /** A function, or `vacuum` or `vacuum analyze`. */
  readonly name: string
  /** The queue or table it is for; null: none. */
  readonly argument: string | null
  readonly calls: number
}

/** Does what is due of a queue's housekeeping: rotation, extra hooks, VACUUM where autovacuum is off. Each operation has a
 * transaction of its own, and one that fails does not keep the others from their turn.
 *
 * @param options.signal ends it before the next call
 * @returns what was done, in order
 * @throws MaintenanceHookError (PQ013) after all others have run; its `cause` is an AggregateError of what failed
 * @remarks Rotation takes an event table ACCESS EXCLUSIVE, and gives way where that would wait. Needs pgq_admin. */
export async function maintain(
  db: Connectable,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<Operation[]> {
  const due = await rows<{ name: string; argument: string | null }>(
    db,
    'select func_name as name, func_arg as argument from pgq.maint_operations()',
  )
  const done: Operation[] = []
  const failures: { operation: string; error: unknown }[] = []
  for (const { name, argument } of due) {
    if (options.signal?.aborted) break
    try {
      done.push({ name, argument, calls: await perform(db, name, argument, options.signal) })
    } catch (error) {
      failures.push({ operation: argument === null ? `${name}()` : `${name}(${argument})`, error })
    }
  }
  if (failures.length > 0) {
    const reasons = failures.map(({ operation, error }) => `${operation}: ${messageOf(error)}`)
    throw new SkytoolsError(
      'PQ013',
      `${failures.length} of ${due.length} maintenance operations failed: ${reasons.join('; ')}`,
      'the others were done; queues name their own in pgq.queue.queue_extra_maint',
      new AggregateError(failures.map(({ error }) => error)),
    )
  }
  return done
}

/** Puts the events whose time to be retried has come back into their queues, each ten in a transaction of their own.
 *
 * @param options.signal ends it before the next ten
 * @returns how many came back
 * @remarks Holds up other callers of this, not consumers that note retries. Needs pgq_admin. */
export async function returnRetries(
  db: Connectable,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<number> {
  let returned = 0
  while (!options.signal?.aborted) {
    const count = await value<number>(db, 'select pgq.maint_retry_events() as value')
    if (count === 0) break
    returned += count
  }
  return returned
}

/** An operation that asks to be called again more often than this is taken to never come to an end. */
const mostCalls = 1000

async function perform(db: Connectable, name: string, argument: string | null, signal?: AbortSignal): Promise<number> {
  const command = /^vacuum( analyze)?$/i.exec(name)
  if (command && argument !== null) {
    await toDb(db).exec(`${name} ${quoted(argument)}`)
    return 1
  }
  const [sql, params] =
    argument === null ? [`select ${quoted(name)}() as value`, []] : [`select ${quoted(name)}($1) as value`, [argument]]
  for (let calls = 1; calls <= mostCalls; calls += 1) {
    const again = await toDb(db).transaction(async (tx) => {
      // Under a snapshot of the transaction's begin, which may be the database's default, rotation does nothing.
      await tx.exec('set transaction isolation level read committed')
      return value<number | bigint | null>(tx, sql, params)
    })
    if (Number(again ?? 0) === 0 || signal?.aborted) return calls
  }
  throw new Error(`it still returned other than 0 after ${mostCalls} calls`)
}

/** `schema.name`, as it is stored, for use in SQL. */
function quoted(name: string): string {
  const dot = name.indexOf('.')
  const parts = dot < 0 ? [name] : [name.slice(0, dot), name.slice(dot + 1)]
  return parts.map((part) => `"${part.replaceAll('"', '""')}"`).join('.')
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
