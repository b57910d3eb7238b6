import type { Command } from 'commander'
import { install, type SchemaChange } from '../src/index.ts'
import { withDb } from './connection.ts'

export function addInstall(program: Command): void {
  program
    .command('install')
    .description('install the schemas, or bring them to the newest version')
    .action((_options: unknown, command: Command) =>
      withDb(command, async (db, print) => {
        const change = await install(db)
        print(change, describeChange(change))
      }),
    )
}

export function describeChange({ from, to, steps, warnings }: SchemaChange): string {
  const notes = warnings.map((warning) => `warning: ${warning}`)
  if (to === undefined) return [...notes, `uninstalled skytools ${from}`].join('\n')
  if (steps.length === 0) return [...notes, `skytools ${to} is installed: nothing to do`].join('\n')
  const what = from === undefined ? `installed skytools ${to}` : `upgraded skytools from ${from} to ${to}`
  return [...notes, `${what} (${steps.join(', ')})`].join('\n')
}
