import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { prepare, queue, replay } from '../../scripts/demo/run.ts'
import { scenarioFor } from '../../scripts/demo/scenario.ts'
import { openSource } from '../../scripts/records.ts'
import { openDb } from '../../src/index.ts'
import { databases, servers } from '../support/databases.ts'
import { cells } from './run.ts'

async function read(text: string | readonly string[]) {
  const chunks = typeof text === 'string' ? [text] : text
  const source = await openSource(
    '-',
    Readable.from(
      chunks.map((chunk) => Buffer.from(chunk)),
      { objectMode: false },
    ),
  )
  const records = []
  for await (const record of source.records) records.push(record)
  return { format: source.format, records }
}

describe('records of the demo', () => {
  it('are rows of a CSV, with quotes, line breaks, semicolons or tabs, CRLF and a byte order mark', async () => {
    const records = [
      { fruit: 'apple', note: 'two\nlines, "quoted"' },
      { fruit: 'pear', note: '' },
    ]
    expect(await read('fruit,note\napple,"two\nlines, ""quoted"""\npear,\n')).toEqual({ format: 'CSV', records })
    expect((await read('\uFEFFfruit;note\r\napple;"two\nlines, ""quoted"""\r\npear;\r\n\r\n')).records).toEqual(records)
    expect((await read('fruit\tnote\na\tb,c')).records).toEqual([{ fruit: 'a', note: 'b,c' }])
  })

  it('are objects of an NDJSON, wherever the chunks of the stream end', async () => {
    const records = [{ a: 1 }, { a: 'ü' }]
    expect(await read(['\n {"a', '":1}\r\n\n', '{"a":"ü"}'])).toEqual({ format: 'NDJSON', records })
  })

  const bad: readonly [what: string, text: string, message: RegExp][] = [
    ['an empty file', '', /^standard input is empty$/],
    ['blank lines', '\n \n', /^standard input is empty$/],
    ['a header alone', 'a,b\n', /^standard input has a header line and no records below it$/],
    ['a CSV line that is too short', 'a,b\n1,2\n3\n', /^standard input, line 3: Invalid Record Length/],
    ['a quote that does not end', 'a,b\n1,2\n"3,4\n5,6\n', /^standard input, line \d: Quote Not Closed/],
    ['a column twice', 'a,a\n1,2\n', /^standard input, line 1: two columns are named "a"$/],
    ['a zero byte', 'a,b\n1,x\0y\n', /^standard input, line 2: a zero byte/],
    ['a broken NDJSON line', '{"a":1}\n{"a":\n', /^standard input, line 2: not JSON: /],
    ['a JSON array', '[{"a":1}]', /^standard input, line 1: each line must hold one JSON object/],
  ]
  it.each(bad)('name the line of %s', async (_what, text, message) => {
    await expect(read(text)).rejects.toThrow(message)
  })
})

describe.each(servers.slice(-1))('the demo on $name', ({ open }) => {
  it('rotates as soon as an old transaction of the cluster ends, after all events are through', {
    timeout: 120_000,
  }, async () => {
    await using test = await open()
    await using old = await test.connect()
    const source = await openSource('-', Readable.from([Buffer.from('{"id":1}\n')], { objectMode: false }))
    const records = []
    for await (const record of source.records) records.push(record)
    const scenario = scenarioFor(records[0] ?? {}, source)
    const db = await openDb(test.url ?? '')
    await old.exec('begin; select txid_current()')
    await prepare(db, scenario)
    const [figures] = await Promise.all([
      replay(db, scenario, Readable.from(records), 90),
      sleep(5000).then(() => old.exec('commit')),
    ])
    expect(figures).toMatchObject({ rotated: { from: 0, to: 1 }, notes: [] })
    await db.close()
  })
})

describe.each(databases)("a user's own records on $name", ({ open }) => {
  const cases: readonly [what: string, text: string, rows: readonly (readonly string[])[]][] = [
    [
      'CSV, counted by its first column',
      'fruit,n\napple,1\npear,2\napple,3\n',
      [
        ['apple', '2'],
        ['pear', '1'],
      ],
    ],
    [
      'NDJSON, counted by type',
      '{"type":"a"}\n{"type":"b"}\n{"x":1}\n{"type":"a"}',
      [
        ['a', '2'],
        ['(none)', '1'],
      ],
    ],
    ['a single record', '{"deep":{"a":1},"id":7}', [['7', '1']]],
  ]
  it.each(cases)('%s', { timeout: 180_000 }, async (_what, text, rows) => {
    await using test = await open()
    // Its parts run at the same time: on a server that takes a pool.
    const db = test.url ? await openDb(test.url) : test
    const source = await openSource('-', Readable.from([Buffer.from(text)], { objectMode: false }))
    const records = []
    for await (const record of source.records) records.push(record)
    const scenario = scenarioFor(records[0] ?? {}, source)
    await prepare(db, scenario)
    // Other tests of this server hold transactions open, over which a queue does not rotate.
    const figures = await replay(db, scenario, Readable.from(records), 90)
    expect(figures.in).toBe(records.length)
    expect(figures.consumers).toMatchObject([
      { events: records.length, retries: 1 },
      { events: records.length, retries: 0 },
    ])
    expect(figures.failed?.afterSeconds).toBeGreaterThanOrEqual(1)
    expect(figures.rotated).toEqual({ from: 0, to: 1 })
    const { drawn } = await scenario.result(db)
    for (const row of rows) expect(cells(drawn, row[0] ?? '')).toEqual(row)
    expect(await db.query('select 1 from pgq.queue where queue_name <> $1', [queue])).toEqual([])
    await db.close()
  })
})
