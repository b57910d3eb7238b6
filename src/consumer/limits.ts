import { SkytoolsError } from '../errors.ts'

/** Waits for a handler no longer than until the signal, or so many seconds; the handler is told by its signal.
 *
 * @throws the signal's reason; HandlerTimeoutError (PQ072) */
export function withinLimits(
  signal: AbortSignal,
  seconds: number | undefined,
  call: (signal: AbortSignal) => unknown,
): Promise<void> {
  if (signal.aborted) return Promise.reject(signal.reason)
  const own = seconds === undefined ? undefined : new AbortController()
  return new Promise((resolve, reject) => {
    const give = (reason: unknown) => {
      own?.abort(reason)
      reject(reason)
    }
    const aborted = () => give(signal.reason)
    const timer = seconds === undefined ? undefined : setTimeout(() => give(timedOut(seconds)), seconds * 1000)
    signal.addEventListener('abort', aborted, { once: true })
    Promise.resolve()
      .then(() => call(own?.signal ?? signal))
      .then(() => resolve(), reject)
      .finally(() => {
        clearTimeout(timer)
        signal.removeEventListener('abort', aborted)
      })
  })
}

function timedOut(seconds: number): SkytoolsError {
  return new SkytoolsError(
    'PQ072',
    `the handler has not ended within ${seconds} s`,
    'give it more time, or have it stop when its signal is aborted',
  )
}
