import { describe, expect, it } from 'vitest'
import type { Db } from '../../src/db/db.ts'
import { databases } from '../support/databases.ts'
import { one } from '../support/queues.ts'

interface Captured {
  type: string
  data: string
  extra1: string
  extra2: string | null
}

async function prepare(db: Db, ...statements: string[]): Promise<void> {
  await db.query(`select pgq.create_queue('q')`)
  await run(db, ...statements)
}

async function run(db: Db, ...statements: string[]): Promise<void> {
  for (const statement of statements) await db.query(statement)
}

/** The events that these statements make. */
async function events(db: Db, ...statements: string[]): Promise<Captured[]> {
  const { last } = await one<{ last: bigint }>(db, 'select coalesce(max(ev_id), 0) as last from pgq.event_1')
  await run(db, ...statements)
  return db.query<Captured & Record<string, unknown>>(
    `select ev_type as type, ev_data as data, ev_extra1 as extra1, ev_extra2 as extra2
       from pgq.event_1 where ev_id > $1 order by ev_id`,
    [last],
  )
}

async function short(db: Db, ...statements: string[]): Promise<string[]> {
  return (await events(db, ...statements)).map(({ type, data }) => `${type} ${data}`)
}

const table = 'create table t (id int primary key, a text, b numeric)'
const json = (op: string, name = 't', key = '"id"') => `{"op":"${op}","table":["public","${name}"],"pkey":[${key}]}`

