import { type Migration, migrations } from './bundle.ts'

/** The ledger as node-pg-migrate makes it, for steps that run without `install`. */
export const ledgerSql = `create schema if not exists skytools;
create table if not exists skytools.migrations (id serial primary key, name varchar(255) not null, run_on timestamp not null);`

export function ledgerEntry({ name }: Migration): string {
  return `insert into skytools.migrations (name, run_on) values ('${name}', now());`
}

export interface ScriptOptions {
  /** With begin and commit: yes, unless told otherwise. */
  readonly transaction?: boolean | undefined
  readonly root?: string | undefined
}

/** The whole bundle as one script for psql, or for a runner of one's own, into a database that does not have it yet. */
export async function bundleScript({ transaction = true, root }: ScriptOptions = {}): Promise<string> {
  const steps = await migrations(root)
  const version = steps.at(-1)?.version ?? ''
  const parts = [
    `-- skytools ${version}, the whole bundle: written by \`skytools sql\`. psql -v ON_ERROR_STOP=1 -f <this file>`,
    ...(transaction ? ['begin;'] : []),
    guard,
    ledgerSql,
    ...steps.flatMap((step) => [step.up, ledgerEntry(step)]),
    ...(transaction ? ['commit;'] : []),
  ]
  return `${parts.join('\n\n')}\n`
}

const guard = `do $$
begin
    if to_regclass('skytools.migrations') is not null then
        raise exception 'skytools is installed in database % already', quote_ident(current_database())
            using errcode = 'PQ030', hint = 'to bring it up to date: skytools upgrade';
    end if;
    if coalesce(to_regnamespace('pgq'), to_regnamespace('pgq_ext'), to_regnamespace('pgq_coop')) is not null then
        raise exception 'database % has a schema pgq, pgq_ext or pgq_coop already', quote_ident(current_database())
            using errcode = 'PQ030', hint = 'install into another database, or move it away: alter schema pgq rename to ...';
    end if;
end $$;`
