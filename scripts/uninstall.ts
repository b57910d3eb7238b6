import type { Command } from 'commander'
import { uninstall, wipe } from '../src/index.ts'
import { confirm, withDb } from './connection.ts'
import { describeChange } from './install.ts'
import { describeWiped } from './wipe.ts'

interface Options {
  readonly force?: true | string
  readonly dryRun?: boolean
}

export function addUninstall(program: Command): void {
  program
    .command('uninstall')
    .description('remove the schemas; refuses while there are queues')
    .option(
      '--force [database]',
      'drop the queues and their events too; with the name of the database where it is protected',
    )
    .option('--dry-run', 'print what would go')
    .action(({ force, dryRun }: Options, command: Command) =>
      withDb(command, async (db, print) => {
        if (dryRun) {
          const found = await wipe(db, { dryRun })
          print(found, `${describeWiped(found)}\nand the schemas${found.length > 0 && !force ? ', with --force' : ''}`)
          return
        }
        const queues = force ? ', with every queue and event in them' : ''
        await confirm(command, `Remove the schemas pgq and skytools${queues}?`)
        const change = await uninstall(db, {
          force: force !== undefined,
          database: typeof force === 'string' ? force : undefined,
        })
        print(change, describeChange(change))
      }),
    )
}
