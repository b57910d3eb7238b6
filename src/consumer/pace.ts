/** How many events a consumer asks for at once when it lags behind: the batches of several ticks in one. */
export interface Pace {
  /** Undefined: the next tick's batch, as it is. */
  minCount(): number | undefined
  handled(events: number): void
  /** There was no batch, or none so large. */
  missed(): void
}

/** Batches in a row, without a wait between them, that tell that a consumer lags behind. */
const lagging = 3

/** Doubles what it asks for with each batch, up to `limit`; next_batch_custom() gives up to twice that. With as many ticks a
 * second as wake-up brings, a consumer that took them one by one would never catch up. */
export function pace(limit: number): Pace {
  let batches = 0
  let events = 0
  return {
    minCount: () => (batches < lagging ? undefined : Math.min(limit, Math.max(2 * events, 10))),
    handled(count) {
      batches += 1
      events = count
    },
    missed() {
      batches = 0
    },
  }
}
