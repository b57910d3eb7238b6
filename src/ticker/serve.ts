import { type ServeOptions, serve } from '../metrics/http.ts'
import type { Ticker } from './daemon.ts'

/** Serves the health of a ticker over HTTP until the signal: `/healthz` while the process lives, `/readyz` with 200 while every
 * database is ticked and with 503 otherwise, and as JSON what is so with each.
 *
 * @throws a system error, such as EADDRINUSE, when it cannot listen */
export function serveHealth(ticker: Ticker, options: ServeOptions): Promise<void> {
  const ready = () => {
    const health = ticker.health()
    return { status: health.ready ? 200 : 503, type: 'application/json', body: `${JSON.stringify(health)}\n` }
  }
  return serve({ '/healthz': () => ({ body: 'ok\n' }), '/readyz': ready }, options)
}
