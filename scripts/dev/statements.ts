import { parse } from 'libpg-query'

type Node = Record<string, unknown>

export interface Statement {
  /** What it makes, e.g. 'function pgq.version()'; undefined for one that makes nothing with a name. */
  readonly object: string | undefined
  /** 'CreateFunctionStmt' and so on, in the words of Postgres. */
  readonly kind: string
  /** Without the comments above it. */
  readonly text: string
  /** The comments above it, if any: the header of a function. */
  readonly header: string
  /** First line of the text in its file. */
  readonly line: number
}

interface ParseResult {
  readonly stmts?: readonly {
    readonly stmt: Record<string, Node>
    readonly stmt_location?: number
    readonly stmt_len?: number
  }[]
}

/** The statements of a piece of SQL, by Postgres's own parser. Throws with the line where it does not parse. */
export async function statements(sql: string): Promise<Statement[]> {
  const bytes = Buffer.from(sql)
  const result = (await parseSql(sql)) as ParseResult
  let end = 0
  return (result.stmts ?? []).map(({ stmt, stmt_location: start = 0, stmt_len: length }) => {
    // The parser may begin a statement at its first word, or already at the comments above it.
    const whole = bytes.subarray(end, length ? start + length : undefined).toString()
    const from = end
    end = start + (length ?? 0)
    const lead = /^;?(?:\s|--[^\n]*\n)*/.exec(whole)?.[0] ?? ''
    const [kind = '', node = {}] = Object.entries(stmt)[0] ?? []
    const header =
      lead
        .split(/\n[ \t]*\n/)
        .at(-1)
        ?.replace(/^;/, '')
        .trim() ?? ''
    const line = bytes.subarray(0, from).toString().split('\n').length + lead.split('\n').length - 1
    return { object: objectOf(kind, node), kind, text: `${whole.slice(lead.length).trim()};`, header, line }
  })
}

async function parseSql(sql: string): Promise<unknown> {
  try {
    return await parse(sql)
  } catch (error) {
    const details = (error as { sqlDetails?: { message: string; cursorPosition: number } }).sqlDetails
    if (!details) throw error
    const line = Buffer.from(sql).subarray(0, details.cursorPosition).toString().split('\n').length
    throw new Error(`line ${line}: ${details.message}`, { cause: error })
  }
}

function objectOf(kind: string, node: Node): string | undefined {
  switch (kind) {
    case 'CreateFunctionStmt':
      return `${node.is_procedure ? 'procedure' : 'function'} ${names(node.funcname)}(${inputTypes(node.parameters).join(', ')})`
    case 'ViewStmt':
      return `view ${relation(node.view)}`
    case 'CreateTrigStmt':
      return `trigger ${node.trigname} on ${relation(node.relation)}`
    case 'CreateStmt':
      return `table ${relation(node.relation)}`
    case 'IndexStmt':
      return `index ${node.idxname} on ${relation(node.relation)}`
    case 'CreateSeqStmt':
      return `sequence ${relation(node.sequence)}`
    case 'CreateSchemaStmt':
      return `schema ${node.schemaname}`
    default:
      return undefined
  }
}

function names(list: unknown): string {
  return (list as { String: { sval: string } }[]).map((part) => part.String.sval).join('.')
}

function relation(node: unknown): string {
  const { schemaname, relname } = node as { schemaname?: string; relname: string }
  return schemaname ? `${schemaname}.${relname}` : relname
}

interface Parameter {
  readonly FunctionParameter: {
    readonly name?: string
    readonly mode?: string
    readonly argType: { readonly names: unknown; readonly arrayBounds?: unknown[] }
  }
}

function inputTypes(list: unknown): string[] {
  return ((list ?? []) as Parameter[])
    .map(({ FunctionParameter: parameter }) => parameter)
    .filter(({ mode }) => mode !== 'FUNC_PARAM_OUT' && mode !== 'FUNC_PARAM_TABLE')
    .map(({ argType }) => names(argType.names).replace(/^pg_catalog\./, '') + (argType.arrayBounds ? '[]' : ''))
}
