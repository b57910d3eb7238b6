import { readFile } from 'node:fs/promises'
import v8 from 'node:v8'
import vm from 'node:vm'
import type { Db } from '../../../src/index.ts'

/** Bytes and counts by name. */
export type Sizes = ReadonlyMap<string, number>

v8.setFlagsFromString('--expose-gc')
const collectGarbage = vm.runInNewContext('gc') as () => void

/** Each table and index of ours and of the catalog, connections, and the memory of this process and of the server's. */
export async function measure(db: Db): Promise<Sizes> {
  const relations = await db.query<{ name: string; bytes: bigint }>(
    `select c.oid::regclass::text as name,
            case c.relkind when 'i' then pg_relation_size(c.oid) else pg_table_size(c.oid) end as bytes
       from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where n.nspname in ('pgq', 'pgq_coop', 'pgq_ext', 'skytools', 'pg_catalog') and c.relkind in ('r', 'i')`,
  )
  const counts = await db.query<{ name: string; count: bigint }>(
    `select 'rows of pgq.consumer' as name, count(*) from pgq.consumer
      union all select 'rows of pgq.subscriber', count(*) from pgq.subscriber
      union all select 'rows of pgq.tick', count(*) from pgq.tick
      union all select 'functions', count(*) from pg_proc
      union all select 'connections', count(*) from pg_stat_activity where datname = current_database() and backend_type = 'client backend'`,
  )
  const backends = await db.query<{ pid: number }>(
    `select pid from pg_stat_activity where datname = current_database() and backend_type = 'client backend'`,
  )
  collectGarbage()
  const { heapUsed, external } = process.memoryUsage()
  const memory = await Promise.all(backends.map(({ pid }) => anonymous(pid)))
  return new Map([
    ...relations.map(({ name, bytes }): [string, number] => [name, Number(bytes)]),
    ...counts.map(({ name, count }): [string, number] => [name, Number(count)]),
    ['memory of the process', heapUsed + external],
    ['memory of a backend', Math.max(0, ...memory)],
  ])
}

/** Bytes of a process that are its own, where the system tells. */
async function anonymous(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
  return Number(/^RssAnon:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024
}
