import type { Command } from 'commander'
import { protect, protection, unprotect } from '../src/index.ts'
import { UsageError, withDb } from './connection.ts'

export function addProtect(program: Command): void {
  program
    .command('protect')
    .description(
      'make wipe, reset, uninstall and the like refuse this database unless it is named; without a reason, tell',
    )
    .argument('[reason]', "shown in each refusal, e.g. 'production'")
    .option('--off', 'take the protection away')
    .action((reason: string | undefined, { off }: { off?: boolean }, command: Command) => {
      if (off && reason !== undefined) throw new UsageError('a reason, or --off, not both')
      return withDb(command, async (db, print) => {
        if (off) await unprotect(db)
        else if (reason !== undefined) await protect(db, reason)
        const found = await protection(db)
        print({ protected: found ?? null }, found === undefined ? 'not protected' : `protected: ${found}`)
      })
    })
}
