import { type Db, type Row, refuseListen } from './db.ts'

/** A transaction, or a connection, of Kysely. */
export interface KyselyLike {
  executeQuery(query: object): Promise<{ readonly rows: unknown[] }>
  readonly isTransaction: boolean
}
/** Of Drizzle, for any of its Postgres drivers. */
export interface DrizzleLike {
  execute(query: never): PromiseLike<unknown>
}
/** Of Knex. */
export interface KnexLike {
  raw(sql: string, bindings: readonly never[]): PromiseLike<unknown>
}
/** Of Prisma: what `$transaction` hands over, or the client. */
export interface PrismaLike {
  $queryRawUnsafe(sql: string, ...values: unknown[]): PromiseLike<unknown>
}
/** The transactions of query builders, told apart by their methods: none of them is imported. */
export type Foreign = KyselyLike | DrizzleLike | KnexLike | PrismaLike

type Run = (sql: string, params: readonly unknown[]) => PromiseLike<unknown>

/** How to run a statement with `$1` parameters; undefined for anything else. */
function runnerOf(value: object): Run | undefined {
  if ('$queryRawUnsafe' in value) {
    const prisma = value as PrismaLike
    return (sql, params) => prisma.$queryRawUnsafe(sql, ...params)
  }
  if ('executeQuery' in value && 'isTransaction' in value) {
    const kysely = value as KyselyLike
    return (sql, params) => kysely.executeQuery(compiled(sql, params))
  }
  if (typeof value === 'function' && 'raw' in value) {
    const knex = value as unknown as KnexLike
    return (sql, params) => {
      const numbers = [...sql.matchAll(/\$(\d+)/g)].map(([, number]) => Number(number))
      const bindings = numbers.map((number) => params[number - 1]) as never[]
      return knex.raw(sql.replaceAll('?', '\\?').replace(/\$\d+/g, '?'), bindings)
    }
  }
  if ('execute' in value && '_' in value) {
    const drizzle = value as DrizzleLike
    return (sql, params) => {
      const query = { toQuery: () => ({ sql, params: [...params] }), getSQL: () => query }
      return drizzle.execute(query as never)
    }
  }
  return undefined
}

/** What Kysely's `CompiledQuery.raw()` makes. */
function compiled(sql: string, parameters: readonly unknown[]): object {
  return { sql, parameters, query: { kind: 'RawNode', sqlFragments: [sql], parameters: [] }, queryId: { queryId: sql } }
}

export function isForeign(value: object): value is Foreign {
  return runnerOf(value) !== undefined
}

/** The caller's transaction as a Db, enough to put events in: it is the caller who begins and ends it. Values come as the
 * caller's driver reads them. */
export function foreignDb(source: Foreign): Db {
  const run = runnerOf(source)
  if (!run) throw new TypeError('not a transaction of Kysely, Drizzle, Knex or Prisma')
  const db: Db = {
    kind: 'pg',
    origin: source,
    pooled: false,
    inTransaction: () => true,
    async query<R extends Row>(sql: string, params: readonly unknown[] = []) {
      const result = (await run(sql, params)) as R[] | { rows: R[] }
      return Array.isArray(result) ? result : result.rows
    },
    async exec(sql) {
      await run(sql, [])
    },
    copyIn: () => Promise.reject(new Error('COPY needs a connection of pg or a PGlite')),
    // It is inside of one.
    transaction: (work) => work(db),
    listen: refuseListen,
    close: async () => undefined,
  }
  return db
}
