import { execFile } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { BenchServer } from './server.ts'

const execute = promisify(execFile)

export interface Load {
  readonly database: string
  /** One statement, sent again and again. */
  readonly statement: string
  readonly clients: number
  readonly seconds: number
  /** Statements in a transaction: 1 means autocommit. */
  readonly perTransaction: number
  readonly prepared: boolean
}

/** Statements a second: by pgbench where the server has it, else by node-postgres (which costs more than the server). */
export async function statementsPerSecond(server: BenchServer, load: Load): Promise<number> {
  return server.hasPgbench ? pgbench(server, load) : nodeClients(server, load)
}

async function pgbench(server: BenchServer, load: Load): Promise<number> {
  const { statement, perTransaction } = load
  const body = `${statement};\n`.repeat(perTransaction)
  const script = perTransaction === 1 ? body : `begin;\n${body}end;\n`
  const file = join(server.host, 'load.sql')
  writeFileSync(file, script)
  const args = ['-n', '-h', server.host, '-p', String(server.port), '-U', 'postgres']
  args.push('-c', String(load.clients), '-j', '2', '-T', String(load.seconds))
  args.push('-M', load.prepared ? 'prepared' : 'simple', '-f', file, load.database)
  const { stdout, stderr } = await execute(join(server.bin, 'pgbench'), args)
  rmSync(file)
  const tps = /tps = ([\d.]+)/.exec(stdout)?.[1]
  if (tps === undefined || /abort/.test(stderr)) throw new Error(`pgbench: ${stdout}${stderr}`)
  return Number(tps) * perTransaction
}

async function nodeClients(server: BenchServer, load: Load): Promise<number> {
  const clients = await Promise.all(Array.from({ length: load.clients }, () => server.connect(load.database)))
  const query = load.prepared ? { name: 'load', text: load.statement } : load.statement
  const start = performance.now()
  const end = start + load.seconds * 1000
  let count = 0
  await Promise.all(
    clients.map(async (client) => {
      while (performance.now() < end) {
        if (load.perTransaction > 1) await client.query('begin')
        for (let i = 0; i < load.perTransaction; i++) await client.query(query)
        if (load.perTransaction > 1) await client.query('commit')
        count += load.perTransaction
      }
    }),
  )
  const elapsed = performance.now() - start
  await Promise.all(clients.map((client) => client.end()))
  return (count * 1000) / elapsed
}
