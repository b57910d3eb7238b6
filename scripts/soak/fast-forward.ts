import { fastForward } from '../../test/faults/fast-forward/run.ts'

/** The test in fast-forward, once for so long; false: something has grown. */
export async function soakFastForward(end: number): Promise<boolean> {
  const { grown, errors, rotations, ticks } = await fastForward((end - Date.now()) / 1000)
  process.stdout.write(`${rotations} rotations, ${ticks} ticks\n`)
  for (const line of [...grown, ...errors]) process.stdout.write(`${line}\n`)
  return grown.length + errors.length === 0
}
