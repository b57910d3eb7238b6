import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { Readable } from 'node:stream'
import { CsvError, type Info, parse } from 'csv-parse'

/** What is wrong with the input, with its file and line. */
export class InputError extends Error {
  override readonly name = 'InputError'
}

export type InputRecord = Readonly<Record<string, unknown>>

export interface Source {
  readonly name: string
  readonly format: 'CSV' | 'NDJSON'
  readonly records: AsyncIterable<InputRecord>
}

/** Opens a file, or standard input for `-`. What begins with a brace or a bracket is NDJSON, everything else CSV. */
export async function openSource(path: string, stdin: Readable = process.stdin): Promise<Source> {
  const name = path === '-' ? 'standard input' : path
  const stream = path === '-' ? stdin : createReadStream(path)
  try {
    const { head, whole } = await peek(stream)
    if (head === '') throw new InputError(`${name} is empty`)
    const ndjson = /^\s*[{[]/.test(head)
    return ndjson
      ? { name, format: 'NDJSON', records: ndjsonRecords(name, whole) }
      : { name, format: 'CSV', records: csvRecords(name, whole, delimiterOf(head)) }
  } catch (error) {
    throw readable(name, error)
  }
}

/** The first line, and a stream that still has it. */
async function peek(stream: Readable): Promise<{ head: string; whole: Readable }> {
  const iterator: AsyncIterator<Buffer | string> = stream[Symbol.asyncIterator]()
  const chunks: Buffer[] = []
  const text = () =>
    Buffer.concat(chunks)
      .toString()
      .replace(/^\uFEFF/, '')
      .trimStart()
  let ended = false
  while (!ended && !text().includes('\n')) {
    const { value, done } = await iterator.next()
    if (done) ended = true
    else chunks.push(Buffer.from(value))
  }
  async function* rest() {
    yield* chunks
    for (let next = await iterator.next(); !next.done; next = await iterator.next()) yield next.value
  }
  return { head: text().split('\n', 1)[0] ?? '', whole: Readable.from(rest(), { objectMode: false }) }
}

function delimiterOf(header: string): string {
  if (header.includes(',')) return ','
  return [';', '\t'].find((character) => header.includes(character)) ?? ','
}

async function* csvRecords(name: string, stream: Readable, delimiter: string): AsyncGenerator<InputRecord> {
  const columns = (header: string[]) => {
    const twice = header.find((column, index) => header.indexOf(column) !== index)
    if (twice !== undefined) throw new InputError(`${name}, line 1: two columns are named ${JSON.stringify(twice)}`)
    return header
  }
  const parser = stream.pipe(parse({ columns, delimiter, bom: true, info: true, skip_empty_lines: true }))
  stream.on('error', (error) => parser.destroy(error))
  let count = 0
  try {
    for await (const { info, record } of parser as AsyncIterable<{ info: Info; record: InputRecord }>) {
      refuseZero(name, info.lines, Object.values(record))
      count += 1
      yield record
    }
  } catch (error) {
    throw readable(name, error)
  }
  if (count === 0) throw new InputError(`${name} has a header line and no records below it`)
}

async function* ndjsonRecords(name: string, stream: Readable): AsyncGenerator<InputRecord> {
  let line = 0
  try {
    for await (const text of createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY })) {
      line += 1
      const json = line === 1 ? text.replace(/^\uFEFF/, '') : text
      if (json.trim() === '') continue
      yield ndjsonRecord(name, line, json)
    }
  } catch (error) {
    throw readable(name, error)
  }
}

function ndjsonRecord(name: string, line: number, json: string): InputRecord {
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new InputError(`${name}, line ${line}: not JSON: ${reason}`)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new InputError(
      `${name}, line ${line}: each line must hold one JSON object, such as {"type": "order", "id": 1}`,
    )
  }
  return value as InputRecord
}

function refuseZero(name: string, line: number, fields: readonly unknown[]): void {
  if (fields.some((field) => String(field).includes('\0'))) {
    throw new InputError(`${name}, line ${line}: a zero byte, which Postgres cannot store in a text`)
  }
}

function readable(name: string, error: unknown): unknown {
  if (error instanceof CsvError) {
    // The parser counts from where the record began; its message ends with the line.
    return new InputError(`${name}, line ${error.lines ?? '?'}: ${error.message.replace(/ (on|at) line \d+.*$/s, '')}`)
  }
  if (!(error instanceof Error) || !('code' in error)) return error
  const reasons: Readonly<Record<string, string>> = {
    ENOENT: 'there is no such file',
    EISDIR: 'it is a folder',
    EACCES: 'the permission is missing',
  }
  const reason = reasons[String(error.code)]
  return reason ? new InputError(`cannot read ${name}: ${reason}`) : error
}
