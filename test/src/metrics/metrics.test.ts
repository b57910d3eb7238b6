import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  createMetrics,
  createQueue,
  type Db,
  insertEvents,
  registerConsumer,
  serveMetrics,
  setQueueConfig,
} from '../../../src/index.ts'
import { packageRoot } from '../../../src/schema/bundle.ts'
import { databases } from '../../support/databases.ts'
import { tick } from '../../support/queues.ts'

async function prepared(db: Db): Promise<void> {
  await createQueue(db, 'orders "1"')
  await setQueueConfig(db, 'orders "1"', { tickerMaxCount: 1, tickerMaxLag: 0 })
  await registerConsumer(db, 'orders "1"', 'mail')
  await insertEvents(db, 'orders "1"', [{}, {}, {}])
  await tick(db, 'orders "1"')
}

/** Value of a sample by its name and labels, as Prometheus reads the text. */
function sample(text: string, name: string): number {
  const line = text.split('\n').find((entry) => entry.startsWith(`${name} `))
  if (!line) throw new Error(`no ${name} in:\n${text}`)
  return Number(line.slice(name.length + 1))
}

describe.each(databases)('metrics on $name', ({ open, openEmpty }) => {
  it('tell what queues and consumers do, as of now', async () => {
    await using db = await open()
    await prepared(db)
    const metrics = createMetrics({ databases: { main: db } })
    const queue = 'database="main",queue="orders \\"1\\""'
    const before = await metrics.text()
    expect(sample(before, 'skytools_up{database="main"}')).toBe(1)
    expect(sample(before, `skytools_queue_events_total{${queue}}`)).toBe(3)
    expect(sample(before, `skytools_consumer_pending_events{${queue.replace(',', ',')},consumer="mail"}`)).toBe(2)
    await insertEvents(db, 'orders "1"', [{}])
    expect(sample(await metrics.text(), `skytools_queue_events_total{${queue}}`)).toBe(4)
    expect(before).toContain('# TYPE skytools_queue_events_total counter')
    expect(before).toContain('# TYPE skytools_consumer_lag_seconds gauge')
  })

  it('of a dropped queue are gone, and of a database that cannot be read there is only skytools_up', async () => {
    await using db = await open()
    await using empty = await openEmpty()
    await prepared(db)
    const errors: string[] = []
    const metrics = createMetrics({
      databases: { main: db, empty },
      onError: (error, database) => errors.push(`${database}: ${String(error)}`),
    })
    expect(await metrics.text()).toContain('orders')
    await db.query(`select pgq.drop_queue('orders "1"', true)`)
    const text = await metrics.text()
    expect(text).not.toContain('orders')
    expect(sample(text, 'skytools_up{database="empty"}')).toBe(0)
    expect(text).not.toContain('skytools_findings{database="empty"}')
    expect(errors[0]).toContain('empty: NotInstalledError')
  })

  it('are served over HTTP until the signal', async () => {
    await using db = await open()
    const stop = new AbortController()
    const url = await new Promise<string>((resolve, reject) => {
      serveMetrics(createMetrics({ databases: { main: db } }), {
        port: 0,
        signal: stop.signal,
        onListening: resolve,
      }).catch(reject)
    })
    const response = await fetch(url)
    expect(response.headers.get('content-type')).toContain('text/plain')
    expect(await response.text()).toContain('skytools_up{database="main"} 1')
    expect((await fetch(new URL('/other', url))).status).toBe(404)
    stop.abort()
    await expect(fetch(url)).rejects.toThrow()
  })

  it('have every name that the Grafana dashboard asks for', async () => {
    await using db = await open()
    const dashboard = await readFile(join(packageRoot(), 'docs', 'grafana', 'skytools.json'), 'utf8')
    const asked = new Set(dashboard.match(/skytools_[a-z_]+/g))
    const names = createMetrics({ databases: { main: db } })
      .registry.getMetricsAsArray()
      .map(({ name }) => name)
    expect([...asked].filter((name) => !names.includes(name))).toEqual([])
    expect(names.filter((name) => !asked.has(name))).toEqual([
      'skytools_queue_new_events',
      'skytools_consumer_last_seen_seconds',
      'skytools_consumer_paused',
    ])
  })
})
