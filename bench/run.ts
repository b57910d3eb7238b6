import { batch } from './batch.ts'
import { capture } from './capture.ts'
import { coop } from './coop.ts'
import { e2e } from './e2e.ts'
import { held } from './held.ts'
import { insert } from './insert.ts'
import { mover } from './mover.ts'
import { benchOptions, usage } from './support/options.ts'
import { type BenchReport, printReport } from './support/report.ts'
import { wakeup } from './wakeup.ts'

type Scenario = (options: ReturnType<typeof benchOptions>) => Promise<BenchReport>

const scenarios: Record<string, Scenario> = { insert, held, coop, mover, batch, capture, e2e, wakeup }

const [name = '', ...rest] = process.argv.slice(2)
const scenario = scenarios[name]
if (!scenario) {
  process.stderr.write(`${usage}\n`)
  process.exitCode = 2
} else {
  const options = benchOptions(rest)
  printReport(await scenario(options), options.json)
  // Other queues may leave a timer or a connection behind.
  process.exit()
}
