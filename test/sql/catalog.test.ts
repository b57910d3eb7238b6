import { describe, expect, it } from 'vitest'
import { databases } from '../support/databases.ts'

const batchColumns = `OUT batch_id bigint, OUT cur_tick_id bigint, OUT prev_tick_id bigint, OUT cur_tick_time timestamp with time zone, OUT prev_tick_time timestamp with time zone, OUT cur_tick_event_seq bigint, OUT prev_tick_event_seq bigint`
const eventColumns = `OUT ev_id bigint, OUT ev_time timestamp with time zone, OUT ev_txid bigint, OUT ev_retry integer, OUT ev_type text, OUT ev_data text, OUT ev_extra1 text, OUT ev_extra2 text, OUT ev_extra3 text, OUT ev_extra4 text`
const queueColumns = `OUT queue_name text, OUT queue_ntables integer, OUT queue_cur_table integer, OUT queue_rotation_period interval, OUT queue_switch_time timestamp with time zone, OUT queue_external_ticker boolean, OUT queue_ticker_paused boolean, OUT queue_ticker_max_count integer, OUT queue_ticker_max_lag interval, OUT queue_ticker_idle_period interval, OUT ticker_lag interval, OUT ev_per_sec double precision, OUT ev_new bigint, OUT last_tick_id bigint`
const consumerColumns = `OUT queue_name text, OUT consumer_name text, OUT lag interval, OUT last_seen interval, OUT last_tick bigint, OUT current_batch bigint, OUT next_tick bigint, OUT pending_events bigint`
const extras = 'ev_extra1 text, ev_extra2 text, ev_extra3 text, ev_extra4 text'

/** Name, arguments, result: for each role the functions it may execute. */
const functions: Record<'PUBLIC' | 'pgq_reader' | 'pgq_writer' | 'pgq_admin', [string, string, string][]> = {
  pgq_admin: [
    ['create_queue', 'i_queue_name text', 'integer'],
    ['drop_queue', 'x_queue_name text, x_force boolean', 'integer'],
    ['drop_queue', 'x_queue_name text', 'integer'],
    ['set_queue_config', 'x_queue_name text, x_param_name text, x_param_value text', 'integer'],
    ['grant_perms', 'x_queue_name text', 'integer'],
    ['_grant_perms_from', 'src_schema text, src_table text, dst_schema text, dst_table text', 'integer'],
    ['tune_storage', 'i_queue_name text', 'integer'],
    ['upgrade_schema', '', 'integer'],
    [
      'insert_event_raw',
      `queue_name text, ev_id bigint, ev_time timestamp with time zone, ev_owner integer, ev_retry integer, ev_type text, ev_data text, ${extras}`,
      'bigint',
    ],
    ['ticker', '', 'bigint'],
    ['ticker', 'i_queue_name text', 'bigint'],
    [
      'ticker',
      'i_queue_name text, i_tick_id bigint, i_orig_timestamp timestamp with time zone, i_event_seq bigint',
      'bigint',
    ],
    ['maint_retry_events', '', 'integer'],
    ['maint_rotate_tables_step1', 'i_queue_name text', 'integer'],
    ['maint_rotate_tables_step2', '', 'integer'],
    ['maint_tables_to_vacuum', '', 'SETOF text'],
    ['maint_operations', 'OUT func_name text, OUT func_arg text', 'SETOF record'],
    ['seq_setval', 'i_seq_name text, i_new_value bigint', 'bigint'],
    [
      'event_retry_raw',
      `x_queue text, x_consumer text, x_retry_after timestamp with time zone, x_ev_id bigint, x_ev_time timestamp with time zone, x_ev_retry integer, x_ev_type text, x_ev_data text, x_ev_extra1 text, x_ev_extra2 text, x_ev_extra3 text, x_ev_extra4 text`,
      'bigint',
    ],
  ],
  pgq_writer: [
    ['insert_event', 'queue_name text, ev_type text, ev_data text', 'bigint'],
    ['insert_event', `queue_name text, ev_type text, ev_data text, ${extras}`, 'bigint'],
    ['current_event_table', 'x_queue_name text', 'text'],
    ['jsontriga', '', 'trigger'],
    ['logutriga', '', 'trigger'],
    ['sqltriga', '', 'trigger'],
  ],
  pgq_reader: [
    ['register_consumer', 'x_queue_name text, x_consumer_id text', 'integer'],
    ['register_consumer_at', 'x_queue_name text, x_consumer_name text, x_tick_pos bigint', 'integer'],
    ['unregister_consumer', 'x_queue_name text, x_consumer_name text', 'integer'],
    [
      'next_batch_custom',
      `i_queue_name text, i_consumer_name text, i_min_lag interval, i_min_count integer, i_min_interval interval, ${batchColumns}`,
      'record',
    ],
    ['next_batch_info', `i_queue_name text, i_consumer_name text, ${batchColumns}`, 'record'],
    ['next_batch', 'i_queue_name text, i_consumer_name text', 'bigint'],
    [
      'find_tick_helper',
      'i_queue_id integer, i_prev_tick_id bigint, i_prev_tick_time timestamp with time zone, i_prev_tick_seq bigint, i_min_count bigint, i_min_interval interval, OUT next_tick_id bigint, OUT next_tick_time timestamp with time zone, OUT next_tick_seq bigint',
      'record',
    ],
    [
      'get_batch_info',
      'x_batch_id bigint, OUT queue_name text, OUT consumer_name text, OUT batch_start timestamp with time zone, OUT batch_end timestamp with time zone, OUT prev_tick_id bigint, OUT tick_id bigint, OUT lag interval, OUT seq_start bigint, OUT seq_end bigint',
      'record',
    ],
    ['get_batch_events', `x_batch_id bigint, ${eventColumns}`, 'SETOF record'],
    [
      'get_batch_cursor',
      `i_batch_id bigint, i_cursor_name text, i_quick_limit integer, i_extra_where text, ${eventColumns}`,
      'SETOF record',
    ],
    [
      'get_batch_cursor',
      `i_batch_id bigint, i_cursor_name text, i_quick_limit integer, ${eventColumns}`,
      'SETOF record',
    ],
    ['event_retry', 'x_batch_id bigint, x_event_id bigint, x_retry_time timestamp with time zone', 'integer'],
    ['event_retry', 'x_batch_id bigint, x_event_id bigint, x_retry_seconds integer', 'integer'],
    ['batch_retry', 'i_batch_id bigint, i_retry_seconds integer', 'integer'],
    ['finish_batch', 'x_batch_id bigint', 'integer'],
    ['force_tick', 'i_queue_name text', 'bigint'],
    ['batch_event_sql', 'x_batch_id bigint', 'text'],
    ['batch_event_tables', 'x_batch_id bigint', 'SETOF text'],
  ],
  PUBLIC: [
    ['get_queue_info', queueColumns, 'SETOF record'],
    ['get_queue_info', `i_queue_name text, ${queueColumns}`, 'SETOF record'],
    ['get_consumer_info', consumerColumns, 'SETOF record'],
    ['get_consumer_info', `i_queue_name text, ${consumerColumns}`, 'SETOF record'],
    ['get_consumer_info', `i_queue_name text, i_consumer_name text, ${consumerColumns}`, 'SETOF record'],
    ['quote_fqname', 'i_name text', 'text'],
    ['seq_getval', 'i_seq_name text', 'bigint'],
    ['version', '', 'text'],
  ],
}

