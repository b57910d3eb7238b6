import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface ServeOptions {
  /** 0 takes a free one. */
  readonly port: number
  readonly host?: string | undefined
  readonly signal?: AbortSignal | undefined
  /** Called when it listens, with the address. */
  readonly onListening?: ((url: string) => void) | undefined
}

export interface Answer {
  readonly status?: number
  readonly type?: string
  readonly body: string
}

/** Answers GET requests of these paths over HTTP until the signal.
 *
 * @throws a system error, such as EADDRINUSE, when it cannot listen */
export function serve(
  paths: Readonly<Record<string, () => Answer | Promise<Answer>>>,
  { port, host = '127.0.0.1', signal, onListening }: ServeOptions,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const server = createServer((request, response) => {
      const send = ({ status = 200, type = 'text/plain', body }: Answer) =>
        response.writeHead(status, { 'content-type': type }).end(body)
      const answer = paths[request.url?.split('?')[0] ?? '']
      if (!answer) {
        send({ status: 404, body: `there is: ${Object.keys(paths).join(', ')}\n` })
        return
      }
      Promise.resolve()
        .then(answer)
        .then(send, (error: unknown) => send({ status: 500, body: `${String(error)}\n` }))
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
      onListening?.(`http://${host.includes(':') ? `[${host}]` : host}:${taken}`)
    })
  })
}
