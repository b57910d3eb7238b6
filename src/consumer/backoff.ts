export interface Backoff {
  /** Seconds before the second attempt; default 1. */
  readonly base?: number | undefined
  /** By which each further pause is longer; default 2. */
  readonly factor?: number | undefined
  /** Seconds that a pause is at most; default 3600. */
  readonly max?: number | undefined
}

/** Seconds to wait after so many failed attempts: exponential, each spread over half to all of it, so that what failed
 * together does not come back together ("equal jitter" of M. Brooker, Exponential Backoff And Jitter, 2015). */
export function pause({ base = 1, factor = 2, max = 3600 }: Backoff, attempts: number): number {
  const full = Math.min(max, base * factor ** (attempts - 1))
  return full * (0.5 + Math.random() / 2)
}
