import { rows } from '../db/call.ts'
import type { Connectable } from '../db/open.ts'
import { quoteTable, type TableName } from './statement.ts'

export interface ApplyEventsOptions {
  /** `correct`: updates are updates. `delete`: a delete and an insert. `merged` (the default): as delete, and a row that was
   * inserted and then updated is inserted once. All end in the same state. */
  readonly method?: 'correct' | 'delete' | 'merged'
  /** Which events: their extra1, which is the captured table's name with its schema, unquoted. Default: the target's own. */
  readonly source?: string
  /** The columns that identify a row. Default: the key in the events, else the target's primary key. */
  readonly key?: readonly string[]
  /** The columns to take from the events. Default: all. */
  readonly columns?: readonly string[]
}

export interface AppliedEvents {
  readonly events: bigint
  readonly inserted: bigint
  readonly updated: bigint
  readonly deleted: bigint
  /** Rows to update or delete that the target does not have. */
  readonly missing: bigint
  /** A TRUNCATE was among the events. */
  readonly truncated: boolean
  /** False when they had to be applied one by one. */
  readonly setWise: boolean
}

/** Applies the events of a captured table in an open batch to a table, as a set. It ends as if they were applied one by one.
 *
 * @remarks Finish the batch in the same transaction: {@link consumeBatch} gives you one.
 * @throws BatchNotFoundError (PQ003)
 * @throws BatchArgumentError (PQ024) the method, a column, no key
 * @throws EventNotApplicableError (PQ029) an event is not of a captured table, or the target lacks a column of it */
export async function applyEvents(
  db: Connectable,
  batch: bigint,
  target: TableName,
  options: ApplyEventsOptions = {},
): Promise<AppliedEvents> {
  const { method = 'merged', source = null, key = null, columns = null } = options
  const [done] = await rows<AppliedEvents & Record<string, unknown>>(
    db,
    `select events, inserted, updated, deleted, missing, truncated, set_wise as "setWise"
       from skytools.apply_events($1::bigint, $2::regclass, $3::text, $4::text, $5::text[], $6::text[])`,
    [batch, quoteTable(target), method, source, key, columns],
  )
  if (!done) throw new Error('skytools.apply_events gave no row')
  return done
}
