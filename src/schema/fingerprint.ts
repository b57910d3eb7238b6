import { createHash } from 'node:crypto'
import type { Db } from '../db/db.ts'
import { type Connectable, toDb } from '../db/open.ts'
import { catalogQueries } from './catalog.ts'

/** Object ('function pgq.version()') to property ('body') to value. */
export type Fingerprint = Readonly<Record<string, Readonly<Record<string, string>>>>

type Fact = { object: string; property: string; value: string | null }

/** What the catalog says of our schemas, the same on every supported server, whoever owns them, whatever queues there are. */
export async function fingerprint(connection: Connectable): Promise<Fingerprint> {
  return toDb(connection).transaction(async (tx) => {
    const [before] = await tx.query<{ path: string }>("select current_setting('search_path') as path")
    await setPath(tx, 'pg_catalog')
    const facts: Fact[] = []
    for (const { sql } of catalogQueries) facts.push(...(await tx.query<Fact>(sql)))
    await setPath(tx, before?.path ?? '')
    return gather(facts)
  })
}

async function setPath(tx: Db, path: string): Promise<void> {
  await tx.query("select set_config('search_path', $1, true)", [path])
}

function gather(facts: readonly Fact[]): Fingerprint {
  const objects: Record<string, Record<string, string>> = {}
  const sorted = facts.toSorted((a, b) => compare(a.object, b.object) || compare(a.property, b.property))
  for (const { object, property, value } of sorted) {
    objects[object] ??= {}
    if (value !== null && value !== '') objects[object][property] = normal(object, property, value)
  }
  return objects
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** Servers write the same view with more or fewer qualified columns and brackets. */
function normal(object: string, property: string, value: string): string {
  if (property !== 'definition') return value
  if (object.startsWith('view ')) {
    return value
      .replace(/\b[a-z_][a-z0-9_]*\.(?=[a-z_][a-z0-9_]*\b(?!\())/g, '')
      .replace(/[()\s]+/g, ' ')
      .trim()
  }
  return value.replace(/\s+/g, ' ')
}

export interface Difference {
  /** 'function pgq.ticker(text)' */
  readonly object: string
  readonly change: 'missing' | 'extra' | 'changed'
  /** Of a changed object: which properties, with their values. */
  readonly properties: readonly { readonly name: string; readonly expected: string; readonly found: string }[]
}

/** What must change in `found` to become `expected`, object by object. */
export function compareFingerprints(expected: Fingerprint, found: Fingerprint): Difference[] {
  const objects = [...new Set([...Object.keys(expected), ...Object.keys(found)])].sort(compare)
  return objects.flatMap((object): Difference[] => {
    const [wanted, present] = [expected[object], found[object]]
    if (!present) return [{ object, change: 'missing', properties: [] }]
    if (!wanted) return [{ object, change: 'extra', properties: [] }]
    const names = [...new Set([...Object.keys(wanted), ...Object.keys(present)])].sort(compare)
    const properties = names
      .map((name) => ({ name, expected: wanted[name] ?? '', found: present[name] ?? '' }))
      .filter((property) => property.expected !== property.found)
    return properties.length > 0 ? [{ object, change: 'changed', properties }] : []
  })
}

/** For people, as test/schema.txt holds it: a line a column, a function's body by its hash, as sql/ shows it whole. */
export function describeFingerprint(print: Fingerprint): string {
  const lines = Object.entries(print).flatMap(([object, properties]) => {
    const facts = Object.entries(properties).map(([name, value]) => `${name}: ${name === 'body' ? hash(value) : value}`)
    return object.startsWith('column ')
      ? [`${object}  ${facts.join(', ')}`]
      : [object, ...facts.map((fact) => `    ${fact}`)]
  })
  return `${lines.join('\n')}\n`
}

function hash(text: string): string {
  return `sha256 ${createHash('sha256').update(text).digest('hex').slice(0, 16)}`
}
