// npm run migration -- <name>      writes the next file of migrations/: what changed in sql/ since the last one
// npm run migration -- --squash    writes migrations/0001_pgq.sql anew from all of sql/ (until the first release)
// npm run migration -- --check     fails when 0001_pgq.sql is not what --squash would write (until the first release)
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  bundleSql,
  migrations,
  migrationsDirectory,
  packageRoot,
  packageVersion,
  sectionMarkers,
} from '../src/schema/bundle.ts'
import { type Statement, statements } from './dev/statements.ts'

const first = '0001_pgq'

/** The Down section of the first step: everything goes, unless something would be lost. */
function removal(schemas: readonly string[]): string {
  const list = schemas.map((name) => `'${name}'`).join(', ')
  return `-- Roles stay: they belong to the whole server, and other databases may use them.
do $$
declare
    v_forced boolean := coalesce(current_setting('skytools.force', true), '') = 'on';
    v_schemas oid[] := (select array_agg(n.oid) from pg_namespace n where n.nspname in (${list}));
    v_hint text := 'skytools uninstall --force';
    v_found text;
    v_object record;
begin
    select string_agg(quote_ident(q.queue_name), ', ' order by q.queue_name) into v_found from pgq.queue q;
    if v_found is not null then
        raise exception 'there are queues in database %: %', quote_ident(current_database()), v_found
            using errcode = 'PQ034', hint = format('%s drops them and their events; or: select pgq.drop_queue(''name'', true)', v_hint);
    end if;

    for v_object in
        select c.oid::regclass as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.oid = any (v_schemas) and n.nspname <> 'pgq' and c.relkind = 'r' and not v_forced
    loop
        execute format('select ''x'' from %s limit 1', v_object.name) into v_found;
        if v_found is not null then
            raise exception 'there is data in %', v_object.name
                using errcode = 'PQ034', hint = format('empty that table, or drop it with all in it: %s', v_hint);
        end if;
    end loop;

    select string_agg(distinct pg_describe_object(d.classid, d.objid, d.objsubid), ', ') into v_found
      from pg_depend d,
           lateral pg_identify_object_as_address(d.classid, d.objid, d.objsubid) a
     where d.deptype in ('n', 'a')
       and a.object_names[1] not in (${list}, 'skytools')
       and a.type <> 'schema'
       and exists (
           select from pg_class c
            where d.refclassid = 'pg_class'::regclass and c.oid = d.refobjid and c.relnamespace = any (v_schemas)
           union all
           select from pg_proc p
            where d.refclassid = 'pg_proc'::regclass and p.oid = d.refobjid and p.pronamespace = any (v_schemas)
           union all
           select from pg_type t
            where d.refclassid = 'pg_type'::regclass and t.oid = d.refobjid and t.typnamespace = any (v_schemas));
    if v_found is not null and not v_forced then
        raise exception 'objects of others depend on skytools: %', v_found
            using errcode = 'PQ041', hint = format('drop them first, or drop them too: %s', v_hint);
    end if;

    perform set_config('client_min_messages', 'warning', true);
    for v_object in
        select format('schema %I', n.nspname) as name from pg_namespace n where n.oid = any (v_schemas)
        union all
        select format('routine %s', p.oid::regprocedure)
          from pg_proc p where p.pronamespace = 'skytools'::regnamespace
        union all
        select format('table %s', c.oid::regclass)
          from pg_class c
         where c.relnamespace = 'skytools'::regnamespace and c.relkind = 'r' and c.relname <> 'migrations'
    loop
        execute format('drop %s cascade', v_object.name);
    end loop;
end $$;`
}

function compose(version: string, up: string, down: string): string {
  return `-- skytools ${version}
-- Written by \`npm run migration\` from sql/; never edited once released.

-- Up Migration

${up.trim()}

-- Down Migration

${down.trim()}
`
}

function refuseMarkers(text: string, where: string): void {
  const lines = sectionMarkers(text)
  if (lines.length === 0) return
  throw new Error(
    `${where}, line ${lines.join(', ')}: node-pg-migrate takes a line that begins '-- up migration' or ` +
      "'-- down migration' for the start of a section, inside a function body too: word that comment in another way",
  )
}

async function squashed(root: string): Promise<string> {
  const sql = await bundleSql(root)
  refuseMarkers(sql, 'sql/')
  const schemas = (await statements(sql)).flatMap(
    ({ object }) => /^schema (?!skytools$)(.*)/.exec(object ?? '')?.[1] ?? [],
  )
  return compose(packageVersion(root), sql, removal(schemas))
}

