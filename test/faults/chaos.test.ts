import { describe, expect, it } from 'vitest'
import { faults } from './chaos/faults.ts'
import { chaos, wrongs } from './chaos/run.ts'

/** Longer: npm run soak -- chaos --minutes 10 */
const seconds = 22
const seed = Math.floor(Math.random() * 2 ** 31)

describe('producers, two tickers, four consumers and two groups of workers', () => {
  it(`handle every committed event exactly once, or at least once, while all are killed and frozen: seed ${seed}`, {
    timeout: (seconds + 240) * 1000,
  }, async () => {
    const result = await chaos(seed, seconds)
    expect(wrongs(result), result.report).toEqual([])
    expect(result.accounts.length).toBe(6)
    for (const { consumer, sent } of result.accounts) expect(sent, consumer).toBeGreaterThan(100)
    for (const fault of faults) expect(result.faults[fault], fault).toBeGreaterThan(0)
    expect(result.rotations).toBeGreaterThan(2)
  })
})
