import { describe, expect, it } from 'vitest'
import { connectionUrl, parseTickerIni } from '../../../src/ticker/ini.ts'

describe("pgqd's ini file", () => {
  it('says which databases, and how often', () => {
    const ini = parseTickerIni(`
[pgqd]
base_connstr = host=/run/postgresql port=5433 user='the ticker' password=a\\'b
initial_database = postgres
database_list = one, two three
logfile = /var/log/pgqd.log
pidfile = /run/pgqd.pid
ticker_period = 0.5
maint_period = 60
retry_period = 10
check_period = 20
stats_period = 15
syslog = 0
colour = blue
`)
    expect(ini).toEqual({
      options: {
        cluster: `postgres:///postgres?host=%2Frun%2Fpostgresql&port=5433&user=the+ticker&password=a%27b`,
        only: ['one', 'two', 'three'],
        period: 0.5,
        retryPeriod: 10,
        maintenancePeriod: 60,
        checkPeriod: 20,
      },
      logFile: '/var/log/pgqd.log',
      pidFile: '/run/pgqd.pid',
      statsPeriod: 15,
      ignored: ['colour'],
    })
  })

  it('may be almost empty', () => {
    expect(parseTickerIni('[pgqd]')).toMatchObject({ options: { cluster: 'postgres:///template1' }, ignored: [] })
  })

  it('is refused with the line that is wrong', () => {
    for (const [text, message] of [
      ['', /no section \[pgqd\]/],
      ['[pgqd]\nticker_period = often', /ticker_period = often/],
      ['[pgqd]\nbase_connstr = host', /not understood: host/],
    ] as const)
      expect(() => parseTickerIni(text)).toThrow(message)
  })

  it('takes URLs too', () => {
    expect(connectionUrl('postgres://me@there:5433/other?sslmode=require', 'd b')).toBe(
      'postgres://me@there:5433/d%20b?sslmode=require',
    )
    expect(connectionUrl('', 'template1')).toBe('postgres:///template1')
  })
})
