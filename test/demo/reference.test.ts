import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { meanings } from '../../scripts/dev/reference-errors.ts'
import { functionDocs } from '../../scripts/dev/reference-sql.ts'
import { pages } from '../../scripts/docs.ts'
import { isErrorCode, SkytoolsError } from '../../src/errors.ts'
import { sqlFiles } from '../../src/schema/bundle.ts'
import { databases } from '../support/databases.ts'
import { root } from './run.ts'

async function codesOfSql(): Promise<Set<string>> {
  const texts = (await sqlFiles(root)).map((file) => readFileSync(join(root, 'sql', file), 'utf8'))
  return new Set(texts.flatMap((text) => [...text.matchAll(/\bPQ\d{3}\b/g)].map(([code]) => code)))
}

describe('the reference', () => {
  it('has every error code that sql/ knows, and each has a class of its own', async () => {
    const codes = await codesOfSql()
    expect(codes.size).toBeGreaterThan(10)
    for (const code of codes) expect(isErrorCode(code), code).toBe(true)
    const names = Object.keys(meanings).map((code) => isErrorCode(code) && new SkytoolsError(code, '').name)
    expect(new Set(names).size).toBe(Object.keys(meanings).length)
  })

  it('tells of each code up to PQ029 but the library’s own PQ013 which function raises it', async () => {
    const docs = await functionDocs(root)
    const raised = docs
      .flatMap(({ fields }) => fields.filter(([name]) => name === 'raises').map(([, text]) => text))
      .join()
    for (const code of Object.keys(meanings)) if (code < 'PQ013') expect(raised).toContain(code)
  })

  it('is what npm run docs would write', async () => {
    for (const { path, text } of await pages(root)) expect(readFileSync(join(root, path), 'utf8'), path).toBe(text)
  })

  it('links to nothing that is not there', async () => {
    const files = ['README.md', 'docs/tutorial.md', 'docs/operations.md', 'docs/engine.md', 'data/README.md']
    for (const file of files) {
      const text = readFileSync(join(root, file), 'utf8')
      for (const [, target = ''] of text.matchAll(/\]\((?!https?:)([^)#]+)/g)) {
        expect(existsSync(join(root, dirname(file), target)), `${file} links to ${target}`).toBe(true)
      }
    }
  })
})

describe.each(databases.slice(0, 1))('the reference and the catalog of $name', ({ open }) => {
  it('name the same public functions', async () => {
    await using db = await open()
    const found = await db.query<{ name: string }>(
      `select distinct pronamespace::regnamespace || '.' || proname as name from pg_proc
        where pronamespace::regnamespace::text ~ '^(pgq|pgq_[a-z]+|londiste|skytools)$' and proname !~ '^(_|(event|trigger|capture)_[0-9])'`,
    )
    const documented = new Set((await functionDocs(root)).map(({ name }) => name))
    expect([...documented].toSorted()).toEqual(found.map(({ name }) => name).toSorted())
  })
})
