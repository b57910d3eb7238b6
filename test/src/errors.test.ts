import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { isErrorCode, mapErrors, SkytoolsError, toSkytoolsError } from '../../src/errors.ts'
import { bundleSql, packageRoot } from '../../src/schema/bundle.ts'
import { databases } from '../support/databases.ts'

describe('errors', () => {
  it('have a name for every SQLSTATE that the SQL raises', async () => {
    const codes = new Set((await bundleSql()).match(/PQ\d{3}/g))
    expect(codes.size).toBeGreaterThan(10)
    expect([...codes].filter((code) => !isErrorCode(code))).toEqual([])
  })
  it('have names of which none is given twice', () => {
    const text = readFileSync(join(packageRoot(), 'src', 'errors.ts'), 'utf8')
    const names = [...text.matchAll(/^ {2}PQ\d{3}: '(\w+)'/gm)].map(([, name]) => name)
    expect(new Set(names).size).toBe(names.length)
    expect(names.every((name) => name?.endsWith('Error'))).toBe(true)
  })
  it('leave what is not ours as it is', () => {
    const other = Object.assign(new Error('other'), { code: '22012' })
    expect(toSkytoolsError(other)).toBe(other)
    expect(toSkytoolsError('text')).toBe('text')
  })
})

describe.each(databases)('an error of the SQL on $name', ({ open }) => {
  it('is told apart by name and code, and keeps its hint and the error of the driver', async () => {
    await using db = await open()
    const error = await mapErrors(() => db.query("select pgq.next_batch('nope', 'nobody')")).catch((caught) => caught)
    expect(error).toBeInstanceOf(SkytoolsError)
    expect(error).toMatchObject({ code: expect.stringMatching(/^PQ00[12]$/), cause: expect.any(Error) })
    expect(error.name).toBe(error.code === 'PQ001' ? 'QueueNotFoundError' : 'NotSubscribedError')
    expect(error.hint).toBe(error.cause.hint)
  })
})
