import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { packageRoot } from '../../src/schema/bundle.ts'
import { tsx } from '../support/tsx.ts'

export interface Run {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** A script of this project as a process of its own, without a terminal and with no database in its environment. */
export function runScript(script: string, args: readonly string[], env: Record<string, string> = {}): Promise<Run> {
  const root = packageRoot()
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^(DATABASE_URL|PG.*|VITEST.*|NODE_ENV)$/.test(name),
  )
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...tsx, join(root, 'scripts', script), ...args], {
      cwd: root,
      env: { ...Object.fromEntries(inherited), ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (chunk) => {
      stdout += chunk
    })
    child.stderr.on('data', (chunk) => {
      stderr += chunk
    })
    child.on('error', reject)
    child.on('close', (status) => resolve({ status, stdout, stderr }))
  })
}

export const skytools = (args: readonly string[], env?: Record<string, string>) => runScript('skytools.ts', args, env)
