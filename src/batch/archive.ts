import { setTimeout as sleep } from 'node:timers/promises'
import { value } from '../db/call.ts'
import type { Connectable } from '../db/open.ts'
import { quoteTable, type TableName } from './statement.ts'

export interface ArchiveOptions {
  /** The table, or partitioned table, that rows leave. */
  readonly source: TableName
  /** The one they go to: it has all columns of the source, and those it has besides take their defaults. */
  readonly target: TableName
  /** Which rows, as SQL over the source's columns, which runs with the connection's rights: never build it from data. */
  readonly where: string
  /** Rows a transaction, at most. Default: 10,000. */
  readonly chunk?: number
  /** Which rows first, as SQL. Default: as they are found. */
  readonly orderBy?: string
  /** Seconds between chunks. Default: 0. */
  readonly pause?: number
  /** Wait while a replica lags more bytes than this behind. The role needs pg_monitor. Default: do not look. */
  readonly maxLag?: number
  readonly signal?: AbortSignal
  /** Called after each chunk with the number of rows moved so far. */
  readonly onProgress?: (moved: bigint) => void
}

/**
 * Moves rows to another table, in chunks of a transaction each, and returns how many.
 *
 * @remarks Within a transaction of the caller all chunks are part of that. When `signal` aborts, the chunks so far stay moved.
 * @throws BatchArgumentError (PQ024) the target lacks a column, the source is no table, or its rows cannot be deleted
 */
export async function archive(db: Connectable, options: ArchiveOptions): Promise<bigint> {
  const { source, target, where, chunk = 10_000, orderBy = null, pause = 0, maxLag, signal, onProgress } = options
  const given = [quoteTable(source), quoteTable(target), where, chunk, orderBy]
  let moved = 0n
  for (;;) {
    signal?.throwIfAborted()
    while (maxLag !== undefined && (await replicaLag(db)) > maxLag) await sleep(100, undefined, { signal })
    const now = await value<bigint>(
      db,
      'select skytools.archive_chunk($1::regclass, $2::regclass, $3::text, $4::integer, $5::text) as value',
      given,
    )
    if (now === 0n) return moved
    moved += now
    onProgress?.(moved)
    if (pause > 0) await sleep(pause * 1000, undefined, { signal })
  }
}

/** How many bytes of WAL the replica that lags most is behind. Zero without replicas. */
async function replicaLag(db: Connectable): Promise<number> {
  return Number((await value<bigint | null>(db, 'select skytools.replica_lag() as value')) ?? 0n)
}
