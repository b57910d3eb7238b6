import { describe, expect, it } from 'vitest'
import { servers } from '../support/databases.ts'
import { skytools } from './run.ts'

describe.each(servers.slice(-1))('skytools capture on $name', ({ open }) => {
  it('adds, lists, finds stale, refreshes and removes', async () => {
    await using db = await open()
    const url = ['--database-url', db.url ?? '']
    await db.exec(`select pgq.create_queue('q'); create table t (id int primary key, a text, b text)`)
    expect(await skytools(['capture', 'list', ...url])).toMatchObject({ status: 0, stdout: 'no captured tables\n' })
    const flags = ['--format', 'urlencode', '--ignore', 'b', '--operations', 'insert,delete', '--event-type', 't.{op}']
    expect(await skytools(['capture', 'add', 't', 'q', ...flags, ...url])).toMatchObject({
      status: 0,
      stdout: 'captured: t into q\n',
    })
    await db.query(`insert into t values (1, 'x', 'y')`)
    expect(await db.query('select ev_type, ev_data from pgq.event_1')).toEqual([
      { ev_type: 't.insert', ev_data: 'id=1&a=x' },
    ])
    expect(await skytools(['check', ...url])).toMatchObject({ status: 0 })
    // With updates there are two functions, and check knows both.
    await db.exec('create table u (id int primary key)')
    expect(await skytools(['capture', 'add', 'u', 'q', ...url])).toMatchObject({ status: 0 })
    expect(await skytools(['check', ...url])).toMatchObject({ status: 0 })
    expect(await skytools(['capture', 'remove', 'u', 'q', ...url])).toMatchObject({ status: 0 })
    await db.query('alter table t add c int')
    expect(await skytools(['check', ...url])).toMatchObject({
      status: 1,
      stdout: expect.stringContaining('capture of public.t is stale'),
    })
    const listed = await skytools(['capture', 'list', '--json', ...url])
    expect(JSON.parse(listed.stdout)).toEqual([
      {
        table: 'public.t',
        queue: 'q',
        format: 'urlencode',
        operations: ['insert', 'delete'],
        level: 'statement',
        options: { format: 'urlencode', ignore: ['b'], operations: ['insert', 'delete'], event_type: 't.{op}' },
        stale: true,
      },
    ])
    expect(await skytools(['capture', 'refresh', ...url])).toMatchObject({ status: 0, stdout: 'refreshed: t\n' })
    expect(await skytools(['check', ...url])).toMatchObject({ status: 0 })
    expect(await skytools(['capture', 'remove', 't', 'q', ...url])).toMatchObject({
      status: 0,
      stdout: 'no longer captured: t into q\n',
    })
    const refused = await skytools(['capture', 'add', 't', 'none', '--json', ...url])
    expect(refused.status).toBe(1)
    expect(JSON.parse(refused.stderr)).toMatchObject({ error: { code: 'PQ001' } })
  })
})