const tables: Record<string, string> = {
  queue: `queue_id integer not null, queue_name text not null, queue_ntables integer not null, queue_cur_table integer not null,
    queue_rotation_period interval not null, queue_switch_step1 bigint not null, queue_switch_step2 bigint,
    queue_switch_time timestamp with time zone not null, queue_external_ticker boolean not null,
    queue_disable_insert boolean not null, queue_ticker_paused boolean not null, queue_ticker_max_count integer not null,
    queue_ticker_max_lag interval not null, queue_ticker_idle_period interval not null, queue_per_tx_limit integer,
    queue_data_pfx text not null, queue_event_seq text not null, queue_tick_seq text not null, queue_extra_maint text[]`,
  consumer: 'co_id integer not null, co_name text not null',
  tick: `tick_queue integer not null, tick_id bigint not null, tick_time timestamp with time zone not null,
    tick_snapshot txid_snapshot not null, tick_event_seq bigint not null`,
  event_template: `ev_id bigint not null, ev_time timestamp with time zone not null, ev_txid bigint not null, ev_owner integer,
    ev_retry integer, ev_type text, ev_data text, ev_extra1 text, ev_extra2 text, ev_extra3 text, ev_extra4 text`,
  retry_queue: `ev_retry_after timestamp with time zone not null, ev_queue integer not null, ev_id bigint not null,
    ev_time timestamp with time zone not null, ev_txid bigint, ev_owner integer not null, ev_retry integer, ev_type text,
    ev_data text, ev_extra1 text, ev_extra2 text, ev_extra3 text, ev_extra4 text`,
}
const subscription =
  'sub_id integer, sub_queue integer, sub_consumer integer, sub_last_tick bigint, sub_active timestamp with time zone, sub_batch bigint, sub_next_tick bigint'

