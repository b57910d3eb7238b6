import { describe, expect, it } from 'vitest'
import type { Db } from '../../src/db/db.ts'
import { databases, servers } from '../support/databases.ts'

const fields = 'ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4'

async function setup(db: Db, sql: string) {
  await db.exec(`set timezone = 'UTC'; select pgq.create_queue('q'); create schema app; ${sql}`)
}

/** Type, data and the extra fields of the events logged so far, without trailing nulls. */
async function logged(db: Db): Promise<(string | null)[][]> {
  const rows = await db.query<{ e: (string | null)[] }>(
    `select array[${fields}] as e from pgq.event_template order by ev_id`,
  )
  await db.exec('truncate pgq.event_1_0')
  return rows.map(({ e }) => e.slice(0, e.findLastIndex((value) => value !== null) + 1))
}

const account = `
  create table app.acct (id int4 primary key, "Full Name" text, amount numeric(10,2), ok bool, born date, ts timestamp,
    tz timestamptz, tags text[], doc jsonb, raw bytea, n8 int8, f8 float8, ip inet, code char(5))`
const row = String.raw`(1, E'O''Brien & "co" 100%\\x\n~*_.-õ', 10.50, true, '2020-02-29', '2020-01-02 03:04:05.6',
  '2020-01-02 03:04:05+00', '{a,"b c"}', '{"k": 1}', '\xdeadbeef', 9007199254740993, 1.5, '10.0.0.1', 'ab')`

