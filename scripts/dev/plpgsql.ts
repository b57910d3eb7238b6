import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { toDb } from '../../src/db/open.ts'
import { bundleSql } from '../../src/schema/bundle.ts'
import { startServer } from '../../test/support/server.ts'

/** Findings that are right for plpgsql_check and wrong for us, each with the reason. */
const exceptions: readonly { readonly finding: RegExp; readonly why: string }[] = [
  {
    finding: /relation "pgq_(node|ext|coop)\..*does not exist/,
    why: 'a schema that need not be there, and is looked for first',
  },
  {
    finding: /grant_perms.*syntax error at or near "_id_seq"/,
    why: 'it puts a quoted sample where the code has event_<id>',
  },
  { finding: /_batch_query.*target type is different/, why: 'a record whose type is known at run time only' },
]

/** What plpgsql_check says of every function: on the server of DATABASE_URL, or on Debian's own, if it has the extension. */
export async function plpgsqlProblems(): Promise<string[] | undefined> {
  if (process.env.DATABASE_URL) return problemsOn(process.env.DATABASE_URL)
  const bin = debianBinaries()
  if (!bin) return undefined
  const server = await startServer(18, { bin })
  try {
    return await problemsOn(server.url)
  } finally {
    await server.remove()
  }
}

function debianBinaries(): string | undefined {
  const base = '/usr/lib/postgresql'
  const versions = existsSync(base) ? readdirSync(base).sort((a, b) => Number(b) - Number(a)) : []
  const version = versions.find((name) => existsSync(`/usr/share/postgresql/${name}/extension/plpgsql_check.control`))
  return version && join(base, version, 'bin')
}

async function problemsOn(url: string): Promise<string[] | undefined> {
  const database = `skytools_check_${randomBytes(6).toString('hex')}`
  const admin = new pg.Client({ connectionString: url })
  await admin.connect()
  try {
    const { rowCount } = await admin.query("select from pg_available_extensions where name = 'plpgsql_check'")
    if (!rowCount) return undefined
    await admin.query(`create database ${database} template template0`)
    const target = new URL(url)
    target.pathname = database
    const client = new pg.Client({ connectionString: target.href })
    await client.connect()
    try {
      const db = toDb(client)
      await db.exec('create extension plpgsql_check')
      await db.exec(await bundleSql())
      // A queue, so that what is generated is checked too.
      await db.query("select pgq.create_queue('checked')")
      return await problemsOf(db)
    } finally {
      await client.end()
    }
  } finally {
    await admin.query(`drop database if exists ${database} with (force)`)
    await admin.end()
  }
}

async function problemsOf(db: ReturnType<typeof toDb>): Promise<string[]> {
  const rows = await db.query<{ problem: string }>(
    `select format('%s, line %s: %s: %s', p.oid::regprocedure, c.lineno, c.level, c.message) as problem
       from pg_proc p
       join pg_namespace n on n.oid = p.pronamespace
       join pg_language l on l.oid = p.prolang
       left join lateral (select min(t.tgrelid::oid)::regclass as relation from pg_trigger t where t.tgfoid = p.oid) t on true,
       lateral plpgsql_check_function_tb(p.oid, coalesce(t.relation, 0), extra_warnings => false, performance_warnings => false) c
      where n.nspname in ('pgq', 'pgq_coop', 'pgq_ext', 'skytools') and l.lanname = 'plpgsql'
        and not (p.prorettype = 'trigger'::regtype and t.relation is null)
      order by 1`,
  )
  return rows
    .map(({ problem }) => problem)
    .filter((problem) => !exceptions.some(({ finding }) => finding.test(problem)))
}
