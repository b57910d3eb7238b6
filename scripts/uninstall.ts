import type { Command } from 'commander'
import { uninstall } from '../src/index.ts'
import { confirm, withDb } from './connection.ts'
import { describeChange } from './install.ts'

export function addUninstall(program: Command): void {
  program
    .command('uninstall')
    .description('remove the schemas; refuses while there are queues')
    .option('--force', 'drop the queues and their events too')
    .action(({ force }: { force?: boolean }, command: Command) =>
      withDb(command, async (db, print) => {
        const queues = force ? ', with every queue and event in them' : ''
        await confirm(command, `Remove the schemas pgq and skytools${queues}?`)
        const change = await uninstall(db, { force })
        print(change, describeChange(change))
      }),
    )
}
