import type { Command } from 'commander'
import { upgrade } from '../src/index.ts'
import { withDb } from './connection.ts'
import { describeChange } from './install.ts'

export function addUpgrade(program: Command): void {
  program
    .command('upgrade')
    .description('bring the installed schemas to the newest version')
    .option('--to <version>', 'stop at this version, or at the step of this name')
    .action(({ to }: { to?: string }, command: Command) =>
      withDb(command, async (db, print) => {
        const change = await upgrade(db, { to })
        print(change, describeChange(change))
      }),
    )
}
