// npm test: all of `npm run check`, then vitest, then one line that says how it went. Arguments go to vitest.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from '../src/schema/bundle.ts'
import { verify } from './verify.ts'

const root = packageRoot()
const cache = join(root, '.cache')
const report = join(cache, 'vitest.json')

function runVitest(args: readonly string[]): { status: number; passed: number; failed: number } {
  const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs')
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`]
  const { status } = spawnSync(process.execPath, [vitest, 'run', ...reporters, ...args], {
    cwd: root,
    stdio: 'inherit',
  })
  if (!existsSync(report)) return { status: status || 1, passed: 0, failed: 1 }
  const counts = JSON.parse(readFileSync(report, 'utf8')) as {
    numPassedTests: number
    numFailedTests: number
    testResults: { status: string; assertionResults: unknown[] }[]
  }
  // A file that did not even load has no tests to count.
  const broken = counts.testResults.filter((file) => file.status === 'failed' && file.assertionResults.length === 0)
  return { status: status ?? 1, passed: counts.numPassedTests, failed: counts.numFailedTests + broken.length }
}

const started = Date.now()
mkdirSync(cache, { recursive: true })
rmSync(report, { force: true })
const checks = await verify()
const tests = runVitest(process.argv.slice(2))
const passed = checks.passed + tests.passed
const failed = checks.failed + Math.max(tests.failed, tests.status === 0 ? 0 : 1)
writeFileSync(join(cache, 'results.json'), JSON.stringify({ passed, failed }))
const seconds = Math.round((Date.now() - started) / 1000)
console.log(
  failed === 0
    ? `npm test: fine, ${checks.passed} checks and ${tests.passed} tests passed in ${seconds} s`
    : `npm test: FAILED, ${checks.failed} checks and ${failed - checks.failed} tests failed, ${passed} passed, in ${seconds} s`,
)
process.exitCode = failed === 0 ? 0 : 1