describe.each(databases)('pgq.capture on $name', ({ open, kind, version = 17 }) => {
  it('writes an event for each row of a statement, in its order', async () => {
    await using db = await open()
    await prepare(db, table, `select pgq.capture('t', 'q')`)
    expect(
      await events(
        db,
        `insert into t select g, 'x' || g, g / 2.0 from generate_series(3, 1, -1) g`,
        `update t set a = 'y' where id = 2`,
        'delete from t where id = 3',
        'truncate t',
      ),
    ).toEqual([
      { type: json('INSERT'), data: '{"id":3,"a":"x3","b":"1.5000000000000000"}', extra1: 'public.t', extra2: null },
      {
        type: json('INSERT'),
        data: '{"id":2,"a":"x2","b":"1.00000000000000000000"}',
        extra1: 'public.t',
        extra2: null,
      },
      {
        type: json('INSERT'),
        data: '{"id":1,"a":"x1","b":"0.50000000000000000000"}',
        extra1: 'public.t',
        extra2: null,
      },
      { type: json('UPDATE'), data: '{"id":2,"a":"y","b":"1.00000000000000000000"}', extra1: 'public.t', extra2: null },
      { type: json('DELETE'), data: '{"id":3,"a":"x3","b":"1.5000000000000000"}', extra1: 'public.t', extra2: null },
      { type: json('TRUNCATE'), data: '{}', extra1: 'public.t', extra2: null },
    ])
  })

  it('encodes as urlencode and as sql', async () => {
    await using db = await open()
    await prepare(db, table, `select pgq.capture('t', 'q', '{"format": "urlencode"}')`)
    const changes = [
      `insert into t values (1, E'O''B & 100% õ\\\\', null)`,
      `update t set b = 2`,
      'delete from t',
      'truncate t',
    ]
    expect(await short(db, ...changes)).toEqual([
      'I:id id=1&a=O%27B+%26+100%25+%c3%b5%5c&b',
      'U:id id=1&a=O%27B+%26+100%25+%c3%b5%5c&b=2',
      'D:id id=1&a=O%27B+%26+100%25+%c3%b5%5c&b=2',
      'R ',
    ])
    await db.query(`select pgq.capture('t', 'q', '{"format": "sql"}')`)
    expect(await short(db, ...changes)).toEqual([
      `I (id,a,b) values ('1',E'O''B & 100% õ\\\\',null)`,
      `U b='2' where id='1'`,
      `D id='1'`,
      'R ',
    ])
  })

  it.each([
    [
      'json',
      [
        `${json('UPDATE')} {"id":2,"a":"x","b":null} {"id":1,"a":"x","b":null}`,
        `${json('UPDATE')} {"id":1,"a":"y","b":null} {"id":2,"a":"y","b":null}`,
      ],
    ],
    ['urlencode', ['U:id id=2&a=x&b id=1&a=x&b', 'U:id id=1&a=y&b id=2&a=y&b']],
    ['sql', [`U id='2' where id='1' null`, `U id='1' where id='2' null`]],
  ])('shows a key that changes as what it is, in %s', async (format, expected) => {
    await using db = await open()
    await prepare(
      db,
      'create table t (id int, a text, b numeric, primary key (id) deferrable initially deferred)',
      `insert into t values (1, 'x'), (2, 'y')`,
      `select pgq.capture('t', 'q', '{"format": "${format}"}')`,
    )
    const found = await events(db, 'update t set id = 3 - id')
    expect(found.map(({ type, data, extra2 }) => `${type} ${data} ${extra2}`)).toEqual(expected)
  })

  it.each([
    ['deferred', 'primary key (id) deferrable initially deferred', '{}'],
    ['of the options', 'unique (n)', '{"key": ["id"]}'],
  ])('knows which key has changed when rows share one: a key %s', async (_, constraint, options) => {
    await using db = await open()
    await prepare(
      db,
      `create table t (id int not null, n int, ${constraint})`,
      'insert into t values (1, 1), (2, 2), (3, 3)',
      `select pgq.capture('t', 'q', '${options}')`,
    )
    await db.exec('begin; update t set id = 1 where n = 2')
    const found = await events(db, 'update t set id = case n when 1 then 1 when 2 then 9 end where n < 3')
    await db.exec('commit')
    expect(found.map(({ data, extra2 }) => `${data} ${extra2}`)).toEqual([
      '{"id":1,"n":1} null',
      '{"id":9,"n":2} {"id":1,"n":2}',
    ])
  })

  it('encodes a value as urlencode whatever stands beside it, in a table of any width', async () => {
    await using db = await open()
    await prepare(db)
    const values = ['x', 'a b', '1+1=2', 'é', '', '50%', 'a&b', '"', 'x, y/z: w', null, "it's @ 'x'\n"]
    const names = ['n', 'a b', 'c%', 'ü', 'D', 'e&f=']
    const encode = (text: string) =>
      [...Buffer.from(text)]
        .map((byte) => {
          const char = String.fromCharCode(byte)
          if (/[0-9A-Za-z_.-]/.test(char)) return char
          return char === ' ' ? '+' : `%${byte.toString(16).padStart(2, '0')}`
        })
        .join('')
    for (const width of [1, 3, 130]) {
      const columns = Array.from({ length: width }, (_, n) => `${names[n % names.length]}${n}`)
      const rows = Array.from({ length: 22 }, (_, r) =>
        columns.map((_, n) => values[(r * (n % 3 ? 1 : 0) + n) % values.length]),
      )
      const list = columns.map((name) => `"${name}" text`).join(', ')
      await db.exec(`drop table if exists t cascade; create table t (id int primary key, ${list})`)
      await db.query(`select pgq.capture('t', 'q', '{"format": "urlencode"}')`)
      const places = columns.map((_, n) => `$${n + 2}`).join(', ')
      const found = await one<{ last: bigint }>(db, 'select coalesce(max(ev_id), 0) as last from pgq.event_1')
      for (const [n, row] of rows.entries()) await db.query(`insert into t values ($1, ${places})`, [n, ...row])
      const stored = await db.query<{ data: string }>(
        'select ev_data as data from pgq.event_1 where ev_id > $1 order by ev_id',
        [found.last],
      )
      expect(stored.map(({ data }) => data)).toEqual(
        rows.map((row, n) =>
          [
            `id=${n}`,
            ...row.map((value, k) => encode(columns[k] ?? '') + (value == null ? '' : `=${encode(value)}`)),
          ].join('&'),
        ),
      )
    }
  })

  it('pairs old and new rows of a large statement, and keeps their order', async () => {
    await using db = await open()
    await prepare(
      db,
      table,
      `insert into t select g, 'x', 0 from generate_series(1, 20000) g`,
      `select pgq.capture('t', 'q', '{"old_row": true}')`,
    )
    await run(db, `update t set b = id where id = 1`, 'update t set b = id')
    expect(
      await one(
        db,
        `select count(*)::int as n, count(*) filter (where (ev_data::json ->> 'id') = (ev_extra2::json ->> 'id'))::int as paired
           from pgq.event_1`,
      ),
    ).toEqual({ n: 20001, paired: 20001 })
  })

  it('stores nothing for a statement that changes no row', async () => {
    await using db = await open()
    await prepare(db, table, `select pgq.capture('t', 'q')`)
    expect(await events(db, 'update t set a = null', 'delete from t', 'insert into t select 1 where false')).toEqual([])
  })

  it('stores an event for an update that changes nothing, and none when only columns left out change', async () => {
    await using db = await open()
    await prepare(
      db,
      table,
      `insert into t values (1, 'x', 2)`,
      `select pgq.capture('t', 'q', '{"format": "sql", "ignore": ["b"]}')`,
    )
    expect(await short(db, 'update t set b = 3', 'update t set b = 3', `update t set a = 'y', b = 4`)).toEqual([
      `U id='1' where id='1'`,
      `U a='y' where id='1'`,
    ])
    await db.query(`select pgq.capture('t', 'q', '{"format": "sql", "columns": ["id", "b"]}')`)
    expect(await short(db, `update t set a = 'z'`, 'update t set b = 9')).toEqual([`U b='9' where id='1'`])
  })

  it('takes a condition, expressions, an event type, operations', async () => {
    await using db = await open()
    await prepare(
      db,
      table,
      `select pgq.capture('t', 'q', '{"format": "urlencode", "when": "b > 1", "event_type": "{table}.{op}",
         "extra1": "upper(a)", "extra2": "old.b + 1", "operations": ["update", "delete"]}')`,
      `insert into t values (1, 'x', 1), (2, 'y', 1)`,
    )
    await db.query(`select pgq.capture('t', 'q', '{"format": "urlencode", "when": "b > 1", "event_type": "{table}.{op}",
         "extra1": "upper(a)", "extra2": "old.b + 1", "operations": ["update"]}')`)
    expect(await events(db, 'update t set b = id', 'insert into t values (3)', 'delete from t')).toEqual([
      { type: 'public.t.update', data: 'id=2&a=y&b=2', extra1: 'Y', extra2: '2' },
    ])
  })

  it('captures what cascades, upserts, data-modifying CTEs and nested triggers do', async () => {
    await using db = await open()
    await prepare(
      db,
      table,
      'create table child (id int primary key, t int references t on update cascade on delete cascade)',
      `insert into t values (1), (2)`,
      `insert into child values (10, 1), (11, 1), (12, 2)`,
      `select pgq.capture('t', 'q', '{"format": "sql"}')`,
      `select pgq.capture('child', 'q', '{"format": "sql"}')`,
    )
    expect((await short(db, 'update t set id = 5 where id = 1', 'delete from t where id = 5')).sort()).toEqual([
      `D id='10'`,
      `D id='11'`,
      `D id='5'`,
      `U id='5' where id='1'`,
      `U t='5' where id='10'`,
      `U t='5' where id='11'`,
    ])
    expect(
      await short(db, `insert into t values (2, 'u'), (7, 'n') on conflict (id) do update set a = excluded.a`),
    ).toEqual(expect.arrayContaining([`U a='u' where id='2'`, `I (id,a,b) values ('7','n',null)`]))
    expect(
      (
        await short(db, `with d as (delete from t where id = 7 returning id) insert into t select id + 1 from d`)
      ).sort(),
    ).toEqual([`D id='7'`, `I (id,a,b) values ('8',null,null)`])
    await run(
      db,
      `create function again() returns trigger language plpgsql as $$
       begin
         if pg_trigger_depth() = 1 then update t set b = coalesce(b, 0) + 1 where id = 8; end if;
         return null;
       end $$`,
      'create trigger again after update on t for each statement execute function again()',
    )
    expect((await short(db, `update t set a = 'z' where id = 8`)).sort()).toEqual([
      `U a='z' where id='8'`,
      `U b='1' where id='8'`,
    ])
    await run(
      db,
      'drop trigger again on t',
      'create constraint trigger later after update on t deferrable initially deferred for each row when (new.b = 1) execute function again()',
    )
    expect(await short(db, `update t set a = 'w' where id = 8`)).toEqual([
      `U a='w' where id='8'`,
      `U b='2' where id='8'`,
    ])
    expect(await short(db, 'truncate t cascade')).toEqual(['R ', 'R '])
  })

  it.runIf(version >= 15)('captures what MERGE does', async () => {
    await using db = await open()
    await prepare(db, table, 'insert into t values (1), (2)', `select pgq.capture('t', 'q', '{"format": "sql"}')`)
    const merge = `merge into t using (values (1, 'm'), (2, null), (3, 'n')) s (id, a) on t.id = s.id
      when matched and s.a is null then delete when matched then update set a = s.a
      when not matched then insert (id, a) values (s.id, s.a)`
    expect((await short(db, merge)).sort()).toEqual([
      `D id='2'`,
      `I (id,a,b) values ('3','n',null)`,
      `U a='m' where id='1'`,
    ])
  })

  it('captures every partition once, under the name of the root, whichever is written to, new ones too', async () => {
    await using db = await open()
    await prepare(
      db,
      'create table t (id int primary key, a text) partition by range (id)',
      'create table t1 partition of t for values from (0) to (10)',
      `select pgq.capture('t', 'q', '{"format": "sql"}')`,
      'create table t2 (a text, gone int, id int not null)',
      'alter table t2 drop column gone',
      'alter table t attach partition t2 for values from (10) to (20)',
    )
    const found = await events(
      db,
      `insert into t values (1, 'x'), (11, 'y')`,
      `insert into t2 values ('z', 12)`,
      `update t set id = 13 where id = 1`,
      'delete from t1',
      'delete from t2 where id = 12',
    )
    expect(found.map(({ extra1 }) => extra1)).toEqual(found.map(() => 'public.t'))
    expect(found.map(({ type, data }) => `${type} ${data}`)).toEqual([
      `I (id,a) values ('1','x')`,
      `I (id,a) values ('11','y')`,
      `I (id,a) values ('12','z')`,
      `D id='1'`,
      `I (id,a) values ('13','x')`,
      `D id='12'`,
    ])
  })

  it('captures children of a table under its name', async () => {
    await using db = await open()
    await prepare(
      db,
      table,
      'create table kid (more int, primary key (id)) inherits (t)',
      `select pgq.capture('t', 'q', '{"format": "urlencode"}')`,
    )
    expect(await short(db, `insert into kid values (1, 'k', null, 5)`, `update t set a = 'l'`)).toEqual([
      'I:id id=1&a=k&b',
      'U:id id=1&a=l&b',
    ])
    await db.query('create table late () inherits (t)')
    expect(await db.query('select refresh_capture::text as t from pgq.refresh_capture()')).toEqual([{ t: 't' }])
    expect(await short(db, 'insert into late values (2)')).toEqual(['I:id id=2&a&b'])
  })

  it.each([
    ['an added column', 'alter table t add c int default 7', `I (id,a,b,c) values ('1','x',null,'7')`],
    ['a dropped column', 'alter table t drop column b', `I (id,a) values ('1','x')`],
    ['a renamed column', 'alter table t rename a to "A b"', `I (id,"A b",b) values ('1','x',null)`],
    [
      'a changed type',
      `alter table t alter id type text, add c text default E'\\\\'`,
      `I (id,a,b,c) values ('1','x',null,E'\\\\')`,
    ],
  ])('follows %s at once, and is stale until refreshed', async (_name, change, expected) => {
    await using db = await open()
    await prepare(db, table, `select pgq.capture('t', 'q', '{"format": "sql"}')`)
    await run(db, `insert into t values (1, 'x')`, 'delete from t', change)
    const stale = async () => (await one<{ stale: boolean }>(db, 'select stale from pgq.captured_table')).stale
    expect(await short(db, `insert into t values (1, 'x')`, 'delete from t')).toEqual([expected, `D id='1'`])
    expect(await stale()).toBe(true)
    expect(await db.query('select * from pgq.refresh_capture()')).toHaveLength(1)
    expect(await stale()).toBe(false)
    expect(await db.query('select * from pgq.refresh_capture()')).toEqual([])
    expect(await short(db, `insert into t values (1, 'x')`, 'delete from t')).toEqual([expected, `D id='1'`])
  })

  it('follows a renamed table, a changed schema and a changed key at once', async () => {
    await using db = await open()
    await prepare(db, table, `select pgq.capture('t', 'q')`, `insert into t values (0)`)
    await db.query('alter table t rename to "T t"')
    expect((await events(db, 'insert into "T t" values (1)'))[0]).toMatchObject({
      type: json('INSERT', 'T t'),
      extra1: 'public.T t',
    })
    await run(db, 'create schema s', 'alter table "T t" set schema s')
    expect((await events(db, 'insert into s."T t" values (2)'))[0]?.extra1).toBe('s.T t')
    await db.query('alter schema s rename to s2')
    expect((await events(db, 'insert into s2."T t" values (3)'))[0]?.extra1).toBe('s2.T t')
    await run(
      db,
      'alter table s2."T t" rename to t',
      `update s2.t set a = id`,
      'alter table s2.t drop constraint t_pkey, add primary key (a)',
    )
    expect((await events(db, `update s2.t set b = 1 where a = '1'`))[0]?.type).toBe(
      '{"op":"UPDATE","table":["s2","t"],"pkey":["a"]}',
    )
    await db.query('alter table s2.t drop constraint t_pkey')
    expect((await events(db, `update s2.t set b = 2 where a = '1'`))[0]).toMatchObject({
      type: '{"op":"UPDATE","table":["s2","t"],"pkey":[]}',
      extra2: '{"id":1,"a":"1","b":"1"}',
    })
  })

  it('fails clearly when a column that its options name is gone', async () => {
    await using db = await open()
    await prepare(db, table, `select pgq.capture('t', 'q', '{"ignore": ["b"]}')`, 'alter table t rename b to c')
    await expect(db.query('insert into t values (1)')).rejects.toMatchObject({
      code: 'PQ014',
      hint: expect.stringContaining('pgq.capture('),
    })
  })

  it('knows rows of a table without a key by all their columns', async () => {
    await using db = await open()
    await prepare(db, 'create table n (a int, d json, p point)', `select pgq.capture('n', 'q', '{"format": "sql"}')`)
    expect(
      await short(db, `insert into n values (null, '{"a": 1}', '(1,2)')`, `update n set a = 2`, 'delete from n'),
    ).toEqual([
      `I (a,d,p) values (null,'{"a": 1}','(1,2)')`,
      `U a='2' where a is null and d::text='{"a": 1}' and p::text='(1,2)'`,
      `D a='2' and d::text='{"a": 1}' and p::text='(1,2)'`,
    ])
  })

  it('ends with uncapture, with the table, and with its queue dropped by force', async () => {
    await using db = await open()
    await prepare(db, table, 'create table u (id int)', `select pgq.capture('t', 'q')`, `select pgq.capture('u', 'q')`)
    expect(await one(db, `select pgq.uncapture('t', 'q') as n`)).toEqual({ n: 1 })
    expect(await one(db, `select pgq.uncapture('t', 'q') as n`)).toEqual({ n: 0 })
    expect(await events(db, 'insert into t values (1)')).toEqual([])
    await expect(db.query(`select pgq.drop_queue('q')`)).rejects.toMatchObject({ code: 'PQ015' })
    await run(db, `select pgq.capture('t', 'q')`, 'drop table u')
    expect(await db.query('select table_name from pgq.captured_table')).toEqual([{ table_name: 'public.t' }])
    await run(db, `select pgq.drop_queue('q', true)`, 'insert into t values (2)')
    expect(await db.query('select * from pgq.captured')).toEqual([])
  })

  it.each([
    [`select pgq.capture('t', 'none')`, 'PQ001'],
    [`select pgq.capture('t', 'q', '{"colour": 1}')`, 'PQ043'],
    [`select pgq.capture('t', 'q', '{"format": "xml"}')`, 'PQ043'],
    [`select pgq.capture('t', 'q', '{"columns": ["a"]}')`, 'PQ043'],
    [`select pgq.capture('t', 'q', '{"columns": ["z"]}')`, 'PQ014'],
    [`select pgq.capture('pgq.queue', 'q')`, 'PQ044'],
    ['select pgq.capture(null, null)', 'PQ008'],
  ])('refuses %s', async (statement, code) => {
    await using db = await open()
    await prepare(db, table)
    await expect(db.query(statement)).rejects.toMatchObject({ code, hint: expect.stringMatching(/./) })
  })

  it('keeps to the limits of its queue, and follows its rotation', async () => {
    await using db = await open()
    await prepare(
      db,
      table,
      `select pgq.capture('t', 'q')`,
      'insert into t values (1)',
      `update pgq.queue set queue_cur_table = 1`,
      'insert into t values (2)',
    )
    expect(await db.query('select ev_id::int as id from pgq.event_1_1')).toEqual([{ id: 2 }])
    await db.query('update pgq.queue set queue_per_tx_limit = 1')
    await expect(db.query('insert into t values (3), (4)')).rejects.toMatchObject({ code: 'PQ007' })
    await db.query('update pgq.queue set queue_per_tx_limit = null, queue_disable_insert = true')
    await expect(db.query('insert into t values (3)')).rejects.toMatchObject({ code: 'PQ006' })
  })

  it.runIf(kind === 'server')(
    'asks no right on the queue of a writer, and gives expressions none but his',
    async () => {
      await using db = await open()
      await prepare(db, table, `select pgq.capture('t', 'q')`)
      const { role } = await one<{ role: string }>(db, `select 'capture_' || pg_backend_pid() as role`)
      await run(db, `create role ${role}`, `grant all on t to ${role}`, `set role ${role}`)
      try {
        await db.query('insert into t values (1)')
        await expect(db.query(`select pgq.capture('t', 'q')`)).rejects.toMatchObject({ code: '42501' })
        await run(db, 'reset role', `select pgq.capture('t', 'q', '{"extra3": "current_user"}')`, `set role ${role}`)
        await expect(db.query('insert into t values (2)')).rejects.toMatchObject({ code: '42501' })
        await run(
          db,
          'reset role',
          `grant pgq_writer to ${role}`,
          `set role ${role}`,
          'insert into t values (3)',
          'reset role',
        )
        expect(await db.query('select ev_extra3 as who from pgq.event_1 order by ev_id')).toEqual([
          { who: null },
          { who: role },
        ])
      } finally {
        await run(db, 'reset role', `drop owned by ${role}`, `drop role ${role}`)
      }
    },
  )

  it.runIf(kind === 'server')(
    'is made, refreshed and ended by a pgq_admin who owns the table, and no more than that',
    async () => {
      await using db = await open()
      await prepare(db)
      const { role } = await one<{ role: string }>(db, `select 'capture_' || pg_backend_pid() as role`)
      await run(
        db,
        `create role ${role}`,
        `grant pgq_admin to ${role}`,
        `create schema app authorization ${role}`,
        `set role ${role}`,
      )
      try {
        for (const level of ['statement', 'row']) {
          await run(
            db,
            'create table app.t (id int primary key)',
            `select pgq.capture('app.t', 'q', '{"level": "${level}"}')`,
          )
          await run(db, 'insert into app.t values (1)', 'update app.t set id = 2', 'alter table app.t add a text')
          expect(await db.query('select pgq.refresh_capture()::text as name')).toEqual([{ name: 'app.t' }])
          await run(db, `update app.t set a = 'a'`, `select pgq.uncapture('app.t', 'q')`, 'drop table app.t')
        }
        const { count } = await one<{ count: bigint }>(db, 'select count(*) as count from pgq.event_1')
        expect(count).toBe(6n)
      } finally {
        await run(db, 'reset role', `drop owned by ${role}`, `drop role ${role}`)
      }
    },
  )
})
