import { join, relative } from 'node:path'
import ts from 'typescript'

/** Markdown of what `import … from 'skytools'` gives: each export with its doc comment. */
export function describeLibrary(root: string): string {
  const index = join(root, 'src', 'index.ts')
  const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile)
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root)
  const program = ts.createProgram([index], options)
  const checker = program.getTypeChecker()
  const file = program.getSourceFile(index)
  const symbol = file && checker.getSymbolAtLocation(file)
  if (!symbol) throw new Error('src/index.ts exports nothing')
  const entries = checker.getExportsOfModule(symbol).flatMap((found) => {
    const target = found.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(found) : found
    const declaration = target.declarations?.[0]
    return declaration ? [{ name: found.name, target, declaration }] : []
  })
  const folderOf = (declaration: ts.Declaration) =>
    relative(join(root, 'src'), declaration.getSourceFile().fileName).split('/').slice(0, -1).join('/')
  const folders = ['queue', 'consumer', 'ticker', 'status', 'schema', 'db', '']
  const titles: Readonly<Record<string, string>> = {
    queue: 'Queues and events',
    consumer: 'Consuming',
    ticker: 'Ticker and maintenance',
    status: 'Status',
    schema: 'Installing and checking',
    db: 'Databases',
    '': 'Errors',
  }
  return folders
    .map((folder) => {
      const own = entries.filter(({ declaration }) => folderOf(declaration) === folder)
      const functions = own.filter(({ declaration }) => ts.isFunctionDeclaration(declaration))
      const others = own.filter((entry) => !functions.includes(entry))
      return `## ${titles[folder]}\n\n${[...functions, ...others]
        .map(({ name, target, declaration }) => describe(checker, name, target, declaration))
        .join('\n\n')}`
    })
    .join('\n\n')
}

function describe(checker: ts.TypeChecker, name: string, symbol: ts.Symbol, declaration: ts.Declaration): string {
  const text = ts.displayPartsToString(symbol.getDocumentationComment(checker)).replaceAll(/\s*\n\s*/g, ' ')
  const tags = symbol.getJsDocTags(checker).map((tag) => {
    const content = ts.displayPartsToString(tag.text).replaceAll(/\s*\n\s*/g, ' ')
    if (tag.name === 'param') return content.replace(/^(\S+) /, '- `$1`: ')
    return tag.name === 'remarks' ? `- ${content}` : `- *${tag.name}* ${content}`
  })
  const code = `\`\`\`ts\n${declarationText(declaration)}\n\`\`\``
  return [`### ${name}`, ...(text ? [text] : []), code, ...(tags.length > 0 ? [tags.join('\n')] : [])].join('\n\n')
}

/** A function without its body, everything else as it is written. */
function declarationText(declaration: ts.Declaration): string {
  const source = declaration.getSourceFile()
  const text = declaration.getText(source)
  if (ts.isFunctionDeclaration(declaration) && declaration.body) {
    return text
      .slice(0, declaration.body.getStart(source) - declaration.getStart(source))
      .trim()
      .replace(/^export (async )?/, '')
  }
  return text.replace(/^export /, '')
}
