import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { sqlFiles } from '../../src/schema/bundle.ts'
import { type Statement, statements } from './statements.ts'

const fields = ['returns', 'raises', 'locks', 'runs as', 'see']

/**
 * What a header of sql/ must hold: `-- schema.name(parameters) -> type`, a sentence, each parameter by its name, what it
 * returns, as whom it runs, and each SQLSTATE of ours that the body raises.
 */
export async function headerProblems(root: string): Promise<string[]> {
  const problems: string[] = []
  for (const file of await sqlFiles(root)) {
    const list = await statements(readFileSync(join(root, 'sql', file), 'utf8'))
    const headers = new Map<string, string>()
    for (const statement of list.filter(({ kind }) => kind === 'CreateFunctionStmt')) {
      const name = functionName(statement)
      // Overloads may share the header of the first.
      const header = statement.header || headers.get(name) || ''
      headers.set(name, header)
      const where = `sql/${file}:${statement.line} ${name}`
      problems.push(...missing(statement, name, header).map((what) => `${where}: ${what}`))
    }
  }
  return problems
}

function functionName({ object = '' }: Statement): string {
  return object.replace(/^(function|procedure) /, '').replace(/\(.*/, '')
}

function missing({ text }: Statement, name: string, header: string): string[] {
  if (header === '') return ['no header comment above it']
  const lines = header.split('\n').map((line) => line.replace(/^-- ?/, ''))
  const signature = lines[0] ?? ''
  const problems: string[] = []
  if (!lines.some((line) => line.startsWith(`${name}(`) && line.includes(') -> '))) {
    problems.push(`the header does not begin with '-- ${name}(…) -> type' but with ${JSON.stringify(signature)}`)
  }
  if (!/^[A-Z].*[.;:,)]?$/.test(lines[1] ?? '')) problems.push('the second line of the header is no sentence')
  const isPrivate = /\._/.test(name)
  if (!isPrivate && !has(lines, 'returns') && !/-> (void|trigger)/.test(signature)) problems.push("no line 'returns'")
  if (!has(lines, 'runs as')) problems.push("no line 'runs as'")
  // Code that a private function generates raises in another function's name.
  const raised = isPrivate ? [] : text.matchAll(/raise exception[^;]*?errcode = '(PQ\d{3}|40001)'/g)
  const codes = new Set([...raised].map(([, code = '']) => code))
  for (const code of codes) if (!header.includes(code)) problems.push(`raises ${code}, which the header does not say`)
  return problems
}

function has(lines: readonly string[], field: (typeof fields)[number]): boolean {
  return lines.some((line) => line.startsWith(`${field} `))
}
