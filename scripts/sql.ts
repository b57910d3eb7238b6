import type { Command } from 'commander'
import { bundleScript } from '../src/index.ts'

export function addSql(program: Command): void {
  program
    .command('sql')
    .description('print the whole bundle as SQL, for psql or a runner of your own')
    .option('--no-transaction', 'without begin and commit, where the runner has its own')
    .action(async ({ transaction }: { transaction: boolean }) => {
      process.stdout.write(await bundleScript({ transaction }))
    })
}
