import fc from 'fast-check'

/** What a step does, and how often it is drawn. */
const weights = {
  begin: 9,
  look: 3,
  insert: 14,
  insertMany: 5,
  insertRaw: 3,
  table: 4,
  direct: 5,
  savepoint: 4,
  rollbackTo: 3,
  release: 1,
  rollback: 3,
  commit: 9,
  tick: 8,
  tickAll: 2,
  rotate1: 4,
  rotate2: 4,
  rotatePositions: 3,
  next: 6,
  read: 6,
  retry: 7,
  retryBatch: 1,
  putBack: 4,
  finish: 6,
  register: 3,
  registerAt: 3,
  unregister: 2,
  otherQueue: 1,
  coopNext: 6,
  groupNext: 2,
  coopTurn: 6,
  consume: 8,
  advance: 7,
} as const

export type StepKind = keyof typeof weights | 'registerGroup'
export interface Step {
  readonly kind: StepKind
  /** Which connection does it. */
  readonly on: number
  /** For which consumer. */
  readonly who: number
  /** Chooses whatever else there is to choose. */
  readonly n: number
  /** Sent without waiting for the step before. */
  readonly together: boolean
}

export const connections = 4
export const consumers = 3
/** One more consumer, whose work several workers share at times. */
export const group = 'group'

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.oneof(
    ...Object.entries(weights).map(([kind, weight]) => ({ weight, arbitrary: fc.constant(kind as StepKind) })),
  ),
  on: fc.nat(connections - 1),
  who: fc.nat(consumers - 1),
  n: fc.nat(999),
  together: fc.nat(9).map((n) => n < 2),
})

export const schedule: fc.Arbitrary<Step[]> = fc.array(step, { minLength: 30, maxLength: 90, size: 'max' })

/** Steps that are several: a whole turn of a consumer; or of everybody, with a rotation. */
export function expand(steps: readonly Step[]): Step[] {
  return steps.flatMap((base): Step[] => {
    const of = (kind: StepKind, who = base.who): Step => ({ ...base, kind, who, together: false })
    const turn = (who: number): Step[] => [of('next', who), of('read', who), of('finish', who)]
    if (base.kind === 'consume')
      return [of('next'), of('read'), ...(base.n % 2 === 0 ? [of('retry')] : []), of('finish')]
    if (base.kind === 'coopTurn')
      return [of('coopNext'), of('read'), ...(base.n % 2 === 0 ? [of('retry')] : []), of('finish')]
    if (base.kind === 'advance')
      return [
        of('commit'),
        of('tick'),
        ...turn(0),
        ...turn(1),
        ...turn(2),
        ...[of('coopNext'), of('read'), of('finish')],
        of('rotate1'),
        of('rotate2'),
        of('rotatePositions'),
        of('putBack'),
      ]
    return [base]
  })
}
