import { Command } from 'commander'
import { packageVersion } from '../src/schema/bundle.ts'
import { addBatch } from './batch.ts'
import { addCapture } from './capture.ts'
import { addCheck } from './check.ts'
import { addGlobalOptions } from './connection.ts'
import { addConsumer } from './consumer.ts'
import { addDlq } from './dlq.ts'
import { addEject } from './eject.ts'
import { addInstall } from './install.ts'
import { addMetrics } from './metrics.ts'
import { addMover } from './mover.ts'
import { addProtect } from './protect.ts'
import { addQueue } from './queue.ts'
import { addReset } from './reset.ts'
import { addSplitter } from './splitter.ts'
import { addSql } from './sql.ts'
import { addStatus } from './status.ts'
import { addTicker } from './ticker.ts'
import { addTop } from './top.ts'
import { addUninstall } from './uninstall.ts'
import { addUpgrade } from './upgrade.ts'
import { addWipe } from './wipe.ts'

/** Each adds one command, or one family of them. */
const commands: readonly ((program: Command) => void)[] = [
  addInstall,
  addUpgrade,
  addUninstall,
  addSql,
  addEject,
  addCheck,
  addWipe,
  addReset,
  addProtect,
  addQueue,
  addConsumer,
  addDlq,
  addCapture,
  addBatch,
  addTicker,
  addStatus,
  addTop,
  addMetrics,
  addMover,
  addSplitter,
]

export function buildProgram(): Command {
  const program = new Command('skytools')
    .description('PgQ, the queue inside Postgres, without a C extension')
    .version(packageVersion())
    .exitOverride()
    .showHelpAfterError('(skytools --help, or skytools <command> --help)')
  addGlobalOptions(program)
  for (const add of commands) add(program)
  return program
}
