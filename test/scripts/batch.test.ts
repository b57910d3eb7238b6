import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { servers } from '../support/databases.ts'
import { skytools } from './run.ts'

describe.each(servers.slice(-1))('skytools batch on $name', ({ open }) => {
  it('upserts, updates and deletes from files, and a dry run changes nothing', async () => {
    await using db = await open()
    await db.exec('create table stock (item text primary key, n int, note text)')
    const folder = await mkdtemp(join(tmpdir(), 'skytools-batch-'))
    const file = async (name: string, text: string) => {
      await writeFile(join(folder, name), text)
      return join(folder, name)
    }
    const run = (args: readonly string[]) =>
      skytools(['batch', ...args, '--table', 'stock', '--json', '--database-url', db.url ?? ''])
    const counts = async (args: readonly string[]) => JSON.parse((await run(args)).stdout)
    const content = () => db.query('select array_agg(s::text order by item) as rows from stock s')
    try {
      const csv = await file('stock.csv', 'item,n,note\na,1,\n"b,""x",2,text\n')
      expect(await counts(['upsert', csv])).toMatchObject({ table: 'stock', rows: 2, inserted: 2, dryRun: false })
      const sold = await file('sold.ndjson', '{"item":"a","n":5}\n{"item":"c","n":1}\n')
      expect(await counts(['update', sold, '--set', 'n=t.n - s.n', '--dry-run'])).toMatchObject({
        updated: 1,
        missing: 1,
        dryRun: true,
      })
      expect(await content()).toEqual([{ rows: ['(a,1,)', '("b,""x",2,text)'] }])
      expect(await run(['update', sold, '--on-missing', 'error'])).toMatchObject({
        status: 1,
        stderr: expect.stringContaining('RowsMissingError'),
      })
      expect(await counts(['update', sold, '--set', 'n=t.n - s.n'])).toMatchObject({ updated: 1, missing: 1 })
      const bad = await file('bad.csv', 'item,n\na,1\nc,many\n')
      expect(await run(['upsert', bad])).toMatchObject({
        status: 1,
        stderr: expect.stringContaining('row 2, column n, value \\"many\\"'),
      })
      expect(await counts(['delete', await file('gone.csv', 'item\na\n')])).toMatchObject({ deleted: 1 })
      expect(await content()).toEqual([{ rows: ['("b,""x",2,text)'] }])
      expect(await run(['update', sold, '--set', 'n'])).toMatchObject({ status: 2 })
    } finally {
      await rm(folder, { recursive: true })
    }
  })
})
