import type { Command } from 'commander'
import { createMetrics, serveMetrics } from '../src/index.ts'
import { stopSignal, wholeNumber, withDb } from './connection.ts'

interface Options {
  readonly port: number
  readonly host: string
  readonly once?: boolean
}

export function addMetrics(program: Command): void {
  program
    .command('metrics')
    .description('serve metrics of queues and consumers to Prometheus, until SIGTERM or SIGINT')
    .option('--port <port>', 'to listen on', wholeNumber, 9187)
    .option('--host <host>', 'to listen on', '127.0.0.1')
    .option('--once', 'print them and end')
    .action(({ port, host, once }: Options, command: Command) =>
      withDb(command, async (db, print) => {
        const [found] = await db.query<{ name: string }>('select current_database() as name')
        const metrics = createMetrics({
          databases: { [found?.name ?? '']: db },
          onError: (error) => process.stderr.write(`${new Date().toISOString()} ${String(error)}\n`),
        })
        if (once) {
          const text = await metrics.text()
          print(await metrics.registry.getMetricsAsJSON(), text.trimEnd())
          if (/^skytools_up\{.*\} 0$/m.test(text)) process.exitCode = 1
          return
        }
        await serveMetrics(metrics, {
          port,
          host,
          signal: stopSignal(),
          onListening: (url) => print({ metrics: url }, `metrics: ${url}`),
        })
      }),
    )
}
