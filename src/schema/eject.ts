import { existsSync } from 'node:fs'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SkytoolsError } from '../errors.ts'
import { type Migration, migrations } from './bundle.ts'
import { ledgerEntry, ledgerSql } from './script.ts'

export interface EjectResult {
  /** Files written, oldest first; empty when the folder has every step. */
  readonly written: readonly string[]
  /** Steps that the folder had already. */
  readonly present: readonly string[]
}

/** Writes the steps that are missing into an application's own node-pg-migrate folder, named to run after all in it. */
export async function eject(directory: string, root?: string): Promise<EjectResult> {
  const steps = await migrations(root)
  if (steps.length === 0) throw new SkytoolsError('PQ039', 'the package has no migrations')
  await mkdir(directory, { recursive: true })
  const files = (await readdir(directory)).filter((file) => !file.startsWith('.'))
  const present = steps.filter(({ name }) => files.some((file) => ejectedName(file) === name))
  const missing = steps.filter((step) => !present.includes(step))
  const prefixes = prefixesAfter(files, missing.length, Date.now())
  const written: string[] = []
  for (const [index, step] of missing.entries()) {
    const file = `${prefixes[index]}_skytools_${step.name}.sql`
    const path = join(directory, file)
    if (existsSync(path))
      throw new SkytoolsError('PQ038', `${path} is there already`, 'move it away and run this again')
    await writeFile(path, ejectedSql(step, step === steps[0]), { flag: 'wx' })
    written.push(path)
  }
  return { written, present: present.map(({ name }) => name) }
}

function ejectedName(file: string): string | undefined {
  return /^\d+_skytools_(\d{4}_\w+)\.sql$/.exec(file)?.[1]
}

/** node-pg-migrate reads 17 digits as a date, other numbers as they are: milliseconds, or an index of up to four digits. */
function prefixesAfter(files: readonly string[], count: number, now: number): string[] {
  const numbers = files.flatMap((file) => /^\d+/.exec(file)?.[0] ?? [])
  const newest = Math.max(0, ...numbers.map(instant))
  const indexed = numbers.length > 0 && numbers.every((digits) => digits.length < 10)
  const utc = numbers.length > 0 && numbers.every((digits) => digits.length === 17)
  const first = indexed ? newest + 1 : Math.max(now, newest + 1)
  const width = Math.max(4, ...numbers.map((digits) => digits.length))
  return Array.from({ length: count }, (_, index) => {
    const value = first + index
    if (indexed) return String(value).padStart(width, '0')
    return utc ? new Date(value).toISOString().replace(/\D/g, '') : String(value)
  })
}

function instant(digits: string): number {
  if (digits.length !== 17) return Number(digits)
  const [, year, month, day, hour, minute, second, ms] = /^(....)(..)(..)(..)(..)(..)(...)$/.exec(digits) ?? []
  return Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}.${ms}Z`)
}

function ejectedSql(step: Migration, first: boolean): string {
  const cleanup = first ? '\n\ndrop table skytools.migrations;\ndrop schema skytools;' : ''
  const down =
    step.down === undefined
      ? ''
      : `
-- Down Migration

${step.down}

delete from skytools.migrations where name = '${step.name}';${cleanup}
`
  return `-- skytools ${step.version}, step ${step.name}: written by \`skytools eject\`. Leave it as it is.

-- Up Migration

do $$
begin
    if to_regclass('skytools.migrations') is not null then
        if exists (select from skytools.migrations where name = '${step.name}') then
            raise exception 'step ${step.name} of skytools is in database % already', quote_ident(current_database())
                using errcode = 'PQ030', hint = 'it was installed by skytools install: mark this file as run (node-pg-migrate up --fake)';
        end if;
    end if;
end $$;

${ledgerSql}

${step.up}

${ledgerEntry(step)}
${down}`
}