describe.each(databases)('the catalog on $name', ({ open }) => {
  const all = Object.entries(functions).flatMap(([role, list]) =>
    list.map(([name, args, result]) => ({ role, name, args, result })),
  )

  it('has every function with the names, arguments and result that clients know, and the role that may call it', async () => {
    await using db = await open()
    const rows = await db.query<{ name: string; args: string; result: string; roles: string[] }>(`
      select p.proname as name, pg_get_function_arguments(p.oid) as args, pg_get_function_result(p.oid) as result,
             array(select case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end
                     from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                    where a.privilege_type = 'EXECUTE' and a.grantee <> p.proowner order by 1) as roles
        from pg_proc p where p.pronamespace = 'pgq'::regnamespace`)
    const found = new Map(rows.map((row) => [`${row.name}(${row.args})`, row]))
    for (const { role, name, args, result } of all) {
      const row = found.get(`${name}(${args})`)
      expect(row, `${name}(${args})`).toBeDefined()
      // Functions with OUT columns say what they return by those.
      if (!(result === 'record' && row?.result.startsWith('record'))) expect(row?.result, name).toBe(result)
      expect(row?.roles, `roles of ${name}`).toEqual([role])
    }
  })

  it('gives PUBLIC no function beyond those that tell what everybody may know', async () => {
    await using db = await open()
    const rows = await db.query<{ name: string }>(`
      select distinct p.proname as name from pg_proc p
       cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
       where p.pronamespace = 'pgq'::regnamespace and a.grantee = 0
         and pg_get_function_result(p.oid) <> 'trigger' order by 1`)
    const known = new Set(functions.PUBLIC.map(([name]) => name))
    // The view pgq.subscription, which everybody may read, is made of it.
    known.add('_position')
    // What a trigger calls as whoever writes its table.
    for (const name of ['urlencode', 'null_key', 'one_value', 'condition_holds', 'trigger_shape', 'trigger_code'])
      known.add(`_${name}`)
    for (const name of ['_truncate_event', '_shape', '_capture_statement']) known.add(name)
    expect(rows.map(({ name }) => name).filter((name) => !known.has(name))).toEqual([])
  })

  it('fixes the search_path of each security definer function, with pg_temp last', async () => {
    await using db = await open()
    const rows = await db.query<{ name: string }>(`
      select p.oid::regprocedure::text as name from pg_proc p join pg_namespace n on n.oid = p.pronamespace
       where n.nspname in ('pgq', 'skytools') and p.prosecdef
         and not coalesce(p.proconfig, '{}') @> array['search_path=pg_catalog, pg_temp']`)
    expect(rows).toEqual([])
    const count = await db.query(`select from pg_proc where pronamespace = 'pgq'::regnamespace and prosecdef`)
    expect(count.length).toBeGreaterThan(15)
  })

  it('has tables with the columns that scripts read', async () => {
    await using db = await open()
    const columns = async (table: string): Promise<string> => {
      const rows = await db.query<{ text: string }>(
        `select attname || ' ' || format_type(atttypid, atttypmod) || case when attnotnull then ' not null' else '' end as text
           from pg_attribute where attrelid = $1::regclass and attnum > 0 and not attisdropped order by attnum`,
        [`pgq.${table}`],
      )
      return rows.map(({ text }) => text).join(', ')
    }
    for (const [table, expected] of Object.entries(tables))
      expect(await columns(table), table).toBe(expected.replace(/\s+/g, ' '))
    expect(await columns('subscription')).toBe(subscription)
  })

  it('keeps the defaults of a new queue', async () => {
    await using db = await open()
    await db.query(`select pgq.create_queue('q')`)
    const rows = await db.query(`
      select queue_ntables, queue_cur_table, queue_rotation_period::text, queue_external_ticker, queue_disable_insert,
             queue_ticker_paused, queue_ticker_max_count, queue_ticker_max_lag::text, queue_ticker_idle_period::text,
             queue_per_tx_limit, queue_data_pfx = 'pgq.event_' || queue_id as pfx,
             queue_event_seq = 'pgq.event_' || queue_id || '_id_seq' as event_seq,
             queue_tick_seq = 'pgq.event_' || queue_id || '_tick_seq' as tick_seq, queue_extra_maint,
             queue_switch_step2 is not null as switched
        from pgq.queue`)
    expect(rows).toEqual([
      {
        queue_ntables: 3,
        queue_cur_table: 0,
        queue_rotation_period: '02:00:00',
        queue_external_ticker: false,
        queue_disable_insert: false,
        queue_ticker_paused: false,
        queue_ticker_max_count: 500,
        queue_ticker_max_lag: '00:00:03',
        queue_ticker_idle_period: '00:01:00',
        queue_per_tx_limit: null,
        pfx: true,
        event_seq: true,
        tick_seq: true,
        queue_extra_maint: null,
        switched: true,
      },
    ])
  })
})
