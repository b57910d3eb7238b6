import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { sqlFiles } from '../../src/schema/bundle.ts'
import { statements } from './statements.ts'

/** What a header in sql/ says of a function. */
export interface FunctionDoc {
  readonly section: string
  readonly file: string
  /** 'pgq.next_batch'. */
  readonly name: string
  /** 'pgq.next_batch(i_queue_name text, i_consumer_name text) → bigint'. */
  readonly signature: string
  readonly description: string
  readonly parameters: readonly (readonly [name: string, meaning: string])[]
  /** returns, raises, locks, runs as, see: each line of them. */
  readonly fields: readonly (readonly [name: string, text: string])[]
}

const fieldNames = ['returns', 'raises', 'locks', 'runs as', 'see']
const typeNames: Readonly<Record<string, string>> = { int4: 'integer', int8: 'bigint', bool: 'boolean' }

/** The public functions, in the order of sql/order.txt and under its headings. */
export async function functionDocs(root: string): Promise<FunctionDoc[]> {
  const sections = sectionsByFile(root)
  const docs: FunctionDoc[] = []
  for (const file of await sqlFiles(root)) {
    const text = readFileSync(join(root, 'sql', file), 'utf8')
    const typed = new Map((await statements(text)).map(({ header, object }) => [header, object ?? '']))
    for (const [header] of text.matchAll(/^-- \w+\.[a-z]\w*\(.*\) -> .+\n(?:--.*\n)+/gm)) {
      docs.push({ section: sections.get(file) ?? '', file, ...parseHeader(header, typed.get(header.trim())) })
    }
  }
  return docs
}

function sectionsByFile(root: string): Map<string, string> {
  const found = new Map<string, string>()
  let section = ''
  for (const line of readFileSync(join(root, 'sql', 'order.txt'), 'utf8').split('\n')) {
    if (line.startsWith('#')) section = line.replace(/^#\s*/, '')
    else if (line.trim() !== '') found.set(line.trim(), section)
  }
  return found
}

function parseHeader(header: string, object = ''): Omit<FunctionDoc, 'section' | 'file'> {
  const [first = '', ...lines] = header
    .trimEnd()
    .split('\n')
    .map((line) => line.replace(/^-- ?/, ''))
  const [, name = '', list = '', type = ''] = /^([\w.]+)\((.*)\) -> (.+)$/.exec(first) ?? []
  const names = list.split(', ').filter((parameter) => parameter !== '')
  const description: string[] = []
  const entries: [name: string, text: string][] = []
  for (const line of lines) {
    const key = [...fieldNames, ...names].find((word) => line.startsWith(`${word} `))
    const last = entries.at(-1)
    if (key !== undefined) entries.push([key, line.slice(key.length).trim()])
    else if (last && line.startsWith(' ')) last[1] += ` ${line.trim()}`
    else description.push(line)
  }
  const types = object === '' ? [] : (/\((.*)\)$/.exec(object)?.[1]?.split(', ') ?? [])
  const typedNames = names.map((parameter, index) =>
    types.length === names.length ? `${parameter} ${typeNames[types[index] ?? ''] ?? types[index]}` : parameter,
  )
  return {
    name,
    signature: `${name}(${typedNames.join(', ')}) → ${type}`,
    description: description.join(' '),
    parameters: entries.filter(([key]) => names.includes(key)),
    fields: entries.filter(([key]) => !names.includes(key)),
  }
}

/** Markdown of all of them. */
export function describeFunctions(docs: readonly FunctionDoc[]): string {
  const sections = [...new Set(docs.map(({ section }) => section))]
  return sections
    .map((section) => {
      const own = docs.filter((doc) => doc.section === section)
      return `## ${section}\n\n${own.map(describeFunction).join('\n\n')}`
    })
    .join('\n\n')
}

function describeFunction({ signature, description, parameters, fields }: FunctionDoc): string {
  const lines = [
    ...parameters.map(([name, meaning]) => `- \`${name}\`: ${escapeMarkdown(meaning)}`),
    ...fields.map(([name, text]) => `- *${name}* ${escapeMarkdown(text)}`),
  ]
  return [`### \`${signature}\``, '', escapeMarkdown(description), '', ...lines].join('\n')
}

export function escapeMarkdown(text: string): string {
  return text
    .replaceAll(/ {2,}/g, ': ')
    .replaceAll(/[<>|*]/g, '\\$&')
    .replaceAll(/\b_(?=\w)|(?<=\w)_\b/g, '\\_')
}
