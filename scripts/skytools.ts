#!/usr/bin/env node
import { CommanderError } from 'commander'
import { SkytoolsError } from '../src/errors.ts'
import { toJson, UsageError } from './connection.ts'
import { buildProgram } from './program.ts'

/** Exit code: 0 fine, 1 failed, 2 usage. */
export async function main(args: readonly string[]): Promise<number> {
  try {
    await buildProgram().parseAsync([...args], { from: 'user' })
    return Number(process.exitCode ?? 0)
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    report(error, args.includes('--json'))
    return error instanceof UsageError ? 2 : 1
  }
}

function report(error: unknown, json: boolean): void {
  const message = error instanceof Error ? error.message : String(error)
  const { name, code, hint } =
    error instanceof SkytoolsError ? error : { name: 'Error', code: undefined, hint: undefined }
  if (json) process.stderr.write(`${toJson({ error: { name, code, message, hint } })}\n`)
  else process.stderr.write(`skytools: ${message}${hint ? `\nhint: ${hint}` : ''}\n`)
}

process.exitCode = await main(process.argv.slice(2))
