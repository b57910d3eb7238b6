export type { Db, Notice, Row } from './db/db.ts'
export { type Connectable, openDb, toDb } from './db/open.ts'
export { type ErrorCode, SkytoolsError } from './errors.ts'
