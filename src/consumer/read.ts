import { rows } from '../db/call.ts'
import type { Db, Row } from '../db/db.ts'
import {
  type Batch,
  type BatchOptions,
  batchColumns,
  eventColumns,
  nextBatchArguments,
  type QueueEvent,
} from './batch.ts'

const cursor = 'skytools_batch'

/** The events of an open batch, so many at a time, through a cursor of the transaction: a batch of any size fits into
 * memory. The next part is on its way while the last one is handled. */
export async function* readBatch(tx: Db, batch: bigint, size: number): AsyncGenerator<QueueEvent[]> {
  yield* readFrom(
    tx,
    await rows<QueueEvent & Row>(tx, `select ${eventColumns} from pgq.get_batch_cursor($1, '${cursor}', $2)`, [
      batch,
      size,
    ]),
    size,
  )
}

/** Opens a consumer's next batch, and reads from it, in one go: an event is on its way to its handler one round trip sooner. */
export async function openBatch(
  tx: Db,
  queue: string,
  consumer: string,
  options: BatchOptions,
  size: number,
): Promise<{ readonly batch: Batch; readonly parts: AsyncGenerator<QueueEvent[]> } | undefined> {
  const found = await rows<Row>(
    tx,
    `select b.*, e.* from (select ${batchColumns} from pgq.next_batch_custom($1, $2, $3, $4, $5)) b
       left join lateral pgq.get_batch_cursor(b.id, '${cursor}', $6) e on true`,
    [...nextBatchArguments(queue, consumer, options), size],
  )
  const [row] = found
  if (!row || row.id === null) return undefined
  const { id, tick, previousTick, tickTime, previousTickTime } = row as unknown as Batch
  const first = row.ev_id === null ? [] : found.map(fromRow)
  return { batch: { id, tick, previousTick, tickTime, previousTickTime }, parts: readFrom(tx, first, size) }
}

async function* readFrom(tx: Db, first: QueueEvent[], size: number): AsyncGenerator<QueueEvent[]> {
  let part = first
  while (part.length === size) {
    const next = rows<Row>(tx, `fetch ${size} from ${cursor}`)
    // When the handler fails first, nobody waits for it.
    next.catch(() => undefined)
    yield part
    part = (await next).map(fromRow)
  }
  if (part.length > 0) yield part
}

function fromRow(row: Row): QueueEvent & Row {
  return {
    id: row.ev_id as bigint,
    time: row.ev_time as Date,
    txid: row.ev_txid as bigint,
    retry: (row.ev_retry as number | null) ?? 0,
    type: row.ev_type as string | null,
    data: row.ev_data as string | null,
    extra1: row.ev_extra1 as string | null,
    extra2: row.ev_extra2 as string | null,
    extra3: row.ev_extra3 as string | null,
    extra4: row.ev_extra4 as string | null,
  }
}
