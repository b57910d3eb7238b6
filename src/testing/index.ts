// What tests of applications need: `import { withQueueDatabase, drain, tickNow } from 'skytools/testing'`.

export { type QueueDatabase, type QueueDatabaseOptions, withQueueDatabase } from './database.ts'
export { drain, tickNow } from './drain.ts'