describe.each(databases)('trigger functions on $name', ({ open }) => {
  it('log rows of all types as JSON, urlencoded and as SQL', async () => {
    await using db = await open()
    await setup(db, account)
    const data: Record<string, string> = {
      jsontriga: String.raw`{"id":1,"Full Name":"O'Brien & \"co\" 100%\\x\n~*_.-õ","amount":"10.50","ok":true,"born":"2020-02-29","ts":"2020-01-02T03:04:05.6","tz":"2020-01-02T03:04:05+00:00","tags":"{a,\"b c\"}","doc":"{\"k\": 1}","raw":"\\xdeadbeef","n8":9007199254740993,"f8":"1.5","ip":"10.0.0.1","code":"ab   "}`,
      logutriga:
        'id=1&Full+Name=O%27Brien+%26+%22co%22+100%25%5cx%0a%7e%2a_.-%c3%b5&amount=10.50&ok=t&born=2020-02-29&ts=2020-01-02+03%3a04%3a05.6&tz=2020-01-02+03%3a04%3a05%2b00&tags=%7ba%2c%22b+c%22%7d&doc=%7b%22k%22%3a+1%7d&raw=%5cxdeadbeef&n8=9007199254740993&f8=1.5&ip=10.0.0.1&code=ab+++',
      sqltriga:
        String.raw`(id,"Full Name",amount,ok,born,ts,tz,tags,doc,raw,n8,f8,ip,code) values ('1',E'O''Brien & "co" 100%\\x~~_.-õ','10.50','t','2020-02-29','2020-01-02 03:04:05.6','2020-01-02 03:04:05+00','{a,"b c"}','{"k": 1}',E'\\xdeadbeef','9007199254740993','1.5','10.0.0.1','ab   ')`.replace(
          '~~',
          '\n~*',
        ),
    }
    const type: Record<string, string> = {
      jsontriga: '{"op":"INSERT","table":["app","acct"],"pkey":["id"]}',
      logutriga: 'I:id',
      sqltriga: 'I',
    }
    for (const name of Object.keys(data)) {
      await db.exec(`truncate app.acct; create or replace trigger t after insert on app.acct
        for each row execute function pgq.${name}('q'); insert into app.acct values ${row}`)
      expect(await logged(db)).toEqual([[type[name], data[name], 'app.acct']])
    }
  })

  it('log an UPDATE whole, or what changed as SQL, a DELETE with the old row or its key, a TRUNCATE without data', async () => {
    await using db = await open()
    await setup(db, 'create table app.t (b text, a int, c text, primary key (a))')
    const expected: Record<string, (string | null)[][]> = {
      jsontriga: [
        [
          '{"op":"UPDATE","table":["app","t"],"pkey":["a"]}',
          '{"b":"y z","a":1,"c":null}',
          'app.t',
          '{"b":"x","a":1,"c":null}',
        ],
        [
          '{"op":"UPDATE","table":["app","t"],"pkey":["a"]}',
          '{"b":"y z","a":1,"c":null}',
          'app.t',
          '{"b":"y z","a":1,"c":null}',
        ],
        ['{"op":"DELETE","table":["app","t"],"pkey":["a"]}', '{"b":"y z","a":1,"c":null}', 'app.t'],
        ['{"op":"TRUNCATE","table":["app","t"],"pkey":["a"]}', '{}', 'app.t'],
      ],
      logutriga: [
        ['U:a', 'b=y+z&a=1&c', 'app.t', 'b=x&a=1&c'],
        ['U:a', 'b=y+z&a=1&c', 'app.t', 'b=y+z&a=1&c'],
        ['D:a', 'b=y+z&a=1&c', 'app.t'],
        ['R', '', 'app.t'],
      ],
      sqltriga: [
        ['U', `b='y z' where a='1'`, 'app.t', 'b=x&a=1&c'],
        ['U', `a='1' where a='1'`, 'app.t', 'b=y+z&a=1&c'],
        ['D', `a='1'`, 'app.t'],
        ['R', '', 'app.t'],
      ],
    }
    for (const [name, events] of Object.entries(expected)) {
      await db.exec(`insert into app.t values ('x', 1);
        create trigger t after update or delete on app.t for each row execute function pgq.${name}('q', 'backup');
        create trigger r after truncate on app.t for each statement execute function pgq.${name}('q');
        update app.t set b = 'y z'; update app.t set b = b; delete from app.t; truncate app.t;
        drop trigger t on app.t; drop trigger r on app.t`)
      expect(await logged(db), name).toEqual(events)
    }
  })

  it('leave out ignored and magic columns, and take fields from expressions', async () => {
    await using db = await open()
    await setup(
      db,
      `create table app.t (id int primary key, "Od""d.n" text, secret text, _pgq_ev_extra3 int);
       create trigger t after insert or update on app.t for each row
       execute function pgq.logutriga('q', 'ignore=secret', 'ev_extra1=id + 1, 7', 'ev_extra2=''id '' || t.x from (select secret as x) t', 'when=id > 1')`,
    )
    await db.exec(`insert into app.t values (1, 'no', 'no', 1), (2, 'a', 's', 5)`)
    expect(await logged(db)).toEqual([['I:id', 'id=2&Od%22d.n=a', '3', 'id s', '5']])
    await db.exec(`update app.t set secret = 'new'`)
    expect(await logged(db)).toEqual([])
    await db.exec(`update app.t set secret = 'newer', "Od""d.n" = null where id = 2`)
    expect(await logged(db)).toEqual([['U:id', 'id=2&Od%22d.n', '3', 'id newer', '5']])
  })

  it('with SKIP a BEFORE trigger logs the row and keeps it out of the table', async () => {
    await using db = await open()
    await setup(
      db,
      `create table app.t (a int primary key);
       create trigger t before insert on app.t for each row execute function pgq.jsontriga('q', 'SKIP'); insert into app.t values (1)`,
    )
    expect(await logged(db)).toHaveLength(1)
    expect(await db.query('select from app.t')).toEqual([])
  })

  it('an expression reads tables as they were before the statement', async () => {
    await using db = await open()
    await setup(
      db,
      `create table app.t (a int primary key); insert into app.t values (1);
       create trigger t after insert on app.t for each row execute function pgq.sqltriga('q', 'ev_extra2=count(*) from app.t')`,
    )
    await db.exec('insert into app.t values (2), (3)')
    expect((await logged(db)).map((event) => event[3])).toEqual(['1', '1'])
  })

  it('an empty key is enough for an INSERT, and SKIP is refused in an AFTER TRUNCATE trigger', async () => {
    await using db = await open()
    await setup(
      db,
      `create table app.t (a int primary key); create trigger t after insert on app.t for each row execute function pgq.logutriga('q', 'pkey=');
       insert into app.t values (1); create trigger r after truncate on app.t execute function pgq.logutriga('q', 'SKIP')`,
    )
    expect(await logged(db)).toEqual([['I:', 'a=1', 'app.t']])
    await expect(db.query('truncate app.t')).rejects.toMatchObject({ code: 'PQ016' })
  })

  it('take what is odd as PgQ takes it', async () => {
    await using db = await open()
    await setup(db, '')
    const plain = 'create table app.t (id int primary key, a text, b int)'
    const cases: [string, string, string, (string | null)[][]][] = [
      [
        plain,
        `jsontriga('q', 'pkey=')`,
        'insert into app.t values (1)',
        [['{"op":"INSERT","table":["app","t"],"pkey":[""]}', '{"id":1,"a":null,"b":null}', 'app.t']],
      ],
      [
        plain,
        `logutriga('q', 'ev_extra3=id', 'ev_extra3=b', 'ev_type=')`,
        'insert into app.t values (1, null, 2)',
        [[null, 'id=1&a&b=2', 'app.t', null, '1']],
      ],
      [
        'create table app.t (a int, b int, c int, primary key (c) include (a))',
        `logutriga('q')`,
        'insert into app.t values (1, 2, 3); update app.t set b = 0',
        [
          ['I:c,a', 'a=1&b=2&c=3', 'app.t'],
          ['U:c,a', 'a=1&b=0&c=3', 'app.t'],
        ],
      ],
      [
        'create table app.t (id int primary key, a text, _pgq_ev_extra3 int)',
        `logutriga('q', 'ignore=a')`,
        'insert into app.t values (1, 2, 3); update app.t set _pgq_ev_extra3 = 4; update app.t set id = id',
        [
          ['I:id', 'id=1', 'app.t', null, '3'],
          ['U:id', 'id=1', 'app.t', null, '4'],
        ],
      ],
      [
        'create table app.t (id int, _pgq_ev_extra3 int primary key)',
        `sqltriga('q')`,
        'insert into app.t values (1, 2); update app.t set id = 3; delete from app.t',
        [
          ['I', "(id) values ('1')", 'app.t', null, '2'],
          ['U', "id='3' where ", 'app.t', null, '2'],
          ['D', '', 'app.t', null, '2'],
        ],
      ],
      [
        plain,
        `logutriga('q')`,
        `insert into app.t values (1, e'a@b.c\t"{''}"\n\u00e9 %2b')`,
        [['I:id', 'id=1&a=a%40b.c%09%22%7b%27%7d%22%0a%c3%a9+%252b&b', 'app.t']],
      ],
      [
        plain,
        `sqltriga('q', 'ignore=id,a,b', 'when=true', 'when=false')`,
        'insert into app.t values (1); update app.t set id = id',
        [
          ['I', '() values ()', 'app.t'],
          ['U', "id='1' where id='1'", 'app.t'],
        ],
      ],
      [
        `create table app.t (id int primary key, ${Array.from({ length: 120 }, (_, n) => `c${n} text collate "${n % 2 ? 'C' : 'POSIX'}"`).join()})`,
        `sqltriga('q')`,
        `set standard_conforming_strings = off; set escape_string_warning = off; insert into app.t values (1);
         update app.t set c0 = e'\\\\', c119 = 'x'; reset standard_conforming_strings`,
        [
          [
            'I',
            `(id,${Array.from({ length: 120 }, (_, n) => `c${n}`)}) values ('1',${Array(120).fill('null')})`,
            'app.t',
          ],
          ['U', String.raw`c0=E'\\',c119='x' where id='1'`, 'app.t'],
        ],
      ],
    ]
    for (const [table, call, statements, events] of cases) {
      await db.exec(`drop table if exists app.t; ${table};
        create trigger t after insert or update or delete on app.t for each row execute function pgq.${call}; ${statements}`)
      expect(await logged(db), `${call} on ${table}`).toEqual(events)
    }
  })

  it("go on with a queue that was dropped and created again, and with none that has their queue's name no more", async () => {
    await using db = await open()
    await setup(
      db,
      `create table app.t (a int primary key);
       create trigger t after insert on app.t for each row execute function pgq.logutriga('q'); insert into app.t values (1)`,
    )
    await db.exec(`select pgq.drop_queue('q')`)
    await expect(db.query('insert into app.t values (2)')).rejects.toMatchObject({ code: 'PQ001' })
    await db.exec(`select pgq.create_queue('q'); insert into app.t values (3)`)
    expect(await db.query('select ev_data from pgq.event_2')).toEqual([{ ev_data: 'a=3' }])
    await db.exec(`update pgq.queue set queue_name = 'p'`)
    await expect(db.query('insert into app.t values (4)')).rejects.toMatchObject({ code: 'PQ001' })
    await db.exec(`select pgq.create_queue('q'); insert into app.t values (5)`)
    expect(await db.query('select ev_data from pgq.event_3')).toEqual([{ ev_data: 'a=5' }])
  })

  it('keep to the limits of their queue, and follow its rotation', async () => {
    await using db = await open()
    await setup(
      db,
      `create table app.t (a int primary key);
       create trigger t after insert on app.t for each row execute function pgq.sqltriga('q'); insert into app.t values (1);
       update pgq.queue set queue_per_tx_limit = 2`,
    )
    await expect(db.query('insert into app.t values (2), (3), (4)')).rejects.toMatchObject({ code: 'PQ007' })
    await db.exec(`update pgq.queue set queue_disable_insert = true, queue_per_tx_limit = null`)
    await expect(db.query('insert into app.t values (2)')).rejects.toMatchObject({ code: 'PQ006' })
    await db.exec(`update pgq.queue set queue_disable_insert = false, queue_rotation_period = '0'`)
    await db.exec(
      `select pgq.maint_rotate_tables_step1('q'); select pgq.maint_rotate_tables_step2(); insert into app.t values (5)`,
    )
    expect(await db.query('select ev_data from pgq.event_1_1')).toEqual([{ ev_data: "(a) values ('5')" }])
  })

  it.each([
    [`jsontriga()`, `insert into app.t values (2)`, 'PQ016', 'pgq trigger must have destination queue as argument'],
    [`jsontriga('q', 'skip')`, `insert into app.t values (2)`, 'PQ016', 'bad param to pgq trigger: skip'],
    [`jsontriga('q', 'SKIP')`, `insert into app.t values (2)`, 'PQ016', 'SKIP does not work in AFTER trigger.'],
    [`sqltriga('q', 'deny')`, `delete from app.t`, 'PQ017', `Table 'app.t' to queue 'q': change not allowed (DELETE)`],
    [`sqltriga('q')`, `update app.t set a = 3`, 'PQ018', 'primary key update not allowed: table app.t'],
    [
      `sqltriga('q', 'pkey=b')`,
      `delete from app.t`,
      'PQ018',
      'logtriga: Unexpected NULL key value: column b of table app.t',
    ],
    [
      `sqltriga('q', 'pkey=nope')`,
      `update app.t set a = a`,
      'PQ018',
      'logtriga: Unexpected NULL key value: column nope of table app.t',
    ],
    [`logutriga('q', 'when=')`, `delete from app.t`, 'PQ016', 'when= query result must be boolean, got=0'],
    [`logutriga('q', 'when=b > 0')`, `delete from app.t`, 'PQ016', 'when= should not be NULL: trigger t on app.t'],
    [`logutriga('q', 'when=a')`, `delete from app.t`, 'PQ016', 'when= query result must be boolean, got=23'],
    [
      `logutriga('q', 'ev_type=1 where false')`,
      `delete from app.t`,
      'PQ016',
      'Expect 1 row from override query, got 0',
    ],
    [`logutriga('nope')`, `delete from app.t`, 'PQ001', 'No such queue: nope'],
  ])('%s refuses %s', async (call, statement, code, message) => {
    await using db = await open()
    await setup(db, 'create table app.t (a int primary key, b int); insert into app.t values (1)')
    await db.exec(
      `create trigger t after insert or update or delete on app.t for each row execute function pgq.${call}`,
    )
    await expect(db.query(statement)).rejects.toMatchObject({ code, message })
  })

  it('follow the table and the trigger: no event after a change is of the old shape', async () => {
    await using db = await open()
    await setup(
      db,
      `create table app.t (a int primary key, b text);
       create trigger t after insert on app.t for each row execute function pgq.logutriga('q'); insert into app.t values (1, 'x')`,
    )
    const steps: [string, string, (string | null)[]][] = [
      ['select 1', `insert into app.t values (2, 'x')`, ['I:a', 'a=2&b=x', 'app.t']],
      ['alter table app.t add c int', 'insert into app.t values (3, null, 3)', ['I:a', 'a=3&b&c=3', 'app.t']],
      ['alter table app.t rename b to d', 'insert into app.t values (4)', ['I:a', 'a=4&d&c', 'app.t']],
      ['alter table app.t drop d', 'insert into app.t values (5)', ['I:a', 'a=5&c', 'app.t']],
      [
        'alter table app.t alter c type bool using true',
        'insert into app.t values (6, true)',
        ['I:a', 'a=6&c=t', 'app.t'],
      ],
      [
        'alter table app.t drop constraint t_pkey; alter table app.t add primary key (c, a); truncate app.t',
        'insert into app.t values (7, true)',
        ['I:c,a', 'a=7&c=t', 'app.t'],
      ],
      ['alter table app.t rename to u', 'insert into app.u values (8, true)', ['I:c,a', 'a=8&c=t', 'app.u']],
      ['alter schema app rename to lib', 'insert into lib.u values (9, true)', ['I:c,a', 'a=9&c=t', 'lib.u']],
      [
        `create or replace trigger t after insert on lib.u for each row execute function pgq.logutriga('q', 'ignore=c')`,
        'insert into lib.u values (10, true)',
        ['I:c,a', 'a=10', 'lib.u'],
      ],
    ]
    await logged(db)
    for (const [change, statement, event] of steps) {
      await db.exec(change)
      await db.exec(statement)
      expect(await logged(db), change).toEqual([event])
    }
  })
})

