// Runs a command of this project, after `npm ci` where node_modules does not hold what the lock file names.
// Plain JavaScript, and nothing but Node: on a fresh clone there is nothing else yet.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const [tool, ...args] = process.argv.slice(2)

function packages(file) {
  const path = join(root, file)
  return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')).packages : undefined
}

/** Optional packages (other platforms' binaries) may be absent, everything else must be there in its version. */
function isInstalled() {
  const wanted = packages('package-lock.json')
  const present = packages('node_modules/.package-lock.json')
  if (!wanted || !present) return false
  return Object.entries(wanted).every(([path, entry]) => {
    if (path === '') return true
    const found = present[path]
    return found ? found.version === entry.version : entry.optional === true || entry.peer === true
  })
}

function run(command, commandArgs) {
  const { status, signal, error } = spawnSync(command, commandArgs, { cwd: root, stdio: 'inherit' })
  if (error) console.error(`skytools: ${command} did not start: ${error.message}`)
  if (signal) console.error(`skytools: ${command} was ended by ${signal}`)
  return status ?? 1
}

function install() {
  console.error('skytools: installing dependencies (once)')
  const npm = process.env.npm_execpath
  const ci = ['ci', '--no-audit', '--no-fund', '--loglevel=error']
  const status = npm ? run(process.execPath, [npm, ...ci]) : run('npm', ci)
  if (status !== 0) process.exit(status)
}

// tsx as a loader rather than as a command: that would be one more process for a signal to pass through.
const tools = {
  tsx: ['--import', pathToFileURL(join(root, 'node_modules/tsx/dist/loader.mjs')).href],
  tsc: [join(root, 'node_modules/typescript/bin/tsc')],
}
if (!Object.hasOwn(tools, tool)) {
  console.error(`usage: node scripts/launch.mjs ${Object.keys(tools).join('|')} …`)
  process.exit(2)
}
if (!isInstalled()) install()
process.exit(run(process.execPath, [...tools[tool], ...args]))
