import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { tsx } from '../support/tsx.ts'

export const root = join(import.meta.dirname, '..', '..')

export interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

interface RunOptions {
  /** The database; without one there is none in the environment. */
  readonly url?: string | undefined
  readonly input?: string
  readonly cwd?: string
  /** Called with all of stdout so far: to send a signal when it says something. */
  readonly onOutput?: (stdout: string, kill: (signal: NodeJS.Signals) => void) => void
}

/** Runs a script of the checkout as a person would. */
export function run(script: string, args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const { url, input, cwd = root, onOutput } = options
  const { DATABASE_URL: _, PGHOST: __, INIT_CWD: ___, ...rest } = process.env
  const env = url === undefined ? rest : { ...rest, DATABASE_URL: url }
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...tsx, join(root, 'scripts', script), ...args], { cwd, env })
    let [stdout, stderr] = ['', '']
    child.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk
      onOutput?.(stdout, (signal) => child.kill(signal))
    })
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk
    })
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, stdout, stderr }))
    child.stdin.on('error', () => undefined)
    child.stdin.end(input ?? '')
  })
}

/** The cells of a drawn table's row that begins with `first`. */
export function cells(output: string, first: string): string[] {
  const line = output.split('\n').find((text) => text.startsWith(`│ ${first} `))
  if (!line) throw new Error(`no row ${first} in:\n${output}`)
  return line
    .split('│')
    .slice(1, -1)
    .map((cell) => cell.trim())
}
