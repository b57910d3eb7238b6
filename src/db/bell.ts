/** Something to wait for, with a limit: `ring` ends the waiting, or the next one if nobody waits. */
export interface Bell {
  ring(): void
  /** What rang before does not count. */
  clear(): void
  wait(seconds: number, signal: AbortSignal): Promise<void>
}

export function bell(): Bell {
  let rung = false
  let wake: (() => void) | undefined
  return {
    ring() {
      rung = true
      wake?.()
    },
    clear() {
      rung = false
    },
    wait(seconds, signal) {
      if (rung || signal.aborted) return Promise.resolve()
      return new Promise((resolve) => {
        const end = () => {
          clearTimeout(timer)
          signal.removeEventListener('abort', end)
          wake = undefined
          resolve()
        }
        const timer = setTimeout(end, seconds * 1000)
        signal.addEventListener('abort', end, { once: true })
        wake = end
      })
    },
  }
}
