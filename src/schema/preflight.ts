import type { Db } from '../db/db.ts'
import { SkytoolsError } from '../errors.ts'

interface Surroundings {
  readonly server: number
  readonly standby: boolean
  readonly readonly: string
  readonly database: string
  readonly role: string
  readonly may_create: boolean
  readonly extension: string | null
  readonly foreign: string[] | null
  readonly ledger: boolean
  readonly marked: boolean
}

const oldest = 14

/** Throws where the bundle cannot be installed or changed; tells whether its ledger is there. */
export async function preflight(db: Db): Promise<{ ledger: boolean }> {
  const [found] = await db.query<Surroundings & Record<string, unknown>>(
    `select current_setting('server_version_num')::int as server,
            pg_is_in_recovery() as standby,
            current_setting('transaction_read_only') as readonly,
            current_database()::text as database,
            current_user::text as role,
            has_database_privilege(current_database(), 'CREATE') as may_create,
            (select extversion from pg_extension where extname = 'pgq') as extension,
            (select array_agg(quote_ident(n.nspname) order by n.nspname)
               from pg_namespace n
              where n.nspname in ('pgq', 'pgq_coop', 'pgq_ext', 'skytools')
                and (n.nspname <> 'skytools'
                     or exists (select from pg_class c where c.relnamespace = n.oid)
                     or exists (select from pg_proc p where p.pronamespace = n.oid))) as foreign,
            exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                     where n.nspname = 'skytools' and c.relname = 'migrations') as ledger,
            exists (select from pg_namespace n
                     where n.nspname = 'pgq' and obj_description(n.oid, 'pg_namespace') like 'skytools:%') as marked`,
  )
  if (!found) throw new SkytoolsError('PQ038', 'the server gave no answer')
  refuse(found)
  return { ledger: found.ledger }
}

function refuse(found: Surroundings): void {
  const database = JSON.stringify(found.database)
  if (found.server < oldest * 10_000) {
    const version = found.server / 10_000 >= 10 ? Math.floor(found.server / 10_000) : found.server
    throw new SkytoolsError(
      'PQ033',
      `the server runs Postgres ${version}; skytools needs ${oldest} or newer`,
      `upgrade the server to Postgres ${oldest} or newer`,
    )
  }
  if (found.standby) {
    const hint = 'connect to the primary server: what is installed there appears here by replication'
    throw new SkytoolsError('PQ032', `database ${database} is on a standby server, which is read-only`, hint)
  }
  if (found.readonly === 'on') {
    const hint = `set default_transaction_read_only = off, or connect with ?options=-c%20default_transaction_read_only=off`
    throw new SkytoolsError('PQ032', `this connection to database ${database} is read-only`, hint)
  }
  if (found.extension !== null && !found.ledger) {
    throw new SkytoolsError(
      'PQ030',
      `database ${database} has the extension pgq ${found.extension}, whose schema pgq is in the way`,
      'install into another database, or first remove it with all its queues: drop extension pgq cascade',
    )
  }
  if (found.foreign !== null && !found.ledger) {
    const schemas = found.foreign.join(', ')
    throw found.marked
      ? new SkytoolsError(
          'PQ030',
          `the schemas ${schemas} in database ${database} were loaded without a ledger, so their version is unknown`,
          'load the output of `skytools sql`, which writes the ledger too, instead of the single files',
        )
      : new SkytoolsError(
          'PQ030',
          `database ${database} has a schema ${schemas} that skytools did not make`,
          `install into another database, or move it away: alter schema ${found.foreign[0]} rename to …`,
        )
  }
  if (!found.ledger && !found.may_create) {
    throw new SkytoolsError(
      'PQ031',
      `role ${JSON.stringify(found.role)} may not create schemas in database ${database}`,
      `grant create on database ${quoteIdent(found.database)} to ${quoteIdent(found.role)}`,
    )
  }
}

function quoteIdent(name: string): string {
  return /^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`
}
