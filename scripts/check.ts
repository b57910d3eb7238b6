import type { Command } from 'commander'
import { type CheckResult, check, type Difference } from '../src/index.ts'
import { withDb } from './connection.ts'

export function addCheck(program: Command): void {
  program
    .command('check')
    .description('tell what in the database differs from the bundle, object by object')
    .action((_options: unknown, command: Command) =>
      withDb(command, async (db, print) => {
        const result = await check(db)
        print(result, describeCheck(result))
        const { differences, pending, staleCaptures } = result
        if (differences.length + pending.length + staleCaptures.length > 0) process.exitCode = 1
      }),
    )
}

function describeCheck({ version, pending, missingRoles, differences, staleCaptures }: CheckResult): string {
  return [
    ...(pending.length > 0 ? [`steps not installed: ${pending.join(', ')} (skytools upgrade)`] : []),
    ...missingRoles.map((role) => `role ${role} does not exist: nothing is granted to it`),
    ...staleCaptures.map((table) => `capture of ${table} is stale: the table has changed (skytools capture refresh)`),
    ...differences.flatMap(describeDifference),
    differences.length === 0
      ? `skytools ${version}: the database is as the bundle says`
      : `skytools ${version}: ${differences.length} object${differences.length === 1 ? ' differs' : 's differ'}`,
  ].join('\n')
}

function describeDifference({ object, change, properties }: Difference): string[] {
  const details = properties.flatMap(({ name, expected, found }) =>
    `${expected}${found}`.includes('\n')
      ? [`    ${name}: ${firstDifference(expected, found)}`]
      : [`    ${name}: ${found || '(none)'}, expected ${expected || '(none)'}`],
  )
  return [`${change.padEnd(8)}${object}`, ...details]
}

function firstDifference(expected: string, found: string): string {
  const [wanted, present] = [expected.split('\n'), found.split('\n')]
  const index = wanted.findIndex((line, at) => line !== present[at])
  const at = index < 0 ? wanted.length : index
  const quote = (line: string | undefined) => (line === undefined ? 'the end' : JSON.stringify(line.trim()))
  return `from line ${at} on: ${quote(present[at])}, expected ${quote(wanted[at])}`
}
