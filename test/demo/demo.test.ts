import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { consumerInfo, createQueue, insertEvent, queueInfo, registerConsumer } from '../../src/index.ts'
import { servers } from '../support/databases.ts'
import { cells, run } from './run.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'skytools-demo-'))
})
afterAll(() => rm(folder, { recursive: true }))

async function file(name: string, text: string): Promise<string> {
  const path = join(folder, name)
  await writeFile(path, text)
  return path
}

describe('npm start in this process', { timeout: 120_000 }, () => {
  it('replays 20,000 flights: all of them in, and out of each consumer once', async () => {
    const { code, stdout, stderr } = await run('demo.ts', [])
    expect(stderr).toBe('')
    expect(code).toBe(0)
    expect(stdout).toContain('pgq.capture() turns the rows of skytools_demo.flights')
    expect(cells(stdout, 'in').slice(1, 4)).toEqual(['20,000', '80 transactions', ''])
    expect(cells(stdout, 'out: delays')[1]).toBe('20,000')
    expect(cells(stdout, 'out: delays')[3]).toBe('1')
    expect(cells(stdout, 'out: counter')[1]).toBe('20,000')
    expect(cells(stdout, 'out: counter')[3]).toBe('0')
    expect(stdout).toMatch(/retried: event \d+ failed the first time, on purpose, and came back \d+\.\d s later/)
    expect(stdout).toContain('rotated: new events go to table 1 of the queue now')
    expect(cells(stdout, 'DFW')).toEqual(['DFW', '1,103', '24.4 %', '9.5 min'])
    expect(cells(stdout, 'skytools-demo')[1]).toBe('2')
    expect(stdout).toContain('nothing is wrong')
  })

  it('reads NDJSON from standard input and counts it by type', async () => {
    const input = '{"type":"order","id":1}\n\n{"type":"refund","id":2}\n{"id":3}\n{"type":"order"}'
    const { code, stdout } = await run('demo.ts', ['-'], { input })
    expect(code).toBe(0)
    expect(cells(stdout, 'in')[1]).toBe('4')
    expect(cells(stdout, 'order')).toEqual(['order', '2'])
    expect(cells(stdout, '(none)')).toEqual(['(none)', '1'])
  })
})

describe('bad input to npm start', { timeout: 120_000 }, () => {
  it('ends with exit code 1 and a line that says what is wrong, and where', async () => {
    const path = await file('short.csv', `a,b\n${'1,2\n'.repeat(5000)}3\n`)
    expect(await run('demo.ts', [path])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^skytools: .*short\.csv, line 5002: .*\n$/),
    })
    expect(await run('demo.ts', [join(folder, 'none.csv')])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^skytools: cannot read .*none\.csv: there is no such file\n$/),
    })
    expect(await run('demo.ts', ['--fast'])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('usage: npm start'),
    })
  })
})

describe.each(servers)('npm start on $name', { timeout: 120_000 }, ({ open }) => {
  it('runs twice in a row, and leaves other queues as they are', async () => {
    await using db = await open()
    await createQueue(db, 'other')
    await registerConsumer(db, 'other', 'mine')
    await insertEvent(db, 'other', { type: 't', data: 'd' })
    const state = async () => ({
      queue: (await queueInfo(db, 'other')).map(({ lastTick, currentTable, newEvents }) => ({
        lastTick,
        currentTable,
        newEvents,
      })),
      consumer: (await consumerInfo(db, 'other')).map(({ lastTick, batch }) => ({ lastTick, batch })),
    })
    const before = await state()
    for (const round of [1, 2]) {
      const { code, stdout, stderr } = await run('demo.ts', [], { url: db.url })
      expect(stderr, `round ${round}`).toBe('')
      expect(code).toBe(0)
      expect(cells(stdout, 'out: delays')[1]).toBe('20,000')
      expect(cells(stdout, 'out: counter')[1]).toBe('20,000')
    }
    expect(await state()).toEqual(before)
    const [sums] = await db.query(
      'select sum(flights)::bigint as flights, count(*) as airports from skytools_demo.delays',
    )
    expect(sums).toEqual({ flights: 20_000n, airports: 220n })
    const [left] = await db.query(`select count(*) as tables from pg_class where relnamespace = 'public'::regnamespace`)
    expect(left).toEqual({ tables: 0n })
  })

  it('refuses a schema of that name that it did not make', async () => {
    await using db = await open()
    await db.exec('create schema skytools_demo; create table skytools_demo.precious ()')
    const { code, stderr } = await run('demo.ts', [], { url: db.url })
    expect(stderr).toContain('a schema skytools_demo that the demo did not make')
    expect(code).toBe(1)
  })
})
