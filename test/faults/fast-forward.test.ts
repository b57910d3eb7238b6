import { expect, it } from 'vitest'
import { fastForward } from './fast-forward/run.ts'

/** Longer: npm run soak -- fast-forward --minutes 60 */
const seconds = 21

it('the runtime takes no more after many rotations and retries, dead workers, keys and dead letters than before', {
  timeout: (seconds + 60) * 1000,
}, async () => {
  const { grown, rotations, ticks, errors } = await fastForward(seconds)
  expect(errors).toEqual([])
  expect(grown).toEqual([])
  // A day has 12 rotations, and an idle queue a tick a minute, 1440; on a busy machine fewer go into the time.
  expect(rotations).toBeGreaterThan(12)
  expect(ticks).toBeGreaterThan(500)
})
