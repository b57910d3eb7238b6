import { describe, expect, it } from 'vitest'
import { databases } from '../support/databases.ts'
import { one } from '../support/queues.ts'

/** Each client function, with parameters that carry no type, as node-postgres sends them. */
describe.each(databases)('parameters without types on $name', ({ open }) => {
  it('reach every function that clients call', async () => {
    await using db = await open()
    const call = (sql: string, params: unknown[]) => db.query(sql, params)
    await call('select pgq.create_queue($1)', ['q'])
    for (const [name, value] of [
      ['ticker_max_count', '1'],
      ['ticker_max_lag', '0'],
      ['ticker_idle_period', '0'],
    ])
      await call('select pgq.set_queue_config($1, $2, $3)', ['q', name, value])
    await call('select pgq.register_consumer($1, $2)', ['q', 'c'])
    await call('select pgq.register_consumer_at($1, $2, $3)', ['q', 'c', 1])
    await call('select pgq.insert_event($1, $2, $3)', ['q', 't', 'd'])
    await call('select pgq.insert_event($1, $2, $3, $4, $5, $6, $7)', ['q', 't', 'd', '1', '2', '3', '4'])
    await call('select pgq.insert_event_raw($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)', [
      'q',
      null,
      null,
      null,
      null,
      't',
      'd',
      null,
      null,
      null,
      null,
    ])
    await call('select pgq.current_event_table($1)', ['q'])
    await call('select pgq.insert_json($1, $2, $3)', ['q', 't', '{"a": 1}'])
    await call('select pgq.ticker($1)', ['q'])
    await call('select pgq.ticker()', [])
    const { batch } = await one<{ batch: bigint }>(db, 'select pgq.next_batch($1, $2) as batch', ['q', 'c'])
    await call('select * from pgq.next_batch_info($1, $2)', ['q', 'c'])
    await call('select * from pgq.next_batch_custom($1, $2, $3, $4, $5)', ['q', 'c', null, null, null])
    await call('select * from pgq.next_batch_custom($1, $2, $3, $4, $5)', ['q', 'c', '1 second', '10', '1 minute'])
    await call('select * from pgq.get_batch_info($1)', [batch])
    const events = await db.query<{ ev_id: bigint }>('select * from pgq.get_batch_events($1)', [batch])
    expect(events).toHaveLength(4)
    await call('select * from pgq.batch_event_tables($1)', [batch])
    await call('select pgq.batch_event_sql($1)', [batch])
    await db.transaction(async (tx) => {
      await tx.query('select * from pgq.get_batch_cursor($1, $2, $3)', [batch, 'one', 1])
      await tx.query('select * from pgq.get_batch_cursor($1, $2, $3, $4)', [batch, 'two', 1, 'true'])
    })
    expect(await one(db, 'select pgq.event_retry($1, $2, $3) as n', [batch, events[0]?.ev_id, 0])).toEqual({ n: 1 })
    expect(await one(db, 'select pgq.event_retry($1, $2, $3) as n', [batch, events[1]?.ev_id, '30'])).toEqual({ n: 1 })
    const later = '2030-01-01 00:00:00+00'
    expect(await one(db, 'select pgq.event_retry($1, $2, $3) as n', [batch, events[2]?.ev_id, later])).toEqual({ n: 1 })
    expect(await one(db, 'select pgq.batch_retry($1, $2) as n', [batch, 60])).toEqual({ n: 1 })
    await call('select pgq.finish_batch($1)', [batch])
    await call('select pgq.event_retry_raw($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)', [
      'q',
      'c',
      later,
      null,
      later,
      1,
      't',
      'd',
      null,
      null,
      null,
      null,
    ])
    await call('select pgq.force_tick($1)', ['q'])
    await call('select * from pgq.get_queue_info($1)', ['q'])
    await call('select * from pgq.get_consumer_info($1)', ['q'])
    await call('select * from pgq.get_consumer_info($1, $2)', ['q', 'c'])
    await call('select pgq.seq_getval($1)', ['pgq.event_1_id_seq'])
    await call('select pgq.seq_setval($1, $2)', ['pgq.event_1_id_seq', 5000])
    await call('select pgq.quote_fqname($1)', ['a.b'])
    await call('select pgq.maint_rotate_tables_step1($1)', ['q'])
    await call('select pgq.tune_storage($1)', ['q'])
    await call('select pgq.grant_perms($1)', ['q'])
    await call('select pgq.set_queue_config($1, $2, $3)', ['q', 'external_ticker', 'true'])
    await call('select pgq.ticker($1, $2, $3, $4)', ['q', 100, later, 9000])
    await call('select pgq.unregister_consumer($1, $2)', ['q', 'c'])
    await call('select pgq.drop_queue($1)', ['q'])
    await call('select pgq.create_queue($1)', ['q2'])
    await call('select pgq.drop_queue($1, $2)', ['q2', true])
  })
})
