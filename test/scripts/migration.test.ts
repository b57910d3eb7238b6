import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { checkMigration, writeMigration } from '../../scripts/migration.ts'
import { compareFingerprints, fingerprint, install, upgrade } from '../../src/index.ts'
import { bundleSql, packageRoot } from '../../src/schema/bundle.ts'
import { downgrade } from '../../src/schema/install.ts'
import { databases } from '../support/databases.ts'

const tables = `create schema if not exists skytools;
create schema pgq;
create table pgq.queue (queue_name text primary key);
`
const functions = `-- pgq.one() -> integer
-- One.
create or replace function pgq.one() returns integer language sql as $$ select 1 $$;

-- pgq.two(i_n integer) -> integer
-- Two.
create or replace function pgq.two(i_n integer) returns integer language sql as $$ select 2 + i_n $$;

create trigger stay before delete on pgq.queue for each row execute function suppress_redundant_updates_trigger();
`
let root: string

/** A package of its own, with a small sql/ and its first step released. */
beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'skytools-migration-'))
  for (const folder of ['sql/pgq', 'migrations', 'test']) mkdirSync(join(root, folder), { recursive: true })
  cpSync(join(packageRoot(), 'package.json'), join(root, 'package.json'))
  writeFileSync(join(root, 'sql', 'order.txt'), '# tables\npgq/tables.sql\n\n# functions\npgq/functions.sql\n')
  writeSql(tables, functions)
  await writeMigration('--squash', root)
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

function writeSql(tablesSql: string, functionsSql: string): void {
  writeFileSync(join(root, 'sql', 'pgq', 'tables.sql'), tablesSql)
  writeFileSync(join(root, 'sql', 'pgq', 'functions.sql'), functionsSql)
}

function release(): void {
  writeFileSync(join(root, 'test', 'released.json'), '["0001_pgq"]')
}

describe('npm run migration', () => {
  it('notices that sql/ has changed since the first step was written, until that is released', async () => {
    expect(await checkMigration(root)).toBeUndefined()
    writeSql(tables, functions.replace('select 1', 'select 11'))
    expect(await checkMigration(root)).toContain('--squash')
    release()
    expect(await checkMigration(root)).toBeUndefined()
    await expect(writeMigration('--squash', root)).rejects.toThrow('released')
  })
  it('refuses a comment that node-pg-migrate would take for a section, in a function body too', async () => {
    writeSql(tables, functions.replace('select 1', 'select 1\n  -- down migration goes on here\n'))
    await expect(writeMigration('--squash', root)).rejects.toThrow(/line \d+: node-pg-migrate takes/)
    release()
    await expect(writeMigration('next', root)).rejects.toThrow(/the Up section, line \d+/)
  })
  it('refuses SQL that does not parse, and names that are no file names', async () => {
    await expect(writeMigration('../x', root)).rejects.toThrow('small letters')
    writeSql(tables, functions.replace('returns integer', 'returns returns integer'))
    await expect(writeMigration('next', root)).rejects.toThrow(/line \d+: syntax error/)
  })
  it('has nothing to write when nothing changed', async () => {
    release()
    await expect(writeMigration('next', root)).rejects.toThrow('nothing to write')
  })
  it('copies what changed whole, drops what left, marks tables for a person, and writes the way back', async () => {
    release()
    const changed = functions
      .replace('select 1 ', 'select 11 ')
      .replace('two(i_n integer)', 'two(i_n bigint)')
      .replace('two(i_n integer) returns integer', 'two(i_n bigint) returns bigint')
      .replace('before delete', 'after delete')
    writeSql(tables.replace('primary key', 'primary key, note text'), changed)
    const step = readFileSync(await writeMigration('next', root), 'utf8')
    const [up = '', down = ''] = step.split('-- Down Migration')
    expect(up).toContain(
      '-- One.\ncreate or replace function pgq.one() returns integer language sql as $$ select 11 $$;',
    )
    expect(up).toContain('create or replace trigger stay after delete')
    expect(up).toContain('drop function pgq.two(int4);')
    expect(up).toContain('-- table pgq.queue changed in sql/: write the alter here')
    expect(down).toContain('select 1 $$;')
    expect(down).toContain('create or replace trigger stay before delete')
    expect(down).toContain('drop function pgq.two(int8);')
  })
})

describe.each(databases)('a second step on $name', ({ openEmpty }) => {
  it('upgrades a database with data to the catalog of sql/, and its Down section brings the earlier one back', async () => {
    release()
    await using db = await openEmpty()
    await install(db, { root })
    await db.query("insert into pgq.queue values ('kept')")
    const before = await fingerprint(db)

    const added = 'create or replace function pgq.three() returns integer language sql as $$ select 3 $$;\n'
    writeSql(tables, functions.replace('select 1 ', 'select 11 ') + added)
    await writeMigration('three', root)
    expect(await upgrade(db, { root, to: '0002_three' })).toMatchObject({ steps: ['0002_three'] })
    await using fresh = await openEmpty()
    await fresh.exec(await bundleSql(root))
    expect(compareFingerprints(await fingerprint(fresh), await fingerprint(db))).toEqual([])

    await expect(upgrade(db, { root, to: '0001_pgq' })).rejects.toMatchObject({ code: 'PQ036' })
    await downgrade(db, 1, { root })
    expect(compareFingerprints(before, await fingerprint(db))).toEqual([])
    expect(await db.query('select queue_name from pgq.queue')).toEqual([{ queue_name: 'kept' }])
  })
  it('cannot be taken back when it has no Down section', async () => {
    release()
    await using db = await openEmpty()
    writeFileSync(join(root, 'migrations', '0002_once.sql'), '-- skytools 4.0.1\n\n-- Up Migration\n\nselect 1;\n')
    expect(await install(db, { root })).toMatchObject({ to: '4.0.1', steps: ['0001_pgq', '0002_once'] })
    await expect(downgrade(db, 1, { root })).rejects.toMatchObject({ name: 'IrreversibleError', code: 'PQ037' })
  })
})
