import { type ServeOptions, serve } from './http.ts'
import type { Metrics } from './metrics.ts'

/** Serves metrics at `/metrics` over HTTP until the signal.
 *
 * @throws a system error, such as EADDRINUSE, when it cannot listen */
export function serveMetrics(metrics: Metrics, options: ServeOptions): Promise<void> {
  const { onListening, ...rest } = options
  const text = async () => ({ type: metrics.registry.contentType, body: await metrics.text() })
  return serve({ '/metrics': text }, { ...rest, onListening: (url) => onListening?.(`${url}/metrics`) })
}
