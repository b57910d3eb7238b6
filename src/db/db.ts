export type Row = Record<string, unknown>

/** What the server says beside its results, such as `raise notice`. */
export interface Notice {
  readonly severity: string
  readonly code: string
  readonly message: string
  readonly hint?: string | undefined
}

export interface QueryOptions {
  /** Parsed and planned once for each connection. Not behind a pooler of transactions that knows no prepared statements. */
  readonly prepare?: boolean | undefined
}

export interface ExecOptions {
  readonly onNotice?: (notice: Notice) => void
}

/** A database, whichever driver reaches it. int8 is bigint; interval and date are text. */
export interface Db {
  readonly kind: 'pg' | 'pglite'
  /** The driver's connection or pool below it: the same one for a connection and its transactions. */
  readonly origin: object
  /** Whether it has several connections, so that something else can be done during a transaction. */
  readonly pooled: boolean
  /** Whether a statement would be part of a transaction that is open. */
  inTransaction(): boolean
  /** One statement, with parameters. */
  query<R extends Row = Row>(sql: string, params?: readonly unknown[], options?: QueryOptions): Promise<R[]>
  /** Any number of statements, without parameters. */
  exec(sql: string, options?: ExecOptions): Promise<void>
  /** `COPY … FROM STDIN` in text format; where the driver has no such protocol, from memory. */
  copyIn(target: string, chunks: Iterable<string> | AsyncIterable<string>): Promise<void>
  /** Commits when `work` returns, rolls back when it throws. Inside a transaction it is a savepoint. */
  transaction<T>(work: (tx: Db) => Promise<T>): Promise<T>
  /** Calls `handler` with the payload of each notification of a channel, until the function that comes back is called. With
   * undefined when some may have been missed, because the connection had to be made anew. */
  listen(channel: string, handler: (payload: string | undefined) => void): Promise<() => Promise<void>>
  /** Closes what it opened itself: nothing when it was given a connection of the caller. */
  close(): Promise<void>
}

/** int8[] as the server writes it. */
export function parseBigints(text: string): (bigint | null)[] {
  if (text === '{}') return []
  return text
    .slice(1, -1)
    .split(',')
    .map((item) => (item === 'NULL' ? null : BigInt(item)))
}

/** A driver's notice, which may lack any part of it. */
export function toNotice(notice: Partial<Notice>): Notice {
  const { severity = 'NOTICE', code = '00000', message = '', hint } = notice
  return { severity, code, message, hint }
}

/** `savepoint` for the drivers: the name tells the depth, so that a log of statements can be read. */
export async function inSavepoint<T>(
  depth: number,
  run: (sql: string) => Promise<unknown>,
  work: () => Promise<T>,
): Promise<T> {
  const name = `skytools_${depth}`
  await run(`savepoint ${name}`)
  try {
    const result = await work()
    await run(`release savepoint ${name}`)
    return result
  } catch (error) {
    await run(`rollback to savepoint ${name}; release savepoint ${name}`)
    throw error
  }
}

/** Of a transaction: notifications come between transactions. */
export function refuseListen(channel: string): Promise<never> {
  return Promise.reject(new Error(`to listen to ${channel}, ask the connection, not its transaction`))
}

/** The same database, with its queries prepared unless they say otherwise: for a few statements that come again and again. */
export function prepared(db: Db): Db {
  return {
    ...db,
    query: (sql, params, options = { prepare: sql.startsWith('select') }) => db.query(sql, params, options),
    transaction: (work) => db.transaction((tx) => work(prepared(tx))),
  }
}
