import { describe, expect, it } from 'vitest'
import { insertEvent, queueInfo, setQueueConfig } from '../../src/index.ts'
import { servers } from '../support/databases.ts'
import { type Outcome, run } from './run.ts'

const newest = servers.slice(-1)

describe.each(newest)('commands on $name', { timeout: 180_000 }, ({ open }) => {
  it('queue: create, config, pause, insert, list, drop, each readable for programs', async () => {
    await using db = await open()
    const queue = (...args: string[]) => run('skytools.ts', ['queue', ...args], { url: db.url })
    const json = async (...args: string[]) => JSON.parse((await queue(...args, '--json')).stdout)

    expect(await json('create', 'orders', 'ticker_max_lag=1', 'per_tx_limit=3')).toEqual({
      queue: 'orders',
      created: true,
    })
    expect((await queue('create', 'orders')).stdout).toBe('there already: orders\n')
    expect(await json('config', 'orders', 'rotation_period=1 day', 'disable_insert=yes')).toMatchObject({
      tickerMaxLag: 1,
      rotationPeriod: 86_400,
      disableInsert: true,
      perTransactionLimit: 3,
    })
    expect(await queue('insert', 'orders', 'created', '{}')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^skytools: .+\nhint: .+\n$/),
    })
    await setQueueConfig(db, 'orders', { disableInsert: false })
    const lines = await run('skytools.ts', ['queue', 'insert', 'orders', 'created', '-'], {
      url: db.url,
      input: 'a\nb\n',
    })
    expect(lines.stdout).toBe('2 events in orders: 1 to 2\n')
    await queue('pause', 'orders')
    expect((await queueInfo(db, 'orders'))[0]?.config.tickerPaused).toBe(true)
    expect(await json('list')).toMatchObject([{ queue: 'orders', newEvents: 1 }])
    expect(await queue('drop', 'orders')).toMatchObject({ code: 2, stderr: expect.stringContaining('--yes') })
    expect((await queue('drop', 'orders', '--yes')).stdout).toBe('dropped: orders\n')
  })

  it('wrong settings and unknown names end with 2 and 1, and say what there is', async () => {
    await using db = await open()
    const skytools = (...args: string[]) => run('skytools.ts', args, { url: db.url })
    const refused = (code: number, stderr: string): Partial<Outcome> => ({
      code,
      stderr: expect.stringContaining(stderr),
    })
    expect(await skytools('queue', 'create', 'q', 'speed=high')).toMatchObject(refused(2, 'ticker_max_count'))
    expect(await skytools('queue', 'config', 'none')).toMatchObject(refused(1, 'No such event queue: none'))
    expect(await skytools('queue', 'resume', 'none')).toMatchObject(refused(1, 'No such event queue: none'))
    expect(await skytools('consumer', 'register', 'none', 'c')).toMatchObject(refused(1, 'pgq.create_queue'))
    expect(await skytools('consumer', 'unregister', 'none', 'c', '--yes')).toMatchObject(refused(1, 'not subscribed'))
    expect(await queueInfo(db)).toEqual([])
  })

  it('status ends with 1 when something is wrong', async () => {
    await using db = await open()
    const status = (...args: string[]) => run('skytools.ts', ['status', ...args], { url: db.url })
    expect(await status()).toMatchObject({ code: 0, stdout: expect.stringContaining('no queues yet') })
    await run('skytools.ts', ['queue', 'create', 'lonely'], { url: db.url })
    expect(await status()).toMatchObject({
      code: 1,
      stdout: expect.stringContaining('queue lonely: it has no consumer'),
    })
    expect(JSON.parse((await status('--json')).stdout)).toMatchObject({ findings: [{ subject: 'queue lonely' }] })
  })

  it('ticker ticks until SIGTERM, then ends with 0', async () => {
    await using db = await open()
    await run('skytools.ts', ['queue', 'create', 'q', 'ticker_max_lag=0.01'], { url: db.url })
    await insertEvent(db, 'q', {})
    let told = false
    const { code, stdout } = await run('skytools.ts', ['ticker', '--period', '0.05'], {
      url: db.url,
      onOutput: async (output, kill) => {
        // A second signal would end it at once.
        if (told || !output.includes('ticker started')) return
        told = true
        while ((await queueInfo(db, 'q'))[0]?.lastTick === 1n) await new Promise((resolve) => setTimeout(resolve, 20))
        kill('SIGTERM')
      },
    })
    expect(stdout).toContain('ticker stopped')
    expect(code).toBe(0)
    expect((await queueInfo(db, 'q'))[0]?.lastTick).toBeGreaterThan(1n)
  })
})
