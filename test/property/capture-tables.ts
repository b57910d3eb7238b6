import fc from 'fast-check'

const quote = (name: string) => `"${name.replaceAll('"', '""')}"`
export const literal = (text: string | null) => (text === null ? 'null' : `'${text.replaceAll("'", "''")}'`)

/** Types, each with values that are written differently wherever they differ. */
const types: Readonly<Record<string, readonly string[]>> = {
  integer: ['0', '1', '-7', '2147483647'],
  bigint: ['0', '9007199254740993', '-9223372036854775808'],
  text: [
    '',
    'a',
    `O'Brien & "co" 100%+1`,
    'back\\slash\nline\ttab',
    'õ 漢字 🐘',
    '{"a": null}',
    'null',
    'x'.repeat(3000),
  ],
  'character varying(20)': ['', 'b', '=&+ %'],
  'character(5)': ['a', 'ab  ', ''],
  numeric: ['0', '1.50', '-1e30', 'NaN', '123456789.123456789'],
  'double precision': ['0', '1.5', '-1e-300', 'NaN', 'Infinity'],
  boolean: ['true', 'false'],
  date: ['2020-02-29', 'infinity', '0044-03-15 BC'],
  'timestamp with time zone': ['2020-01-02 03:04:05.6+02', '-infinity', '1970-01-01 00:00:00+00'],
  'timestamp without time zone': ['2020-01-02 03:04:05.678901', 'infinity'],
  bytea: ['\\x', '\\xdeadbeef00'],
  uuid: ['00000000-0000-0000-0000-000000000000', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'],
  jsonb: ['{"k": [1, null, "ü"]}', 'null', '"text"'],
  json: ['{"k":  1}', '[]'],
  'text[]': ['{}', '{a,"b c",NULL}', '{"\\"","\\\\"}'],
  'integer[]': ['{1,2}', '{}'],
  interval: ['1 day', '2 mons 3 hours'],
  inet: ['10.0.0.1', '10.0.0.0/8'],
  mood: ['happy', `it's "so"`],
  posint: ['1', '5'],
  pair: ['(1,a)', '(,)', '(2,"b c")'],
  point: ['(1,2)'],
}
export const typeSql = `create type mood as enum ('happy', 'it''s "so"'); create domain posint as integer check (value > 0);
  create type pair as (n integer, t text)`
const keyTypes = ['integer', 'bigint', 'text', 'uuid', 'date', 'numeric', 'mood', 'posint', 'character varying(20)']
const names = [
  'a',
  'B c',
  'select',
  'quo"te',
  'per%cent',
  "apo'",
  'dotted.name',
  'ünï',
  'back\\slash',
  '$1',
  'new',
  'old',
  'n',
  't',
]
const tables = ['plain', 'T able', 'we"ird.name', 'order', "it's", '100%']

export interface Column {
  readonly name: string
  readonly type: string
}

export interface Table {
  readonly name: string
  readonly columns: readonly Column[]
  /** How many of the columns, from the first, are the key; 0: it has none. */
  readonly key: number
  readonly generated: boolean
  readonly shape: 'plain' | 'partitioned' | 'parent'
}

export const table: fc.Arbitrary<Table> = fc
  .record({
    name: fc.constantFrom(...tables),
    names: fc.shuffledSubarray(names, { minLength: 2, maxLength: 7 }),
    key: fc.constantFrom(0, 1, 1, 1, 2),
    types: fc.array(fc.constantFrom(...Object.keys(types)), { minLength: 7, maxLength: 7 }),
    keyTypes: fc.array(fc.constantFrom(...keyTypes), { minLength: 2, maxLength: 2 }),
    generated: fc.boolean(),
    shape: fc.constantFrom('plain', 'plain', 'plain', 'partitioned', 'parent'),
  })
  .map(({ names: columnNames, types: columnTypes, keyTypes: firstTypes, key: wanted, shape, ...rest }) => {
    // A key does not hold over the children of a table; partitions go by it.
    const key = { parent: 0, partitioned: Math.max(wanted, 1), plain: wanted }[shape]
    const columns = columnNames.map((name, n) => ({ name, type: (n < key ? firstTypes[n] : columnTypes[n]) ?? 'text' }))
    return { ...rest, shape, key, columns }
  })

export const quoted = ({ name }: { readonly name: string }): string => quote(name)

/** Statements that make a table; `suffix` tells the copy from the original. Both have the key, so that both refuse the same. */
export function create(definition: Table, copy: boolean): string {
  const { columns, key, generated, shape } = definition
  const parts = columns.map(({ name, type }) => `${quote(name)} ${type}`)
  if (generated)
    parts.push(
      `gen text generated always as (${quote(columns[0]?.name ?? '')} is null) stored`.replace('text', 'boolean'),
    )
  if (key > 0) parts.push(`primary key (${columns.slice(0, key).map(quoted).join(', ')})`)
  const name = tableName(definition, copy)
  if (copy || shape === 'plain') return `create table ${name} (${parts.join(', ')})`
  if (shape === 'parent') return `create table ${name} (${parts.join(', ')}); create table kid () inherits (${name})`
  // By hash of the first column: a row whose key changes may move.
  const first = quoted(columns[0] ?? { name: '' })
  return `create table ${name} (${parts.join(', ')}) partition by hash (${first});
    create table part0 partition of ${name} for values with (modulus 2, remainder 0);
    create table part1 partition of ${name} for values with (modulus 2, remainder 1)`
}

export const tableName = ({ name }: Table, copy: boolean): string => quote(copy ? `${name} copy` : name)

/** A statement in numbers; which column and which value they mean depends on the table. */
export interface Change {
  readonly kind: 'insert' | 'update' | 'update all' | 'key' | 'delete' | 'upsert' | 'cte' | 'truncate' | 'same'
  readonly numbers: readonly number[]
}

export const change: fc.Arbitrary<Change> = fc.record({
  kind: fc.constantFrom(
    'insert',
    'insert',
    'insert',
    'update',
    'update',
    'update all',
    'key',
    'delete',
    'upsert',
    'cte',
    'truncate',
    'same',
  ),
  numbers: fc.array(fc.nat({ max: 1000 }), { minLength: 24, maxLength: 24 }),
})

export function statement(definition: Table, { kind, numbers }: Change): string {
  const { columns, key } = definition
  const name = tableName(definition, false)
  let used = 0
  const next = () => numbers[used++ % numbers.length] ?? 0
  const pick = <T>(list: readonly T[]): T => list[next() % list.length] as T
  const value = ({ type }: Column, nullable: boolean) => {
    const n = next()
    if (nullable && n % 5 === 0) return 'null'
    if (type === 'integer' || type === 'bigint' || type === 'posint') return `'${(n % 9) + 1}'`
    return `${literal(pick(types[type] ?? ['']))}::${type}`
  }
  const row = () => `(${columns.map((column, n) => value(column, n >= key)).join(', ')})`
  const list = columns.map(quoted).join(', ')
  const some = columns.slice(key).length > 0 ? pick(columns.slice(key)) : undefined
  const first = columns[0] as Column
  const chosen = `${quoted(first)}::text ${next() % 2 ? '>=' : '<'} ${value(first, false)}::text`
  const set = some ? `${quoted(some)} = ${value(some, true)}` : `${quoted(first)} = ${quoted(first)}`
  const insert = (into: string, rows: number) =>
    `insert into ${into} (${list}) values ${Array.from({ length: rows }, row).join(', ')}`
  switch (kind) {
    case 'insert':
      return insert(definition.shape === 'parent' && next() % 2 ? 'kid' : name, 1 + (next() % 4))
    case 'update':
      return `update ${name} set ${set} where ${chosen}`
    case 'update all':
      return `update ${name} set ${set}`
    case 'key':
      return key > 0
        ? `update ${name} set ${quoted(first)} = ${value(first, false)} where ${chosen}`
        : `update ${name} set ${set}`
    case 'delete':
      return `delete from ${name} where ${chosen}`
    case 'upsert':
      if (key === 0) return insert(name, 2)
      return `${insert(name, 1)} on conflict (${columns.slice(0, key).map(quoted).join(', ')}) do update set ${some ? set : `${quoted(first)} = excluded.${quoted(first)}`}`
    case 'cte':
      // Without a key, nothing tells a row that is inserted from an equal one that the same statement deletes.
      if (key === 0) return insert(name, 2)
      return `with d as (delete from ${name} where ${chosen} returning 1) ${insert(name, 2)}`
    case 'truncate':
      return `truncate ${name}`
    case 'same':
      return `update ${name} set ${quoted(first)} = ${quoted(first)}`
  }
}
