import { type Db, inSavepoint, parseBigints, type Row, refuseListen, toNotice } from './db.ts'

interface QueryOptions {
  parsers?: Record<number, (value: string) => unknown>
  onNotice?: (notice: object) => void
  blob?: Blob
}

/** What PGlite and its transactions have in common. */
export interface PgliteTransaction {
  query(sql: string, params?: unknown[], options?: QueryOptions): Promise<{ rows: unknown[] }>
  exec(sql: string, options?: QueryOptions): Promise<unknown>
}
/** What we use of a PGlite. */
export interface Pglite extends PgliteTransaction {
  transaction<T>(work: (tx: PgliteTransaction) => Promise<T>): Promise<T>
  listen(channel: string, callback: (payload: string) => void): Promise<() => Promise<void>>
  readonly waitReady: Promise<void>
}

const text = (value: string) => value
const options: QueryOptions = { parsers: { 20: BigInt, 1016: parseBigints, 1082: text, 1114: text } }

export function isPglite(value: object): value is Pglite {
  return 'waitReady' in value && 'transaction' in value
}

/** What `pglite.transaction()` hands to its callback. */
export function isPgliteTransaction(value: object): value is PgliteTransaction {
  return 'exec' in value && 'rollback' in value
}

export function pgliteTransactionDb(tx: PgliteTransaction): Db {
  return transactionDb(tx, tx, async () => undefined, 1)
}

export function pgliteDb(pglite: Pglite, close: () => Promise<void> = async () => undefined): Db {
  return {
    ...statements(pglite, pglite, close),
    inTransaction: () => false,
    listen: (channel, handler) => pglite.listen(channel, handler),
    transaction: (work) => pglite.transaction((tx) => work(transactionDb(tx, pglite, close, 1))),
  }
}

function transactionDb(tx: PgliteTransaction, origin: object, close: () => Promise<void>, depth: number): Db {
  return {
    ...statements(tx, origin, close),
    inTransaction: () => true,
    listen: refuseListen,
    transaction: (work) =>
      inSavepoint(
        depth,
        (sql) => tx.exec(sql),
        () => work(transactionDb(tx, origin, close, depth + 1)),
      ),
  }
}

function statements(
  target: PgliteTransaction,
  origin: object,
  close: () => Promise<void>,
): Omit<Db, 'transaction' | 'listen' | 'inTransaction'> {
  return {
    kind: 'pglite',
    origin,
    pooled: false,
    async query<R extends Row>(sql: string, params: readonly unknown[] = []) {
      const { rows } = await target.query(sql, [...params], options)
      return rows as R[]
    },
    async copyIn(copyTarget, chunks) {
      const parts: string[] = []
      for await (const chunk of chunks) parts.push(chunk)
      await target.query(`copy ${copyTarget} from '/dev/blob'`, [], { blob: new Blob(parts) })
    },
    async exec(sql, { onNotice } = {}) {
      await target.exec(sql, onNotice ? { ...options, onNotice: (notice) => onNotice(toNotice(notice)) } : options)
    },
    close,
  }
}
