import { chaos, wrongs } from '../../test/faults/chaos/run.ts'

/** Seconds of harm in a round. */
const longest = 120

/** The chaos test in rounds with a seed each, until the time is up; false: one has failed. */
export async function soakChaos(end: number, first: number): Promise<boolean> {
  for (let seed = first; Date.now() < end; seed++) {
    const seconds = Math.max(10, Math.min(longest, Math.ceil((end - Date.now()) / 1000)))
    const result = await chaos(seed, seconds)
    const wrong = wrongs(result)
    if (wrong.length > 0) {
      process.stdout.write(`seed ${seed}: failed\n${result.report}\n${wrong.join('\n')}\n`)
      return false
    }
    const sent = result.accounts.map(({ consumer, sent }) => `${consumer} ${sent}`).join(', ')
    process.stdout.write(
      `seed ${seed}: ${JSON.stringify(result.faults)}, ${result.rotations} rotations, events: ${sent}\n`,
    )
  }
  return true
}
