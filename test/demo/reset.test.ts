import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { createQueue, queueInfo } from '../../src/index.ts'
import { servers } from '../support/databases.ts'
import { one } from '../support/queues.ts'
import { root, run } from './run.ts'

describe.each(servers.slice(-1))('dev reset on $name', ({ open }) => {
  it('wipe prints what would go and what went, and a protected database wants its name', async () => {
    await using db = await open()
    await createQueue(db, 'orders')
    const { name } = await one<{ name: string }>(db, 'select current_database()::text as name')
    const skytools = (...args: string[]) => run('skytools.ts', args, { url: db.url })
    const planned = await skytools('wipe', '--dry-run')
    expect(planned).toMatchObject({ code: 0, stdout: expect.stringContaining('orders') })
    expect(await skytools('wipe')).toMatchObject({ code: 2, stderr: expect.stringContaining('--yes') })
    expect(await skytools('protect', 'production')).toMatchObject({ stdout: 'protected: production\n' })
    for (const command of [
      ['wipe', '--yes'],
      ['reset', '--yes'],
      ['uninstall', '--yes', '--force'],
      ['queue', 'drop', 'orders', '--yes'],
    ])
      expect(await skytools(...command)).toMatchObject({ code: 1, stderr: expect.stringContaining('production') })
    expect((await queueInfo(db)).map(({ queue }) => queue)).toEqual(['orders'])
    expect((await skytools('wipe', '--yes', '--force', name)).stdout).toBe(planned.stdout)
    expect(await queueInfo(db)).toEqual([])
    expect(await skytools('protect', '--off')).toMatchObject({ stdout: 'not protected\n' })
  })

  it('reset runs a seed in SQL or TypeScript, and keeps all when the seed cannot be read', async () => {
    await using db = await open()
    await createQueue(db, 'old')
    const folder = await mkdtemp(join(root, '.cache', 'seed-'))
    try {
      await writeFile(join(folder, 'seed.sql'), `select pgq.create_queue('by sql')`)
      const typescript = `import { createQueue } from '${join(root, 'src', 'index.ts')}'\nexport const seed = (db: never) => createQueue(db, 'by typescript')\n`
      await writeFile(join(folder, 'seed.ts'), typescript)
      const reset = (file: string) =>
        run('skytools.ts', ['reset', '--yes', '--seed', join(folder, file)], { url: db.url })
      expect(await reset('none.sql')).toMatchObject({ code: 2 })
      expect((await queueInfo(db)).map(({ queue }) => queue)).toEqual(['old'])
      expect(await reset('seed.sql')).toMatchObject({
        code: 0,
        stdout: expect.stringMatching(/reset in \d+\.\d+ s.*seeded/),
      })
      expect((await queueInfo(db)).map(({ queue }) => queue)).toEqual(['by sql'])
      expect(await reset('seed.ts')).toMatchObject({ code: 0 })
      expect((await queueInfo(db)).map(({ queue }) => queue)).toEqual(['by typescript'])
    } finally {
      await rm(folder, { recursive: true })
    }
  })
})
