import { describe, expect, it } from 'vitest'
import { parseMoverConfig, SkytoolsError } from '../../../src/index.ts'
import { glob, router } from '../../../src/mover/route.ts'

const event = { type: 'order.created', extra1: 'eu', extra2: null, extra3: null, extra4: null }

function problem(text: string): SkytoolsError {
  try {
    parseMoverConfig(text, {})
  } catch (error) {
    if (error instanceof SkytoolsError) return error
    throw error
  }
  throw new Error('it was accepted')
}

describe('the configuration of a mover', () => {
  it('is YAML or JSON, with environment variables, and has defaults for all but sources and routes', () => {
    const yaml = `
sources:
  - name: one
    url: postgres://app:\${PASSWORD}@one/app
  - server: postgres://many/postgres
    databases: shard_*
routes:
  - queue: mail_?
    to: mail
`
    const config = parseMoverConfig(yaml, { PASSWORD: 's3cret' })
    expect(config).toMatchObject({
      sources: [{ url: 'postgres://app:s3cret@one/app' }, { databases: 'shard_*' }],
      routes: [{ queue: 'mail_?', to: 'mail' }],
      unmatched: 'error',
      connections: 16,
      retry: { min: 1, max: 60 },
    })
    expect(parseMoverConfig(JSON.stringify(config), {})).toEqual(config)
  })

  it('is refused with the name of what is wrong in it', () => {
    expect(problem('sources: []\nroutes: [{ to: a }]').message).toContain('sources')
    expect(problem('sources: [{ name: a, url: b }]\nroutes: [{ to: a, querty: x }]').message).toContain('querty')
    expect(problem(`sources: [{ name: a, url: "\${NOT_SET}" }]\nroutes: [{ to: a }]`).message).toContain('NOT_SET')
    expect(problem(': : :')).toMatchObject({ code: 'PQ060', name: 'MoverConfigError' })
  })
})

describe('routes', () => {
  const origin = { source: 'shard_1', queue: 'q' }

  it('fit by pattern, of which every other character stands for itself', () => {
    expect(glob('a.*')('a.b')).toBe(true)
    expect(glob('a.*')('axb')).toBe(false)
    expect(glob('a?c')('a\nc')).toBe(true)
    expect(glob('(a|b)')('a')).toBe(false)
    expect(glob('*')('')).toBe(true)
  })

  it('are tried in order, and the first that fits in all its fields decides', () => {
    const { destination } = router({
      routes: [
        { type: 'order.*', extra1: 'us', to: 'us orders' },
        { type: 'order.*', to: '{queue} of {source} in {extra1}' },
        { extra2: '*', to: 'has extra2' },
        { to: 'rest' },
      ],
      unmatched: 'error',
    })
    expect(destination(origin, event)).toBe('q of shard_1 in eu')
    expect(destination(origin, { ...event, extra1: 'us' })).toBe('us orders')
    expect(destination(origin, { ...event, type: null })).toBe('rest')
    expect(destination(origin, { ...event, type: null, extra2: '' })).toBe('has extra2')
  })

  it('leave out what none fits only where that was said', () => {
    const routes = [{ queue: 'other', to: 'x' }]
    expect(router({ routes, unmatched: 'drop' }).destination(origin, event)).toBeUndefined()
    expect(() => router({ routes, unmatched: 'error' }).destination(origin, event)).toThrow(
      /order\.created.*queue q of shard_1/,
    )
    expect(router({ routes, unmatched: 'error' }).takes(origin)).toBe(false)
  })
})