/** What the released steps say of each object, the newest text last. */
async function released(root: string): Promise<{ objects: Map<string, Statement>; others: Set<string> }> {
  const objects = new Map<string, Statement>()
  const others = new Set<string>()
  for (const { up } of await migrations(root)) {
    for (const statement of await statements(up)) {
      if (statement.object) objects.set(statement.object, statement)
      else others.add(statement.text)
    }
  }
  return { objects, others }
}

const withHeader = ({ header, text }: Statement) => (header ? `${header}\n${text}` : text)
const replaceable = new Set(['CreateFunctionStmt', 'ViewStmt', 'CreateTrigStmt'])

async function nextStep(root: string): Promise<{ up: string; down: string }> {
  const before = await released(root)
  const now = await statements(await bundleSql(root))
  const up: string[] = []
  const down: string[] = []
  const repeated: string[] = []
  for (const statement of now) {
    const { object, kind, text } = statement
    if (kind === 'SelectStmt') {
      repeated.push(text)
    } else if (object === undefined) {
      if (!before.others.has(text)) up.push(withHeader(statement))
    } else {
      const earlier = before.objects.get(object)
      if (earlier?.text === text) continue
      if (!earlier) {
        up.push(withHeader(statement))
        down.push(`drop ${object};`)
      } else if (replaceable.has(kind)) {
        up.push(withHeader({ ...statement, text: replacing(text) }))
        down.push(replacing(earlier.text))
      } else {
        up.push(`-- ${object} changed in sql/: write the alter here`)
        down.push(`-- ${object} changed: write the way back here`)
      }
    }
  }
  const present = new Set(now.map(({ object }) => object))
  for (const [object, earlier] of before.objects) {
    if (present.has(object)) continue
    up.push(replaceable.has(earlier.kind) ? `drop ${object};` : `-- ${object} left sql/: write its drop here`)
    down.push(withHeader(earlier))
  }
  if (up.length === 0) throw new Error('sql/ says what the migrations say already: nothing to write')
  return { up: [...up, ...repeated].join('\n\n'), down: down.toReversed().join('\n\n') }
}

function replacing(text: string): string {
  return text.replace(/^create\s+(?!or\s+replace)(?=(function|procedure|view|trigger)\b)/i, 'create or replace ')
}

/** Numbers of released steps: test/released.json, empty before the first release. */
export function releasedSteps(root = packageRoot()): string[] {
  const file = join(root, 'test', 'released.json')
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as string[]) : []
}

export async function writeMigration(argument: string, root = packageRoot()): Promise<string> {
  const steps = await migrations(root)
  if (argument === '--squash' || (steps.length === 0 && argument === first.slice(5))) {
    if (releasedSteps(root).includes(first)) throw new Error(`${first} is released: write the next step instead`)
    const path = join(migrationsDirectory(root), `${first}.sql`)
    writeFileSync(path, await squashed(root))
    return path
  }
  if (!/^[a-z][a-z0-9_]*$/.test(argument))
    throw new Error(`a name of small letters, digits and _ is needed: ${argument}`)
  const { up, down } = await nextStep(root)
  const text = compose(packageVersion(root), up, down)
  refuseMarkers(up, 'the Up section')
  refuseMarkers(down, 'the Down section')
  const number = String(Number(steps.at(-1)?.name.slice(0, 4) ?? 0) + 1).padStart(4, '0')
  const path = join(migrationsDirectory(root), `${number}_${argument}.sql`)
  writeFileSync(path, text)
  return path
}

export async function checkMigration(root = packageRoot()): Promise<string | undefined> {
  if (releasedSteps(root).includes(first)) return undefined
  const path = join(migrationsDirectory(root), `${first}.sql`)
  if (existsSync(path) && readFileSync(path, 'utf8') === (await squashed(root))) return undefined
  return `migrations/${first}.sql is older than sql/: npm run migration -- --squash`
}

async function main(argument: string | undefined): Promise<number> {
  if (argument === undefined) {
    console.error('usage: npm run migration -- <name>|--squash|--check')
    return 2
  }
  try {
    const problem = argument === '--check' ? await checkMigration() : undefined
    if (problem) throw new Error(problem)
    if (argument !== '--check') console.log(`wrote ${await writeMigration(argument)}`)
    return 0
  } catch (error) {
    console.error(error instanceof Error ? error.message : error)
    return 1
  }
}

if (process.argv[1] === import.meta.filename) process.exitCode = await main(process.argv[2])
