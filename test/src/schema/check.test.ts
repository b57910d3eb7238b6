import { describe, expect, it } from 'vitest'
import { bundleScript, check, schemaStatus, uninstall, upgrade } from '../../../src/index.ts'
import { databases } from '../../support/databases.ts'

/** A change somebody makes by hand, the object that check must name, and what it says of it. */
const mutations = [
  {
    what: 'a function body',
    sql: `create or replace function pgq.version() returns text language sql immutable parallel safe as $$ select '0' $$`,
    object: 'function pgq.version()',
    change: 'changed',
    properties: ['body'],
  },
  {
    what: "a function's attributes",
    sql: 'alter function pgq.next_batch(text, text) set search_path = public',
    object: 'function pgq.next_batch(i_queue_name text, i_consumer_name text)',
    change: 'changed',
    properties: ['settings'],
  },
  {
    what: 'a missing grant',
    sql: 'revoke execute on function pgq.finish_batch(bigint) from pgq_reader',
    object: 'function pgq.finish_batch(x_batch_id bigint)',
    change: 'changed',
    properties: ['privileges'],
  },
  {
    what: 'a wrong grant',
    sql: 'grant delete on pgq.retry_queue to public',
    object: 'table pgq.retry_queue',
    change: 'changed',
    properties: ['privileges'],
  },
  {
    what: 'a default',
    sql: 'alter table pgq.queue alter column queue_ntables set default 5',
    object: 'column pgq.queue.queue_ntables',
    change: 'changed',
    properties: ['default'],
  },
  {
    what: 'not null',
    sql: 'alter table pgq.queue alter column queue_ntables drop not null',
    object: 'column pgq.queue.queue_ntables',
    change: 'changed',
    properties: ['not null'],
  },
  {
    what: 'a new column',
    sql: 'alter table pgq.queue add column mine integer',
    object: 'column pgq.queue.mine',
    change: 'extra',
    properties: [],
  },
  {
    what: 'a missing index',
    sql: 'drop index pgq.rq_retry_idx',
    object: 'index pgq.rq_retry_idx',
    change: 'missing',
    properties: [],
  },
  {
    what: 'another index',
    sql: 'drop index pgq.rq_retry_idx; create index rq_retry_idx on pgq.retry_queue (ev_retry_after desc)',
    object: 'index pgq.rq_retry_idx',
    change: 'changed',
    properties: ['definition'],
  },
  {
    what: 'a disabled trigger',
    sql: 'alter table pgq.queue disable trigger queue_changed',
    object: 'trigger queue_changed on pgq.queue',
    change: 'changed',
    properties: ['enabled'],
  },
  {
    what: 'a missing constraint',
    sql: 'alter table pgq.retry_queue drop constraint rq_queue_id_fkey',
    object: 'constraint rq_queue_id_fkey on pgq.retry_queue',
    change: 'missing',
    properties: [],
  },
  {
    what: 'a sequence',
    sql: 'alter sequence pgq.batch_id_seq cycle',
    object: 'sequence pgq.batch_id_seq',
    change: 'changed',
    properties: ['sequence'],
  },
  {
    what: 'a comment',
    sql: "comment on table pgq.tick is 'mine'",
    object: 'table pgq.tick',
    change: 'changed',
    properties: ['comment'],
  },
  {
    what: 'privileges on a schema',
    sql: 'grant create on schema pgq to public',
    object: 'schema pgq',
    change: 'changed',
    properties: ['privileges'],
  },
  {
    what: 'a function of somebody else',
    sql: 'create function pgq.mine() returns integer language sql as $$ select 1 $$',
    object: 'function pgq.mine()',
    change: 'extra',
    properties: [],
  },
]

describe.each(databases)('check on $name', ({ open, openEmpty }) => {
  it('finds nothing in a fresh database, nor in one that is used', async () => {
    await using db = await open()
    expect(await check(db)).toMatchObject({ differences: [], missingRoles: [], pending: [] })
    await db.query("select pgq.create_queue('orders')")
    await db.query("select pgq.register_consumer('orders', 'mailer')")
    await db.query("select pgq.insert_event('orders', 'type', 'data')")
    await db.query('select pgq.ticker()')
    expect(await check(db)).toMatchObject({ differences: [] })
  })
  it('names exactly the object that somebody changed, and what of it', async () => {
    await using db = await open()
    for (const { what, sql, object, change, properties } of mutations) {
      const undo = new Error('undo')
      await db
        .transaction(async (tx) => {
          await tx.exec(sql)
          const { differences } = await check(tx)
          const found = differences.map((each) => ({ ...each, properties: each.properties.map(({ name }) => name) }))
          expect(found, what).toEqual([{ object, change, properties }])
          throw undo
        })
        .catch((error: unknown) => {
          if (error !== undo) throw error
        })
    }
  })
  it('does not look into what is generated for the queues, but into its privileges', async () => {
    await using db = await open()
    await db.exec('revoke execute on function pgq.insert_event(text, text, text) from pgq_writer')
    const { differences } = await check(db)
    expect(differences.map(({ object }) => object)).toEqual([
      'function pgq.insert_event(queue_name text, ev_type text, ev_data text)',
    ])
  })
  it('says that nothing is installed', async () => {
    await using db = await openEmpty()
    await expect(check(db)).rejects.toMatchObject({ code: 'PQ035' })
  })
  it('finds nothing after the script of `skytools sql`, which upgrade and uninstall then know', async () => {
    await using db = await openEmpty()
    const script = await bundleScript()
    await db.exec(script)
    expect(await check(db)).toMatchObject({ differences: [], pending: [] })
    expect(await upgrade(db)).toMatchObject({ steps: [] })
    await expect(db.exec(script)).rejects.toMatchObject({ code: 'PQ030' })
    await db.exec('rollback')
    await uninstall(db)
    expect(await schemaStatus(db)).toMatchObject({ installed: false })
  })
})
