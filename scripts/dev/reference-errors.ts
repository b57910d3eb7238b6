import { type ErrorCode, SkytoolsError } from '../../src/errors.ts'
import type { FunctionDoc } from './reference-sql.ts'

/** What each error means. The compiler holds it to the codes of src/errors.ts, a test to those that sql/ raises. */
export const meanings: Readonly<Record<ErrorCode, string>> = {
  PQ001: 'There is no queue of that name',
  PQ002: 'The consumer is not subscribed to the queue',
  PQ003: 'The batch is not open: it was finished, or its consumer was moved or unregistered',
  PQ004: 'The event is not in the batch',
  PQ005: 'There is no such tick, or no more',
  PQ006: 'The queue takes no events (`queue_disable_insert`)',
  PQ007: 'More events in one transaction than the queue allows (`queue_per_tx_limit`)',
  PQ008: 'An argument is null, empty, or not one of those allowed',
  PQ009: 'The queue has consumers',
  PQ010: 'The queue is ticked from elsewhere, or its ticker is paused',
  PQ011: 'Ticks or transaction ids contradict each other, as after a restore into a younger cluster',
  PQ012: 'The queue has no tick yet',
  PQ013: 'Maintenance operations failed; the others were done',
  PQ014: 'The options of a capture name a column that its table does not have, or no more',
  PQ015: 'Tables are captured into the queue',
  PQ016: 'A trigger that logs events has wrong arguments, or is made for the wrong events',
  PQ017: 'A trigger with `deny` refuses changes to the table',
  PQ018: 'The key of a changed row is missing, null or changed',
  PQ019: 'The batch was taken over by another worker',
  PQ024: 'An argument of a batch update is wrong: a column, the key, or a word that is not known.',
  PQ025: 'The source of a batch update has two rows with one key.',
  PQ026: 'The target of a batch update lacks rows that the source has, and that was to be an error.',
  PQ027: 'No unique index on the key decides which rows of a batch are inserted.',
  PQ028: 'The lock that a batch update asked for was not granted in time.',
  PQ029: 'An event cannot be applied to a table: it is of no captured table, or does not fit.',
  PQ020: 'A protection needs a reason',
  PQ021: 'The database is protected',
  PQ022: 'Somebody is using the queues, and has not ended in time',
  PQ023: 'The database that was named is not this one',
  PQ030: 'The database has a schema pgq, or parts of it, that this bundle did not install this way',
  PQ031: 'The role may not create schemas in the database',
  PQ032: 'The server is read-only: a standby, or set so',
  PQ033: 'The server is older than Postgres 14',
  PQ034: 'There are queues, so nothing is uninstalled',
  PQ035: 'The bundle is not installed in the database',
  PQ036: 'No such version, or the database is newer than this package',
  PQ037: 'The step cannot be taken back',
  PQ038: 'A migration failed; nothing was changed',
  PQ039: 'The package lacks files, or they are damaged',
  PQ040: 'No connection to the database',
  PQ041: 'Objects of somebody else depend on the bundle',
  PQ042: "Subconsumers, partitions and plain consumers are in each other's way",
  PQ043: 'An option of a capture is unknown, or its value is wrong',
  PQ044: 'Not a table that can be captured',
  PQ055: 'The extension pg_cron is not in the database',
  PQ058: 'What is too big for one consumer has been opened by it, or reached by another one, so its ticks must stay',
  PQ060: 'The configuration of a mover or splitter is wrong',
  PQ061: 'No route fits an event',
  PQ065: 'A value in the rows of a batch does not fit its column.',
  PQ066: 'A row of a batch lacks a column, or has one too many.',
  PQ070: 'The data of an event is not what the schema of its handler asks for',
  PQ071: 'A consumer has no handler for events of this type',
  PQ072: 'A handler took longer than it may',
  PQ073: 'A handler used its transaction after that had ended: it does not wait for its own work, or timed out',
  PQ074: 'The options of a consumer contradict each other, or are out of range',
  PQ080: 'The configuration of a ticker is wrong',
  PQ085: 'A queue does not become empty, in a test: its handler puts in as much as it takes out',
}

export function describeErrors(docs: readonly FunctionDoc[]): string {
  const rows = Object.entries(meanings).map(([code, meaning]) => {
    const raisers = docs.filter(({ fields }) => fields.some(([name, text]) => name === 'raises' && text.includes(code)))
    const names = [...new Set(raisers.map(({ name }) => `\`${name}\``))]
    return `| ${code} | ${new SkytoolsError(code as ErrorCode, '').name} | ${meaning} | ${names.join(', ')} |`
  })
  return ['| SQLSTATE | name in TypeScript | meaning | raised by |', '|---|---|---|---|', ...rows].join('\n')
}
