import { describe, expect, it } from 'vitest'
import { insertEvent, tick } from '../../src/index.ts'
import { servers } from '../support/databases.ts'
import { busyQueue } from '../support/queues.ts'
import { cells, run } from './run.ts'

describe.each(servers.slice(-1))('operations on $name', ({ open }) => {
  it('top shows rates from the second look on, and ends after as many looks as it was told', async () => {
    await using db = await open()
    await busyQueue(db, 'q', ['c'])
    const first = await run('skytools.ts', ['top', '--count', '1'], { url: db.url })
    expect(first).toMatchObject({ code: 0 })
    expect(cells(first.stdout, 'q')[1]).toBe('')
    const { stdout } = await run('skytools.ts', ['top', '--count', '2', '--interval', '0.5'], {
      url: db.url,
      onOutput: async (output) => {
        if (output.match(/events\/s/g)?.length !== 2) return
        await insertEvent(db, 'q', {})
        await insertEvent(db, 'q', {})
        await tick(db)
      },
    })
    const second = stdout.slice(stdout.lastIndexOf('since tick'))
    expect(Number(cells(second, 'q')[1])).toBeGreaterThan(0)
  })

  it('metrics print once, or serve until SIGTERM', async () => {
    await using db = await open()
    await busyQueue(db, 'q')
    const once = await run('skytools.ts', ['metrics', '--once'], { url: db.url })
    expect(once).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^skytools_queue_ticks_total\{.*queue="q"\} 1$/m),
    })
    const served: string[] = []
    const { code } = await run('skytools.ts', ['metrics', '--port', '0'], {
      url: db.url,
      onOutput: async (output, kill) => {
        const url = /http:\S+/.exec(output)?.[0]
        if (!url) return
        served.push(await (await fetch(url)).text())
        kill('SIGTERM')
      },
    })
    expect(code).toBe(0)
    expect(served[0]).toContain('skytools_up')
  })
})