describe.each(servers)('trigger functions on $name', ({ open }) => {
  it('a session that fires a trigger first waits for no other that does so too', async () => {
    await using db = await open()
    await setup(
      db,
      `create table app.t (a int primary key);
       create trigger t after insert on app.t for each row execute function pgq.sqltriga('q')`,
    )
    await using other = await db.connect()
    await db.exec('begin; insert into app.t values (1)')
    await other.exec(`set lock_timeout = '2s'; insert into app.t values (2); insert into app.t values (3)`)
    await db.exec('rollback; insert into app.t values (4)')
    expect((await logged(db)).map(([, data]) => data)).toEqual([
      "(a) values ('2')",
      "(a) values ('3')",
      "(a) values ('4')",
    ])
  })

  it('whoever writes the table needs pgq_writer, and is told so', async () => {
    await using db = await open()
    const role = `triggers_${Math.random().toString(36).slice(2)}`
    await setup(
      db,
      `create table app.t (a int primary key); create role ${role}; grant usage on schema app to ${role}; grant insert on app.t to ${role};
       create trigger t after insert on app.t for each row execute function pgq.sqltriga('q')`,
    )
    const insert = (n: number) => db.exec(`set role ${role}; insert into app.t values (${n}); reset role`)
    await expect(insert(1)).rejects.toMatchObject({ message: 'permission denied for function insert_event' })
    await db.exec(`reset role; grant pgq_writer to ${role}`)
    await insert(2)
    expect(await logged(db)).toEqual([['I', "(a) values ('2')", 'app.t']])
    await db.exec(`revoke pgq_writer from ${role}`)
    await expect(insert(3)).rejects.toMatchObject({ message: 'permission denied for function insert_event' })
    await db.exec(`reset role; grant usage on schema pgq to ${role};
      grant execute on function pgq.insert_event(text, text, text, text, text, text, text) to ${role}`)
    await insert(4)
    expect(await logged(db)).toEqual([['I', "(a) values ('4')", 'app.t']])
    await db.exec(`drop owned by ${role}; drop role ${role}`)
  })
})
