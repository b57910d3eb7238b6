import { createHash } from 'node:crypto'
import { Readable, type Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { from as copyFrom } from 'pg-copy-streams'
import { SkytoolsError } from '../errors.ts'
import {
  type Db,
  type ExecOptions,
  inSavepoint,
  parseBigints,
  type QueryOptions,
  type Row,
  refuseListen,
  toNotice,
} from './db.ts'
import { clientListen, poolListener } from './listen.ts'

type TypeParser = (value: string) => unknown
interface QueryRequest {
  text: string
  name?: string
  values?: unknown[]
  types?: { getTypeParser(oid: number, format?: 'text' | 'binary'): TypeParser }
}
type Event = 'notice' | 'error' | 'notification' | 'end'
interface Emitter {
  on(event: Event, listener: (what: object) => void): unknown
  removeListener(event: Event, listener: (what: object) => void): unknown
}

/** What we use of a `pg` Client. */
export interface PgClient extends Emitter {
  query(request: QueryRequest): Promise<{ rows: unknown[] }>
  query(stream: Writable): Writable
  getTransactionStatus?(): 'I' | 'T' | 'E' | null
}
/** What we use of a `pg` Pool. */
export interface PgPool {
  readonly totalCount: number
  readonly options?: { readonly max?: number }
  connect(): Promise<PgClient & { release(destroy?: boolean | Error): void }>
  end(): Promise<void>
}

const text: TypeParser = (value) => value
/** int8, int8[], date, timestamp, interval: as PGlite gives them. */
const parsers = new Map<number, TypeParser>([
  [20, BigInt],
  [1016, parseBigints],
  [1082, text],
  [1114, text],
  [1186, text],
])

export type DefaultParser = (oid: number, format: 'text' | 'binary') => TypeParser

export function isPool(value: object): value is PgPool {
  return 'totalCount' in value && 'connect' in value
}

/** `defaults` is pg's own `types.getTypeParser`; open.ts hands it in so that this file imports no driver. */
export function pgDb(source: PgPool | PgClient, defaults: DefaultParser, close?: () => Promise<void>): Db {
  const types: QueryRequest['types'] = {
    getTypeParser: (oid, format = 'text') => (format === 'text' && parsers.get(oid)) || defaults(oid, format),
  }
  const shut = close ?? (async () => undefined)
  return isPool(source) ? poolDb(source, types, shut) : clientDb(source, types, shut)
}

function poolDb(pool: PgPool, types: QueryRequest['types'], close: () => Promise<void>): Db {
  const withClient = async <T>(work: (db: Db) => Promise<T>): Promise<T> => {
    const client = await pool.connect()
    survive(client)
    let failure: unknown
    try {
      return await work(clientDb(client, types, close))
    } catch (error) {
      failure = error
      throw error
    } finally {
      // A connection that is still in a transaction after a failure must not go back to the pool.
      client.release(failure !== undefined && client.getTransactionStatus?.() !== 'I')
    }
  }
  return {
    kind: 'pg',
    origin: pool,
    pooled: (pool.options?.max ?? 10) > 1,
    inTransaction: () => false,
    listen: (channel, handler) => poolListener(pool).listen(channel, handler),
    query: (sql, params, options) => withClient((db) => db.query(sql, params, options)),
    exec: (sql, options) => withClient((db) => db.exec(sql, options)),
    copyIn: (target, chunks) => withClient((db) => db.copyIn(target, chunks)),
    transaction: (work) => withClient((db) => db.transaction(work)),
    async close() {
      await poolListener(pool).end()
      await close()
    },
  }
}

const ignore = () => undefined

const surviving = new WeakSet<PgClient>()

/** When a connection breaks, the statement under way, or the next one, tells: the event must not end the process, also when it
 * comes while the pool throws the client away. */
export function survive(client: PgClient): void {
  if (surviving.has(client)) return
  surviving.add(client)
  client.on('error', ignore)
}

const turns = new WeakMap<PgClient, Promise<unknown>>()

/** A client does one thing at a time: what is asked meanwhile waits here. */
function inTurn<T>(client: PgClient, work: () => Promise<T>): Promise<T> {
  const turn = (turns.get(client) ?? Promise.resolve()).then(work)
  turns.set(client, turn.catch(ignore))
  return turn
}

const names = new Map<string, string>()

/** A name for a prepared statement: the same for the same text, whichever copy of skytools prepares it. */
function nameOf(sql: string): string {
  const known = names.get(sql)
  if (known) return known
  const name = `skytools_${createHash('md5').update(sql).digest('hex')}`
  names.set(sql, name)
  return name
}

/** `refuse` throws where the transaction is over: what is left of its work must not go into the next one of this client. */
function clientDb(
  client: PgClient,
  types: QueryRequest['types'],
  close: () => Promise<void>,
  depth = 0,
  refuse: () => void = ignore,
): Db {
  let last: Promise<unknown> = Promise.resolve()
  const send = <T>(work: () => Promise<T>): Promise<T> => {
    refuse()
    return inTurn(client, work)
  }
  const run = async (sql: string) => send(() => client.query({ text: sql }))
  const transaction = async <T>(work: (tx: Db) => Promise<T>): Promise<T> => {
    let over = false
    const inner = clientDb(client, types, close, depth + 1, () => {
      refuse()
      if (over) throw transactionOver()
    })
    const perform = async (): Promise<T> => {
      try {
        return await work(inner)
      } finally {
        over = true
      }
    }
    // The caller may have begun a transaction on this client: then ours is a savepoint inside it.
    if (depth > 0 || (client.getTransactionStatus?.() ?? 'I') !== 'I') return inSavepoint(depth + 1, run, perform)
    await run('begin')
    try {
      const result = await perform()
      await run('commit')
      return result
    } catch (error) {
      await run('rollback').catch((cause) => attach(error, cause))
      throw error
    }
  }
  return {
    kind: 'pg',
    origin: client,
    pooled: false,
    inTransaction: () => depth > 0 || (client.getTransactionStatus?.() ?? 'I') !== 'I',
    listen: depth > 0 ? refuseListen : (channel, handler) => clientListen(client, channel, handler),
    async query<R extends Row>(sql: string, params: readonly unknown[] = [], { prepare }: QueryOptions = {}) {
      const name = prepare ? { name: nameOf(sql) } : {}
      const request = { text: sql, values: [...params], ...name, ...(types && { types }) }
      const { rows } = await send(() => client.query(request))
      return rows as R[]
    },
    exec: (sql, options) => listening(client, options, () => run(sql)),
    async copyIn(target, chunks) {
      await send(() => pipeline(Readable.from(chunks), client.query(copyFrom(`copy ${target} from stdin`))))
    },
    // One client has one transaction at a time: those that start meanwhile wait.
    transaction(work) {
      if (depth > 0) return transaction(work)
      const turn = last.then(() => transaction(work))
      last = turn.catch(() => undefined)
      return turn
    },
    close,
  }
}

function transactionOver(): SkytoolsError {
  return new SkytoolsError(
    'PQ073',
    'the transaction is over',
    'whoever is handed a transaction must wait for all that it starts, and stop when its signal is aborted',
  )
}

async function listening(client: Emitter, options: ExecOptions | undefined, work: () => Promise<unknown>) {
  const onNotice = options?.onNotice
  if (!onNotice) {
    await work()
    return
  }
  const listener = (notice: object) => onNotice(toNotice(notice))
  client.on('notice', listener)
  try {
    await work()
  } finally {
    client.removeListener('notice', listener)
  }
}

/** The rollback failed too (the connection is gone, usually): keep that beside the first error. */
function attach(error: unknown, cause: unknown): void {
  if (error instanceof Error && error.cause === undefined) error.cause = cause
}
