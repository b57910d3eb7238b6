import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Metrics } from './metrics.ts'

export interface ServeOptions {
  /** 0 takes a free one. */
  readonly port: number
  readonly host?: string
  readonly signal?: AbortSignal
  /** Called when it listens. */
  readonly onListening?: (url: string) => void
}

/** Serves metrics at `/metrics` over HTTP until the signal.
 *
 * @throws a system error, such as EADDRINUSE, when it cannot listen */
export function serveMetrics(metrics: Metrics, options: ServeOptions): Promise<void> {
  const { port, host = '127.0.0.1', signal, onListening } = options
  return new Promise((resolve, reject) => {
    const server = createServer((request, response) => {
      if (request.url?.split('?')[0] !== '/metrics') {
        response.writeHead(404, { 'content-type': 'text/plain' }).end('metrics are at /metrics\n')
        return
      }
      metrics.text().then(
        (text) => response.writeHead(200, { 'content-type': metrics.registry.contentType }).end(text),
        (error: unknown) => response.writeHead(500, { 'content-type': 'text/plain' }).end(`${String(error)}\n`),
      )
    })
    const stop = () => {
      server.close()
      server.closeAllConnections()
    }
    server.on('error', reject)
    server.on('close', resolve)
    server.listen(port, host, () => {
      if (signal?.aborted) stop()
      else signal?.addEventListener('abort', stop, { once: true })
      const { port: taken } = server.address() as AddressInfo
      onListening?.(`http://${host.includes(':') ? `[${host}]` : host}:${taken}/metrics`)
    })
  })
}
