import { describe, expect, it } from 'vitest'
import { compareFingerprints, fingerprint } from '../../../src/schema/fingerprint.ts'
import { databases } from '../../support/databases.ts'

describe.each(databases)('fingerprint on $name', ({ open }) => {
  it('is the same from migrations and from sql/', async () => {
    await using migrated = await open('migrations')
    await using direct = await open('sql')
    expect(compareFingerprints(await fingerprint(direct), await fingerprint(migrated))).toEqual([])
  })
  it('leaves out what was generated for queues', async () => {
    await using db = await open()
    const before = await fingerprint(db)
    await db.query(`select pgq.create_queue('one'), pgq.create_queue('a "second" one')`)
    expect(compareFingerprints(before, await fingerprint(db))).toEqual([])
  })
})

it('is the same on PGlite and every server', async () => {
  const prints = []
  for (const database of databases) {
    await using db = await database.open()
    prints.push(await fingerprint(db))
  }
  const [first = {}, ...others] = prints
  expect(Object.keys(first).length).toBeGreaterThan(100)
  for (const other of others) expect(compareFingerprints(first, other)).toEqual([])
})
