export { type AppliedEvents, type ApplyEventsOptions, applyEvents } from './batch/apply-events.ts'
export { type ArchiveOptions, archive } from './batch/archive.ts'
export {
  type BatchChanges,
  type BatchDeleteOptions,
  type BatchMergeOptions,
  type BatchRows,
  type BatchUpdateOptions,
  batchDelete,
  batchMerge,
  batchUpdate,
  batchUpsert,
} from './batch/batch.ts'
export type { Rows } from './batch/source.ts'
export type { BatchCounts, TableName } from './batch/statement.ts'
export {
  type CapturedTable,
  type CaptureFormat,
  type CaptureOperation,
  type CaptureOptions,
  capture,
  capturedTables,
  refreshCapture,
  uncapture,
} from './capture/capture.ts'
export type { Backoff } from './consumer/backoff.ts'
export {
  type Batch,
  type BatchOptions,
  batchEvents,
  finishBatch,
  nextBatch,
  type QueueEvent,
  retryEvent,
} from './consumer/batch.ts'
export { type BatchContext, type BatchHandler, type ConsumedBatch, consumeBatch } from './consumer/consume.ts'
export {
  type ConsumerInfo,
  consumerInfo,
  type RegisterOptions,
  registerConsumer,
  unregisterConsumer,
} from './consumer/consumer.ts'
export {
  type CoopOptions,
  coopBatchEvents,
  finishCoopBatch,
  nextCoopBatch,
  nextPartition,
  registerPartitions,
  touchBatch,
  unregisterWorker,
} from './consumer/coop.ts'
export { type Consumer, type ConsumerStats, createConsumer } from './consumer/create.ts'
export {
  buryEvent,
  type DeadLetter,
  type DeadLetterFilter,
  deadLetters,
  purgeDeadLetters,
  replayDeadLetters,
} from './consumer/dead-letter.ts'
export { on } from './consumer/on.ts'
export type {
  ConsumerListeners,
  ConsumerOptions,
  CoopWorker,
  EventContext,
  EventHandler,
  EventsContext,
  EventsHandler,
  HandledBatch,
  HandlerContext,
  RetryOptions,
} from './consumer/options.ts'
export { pauseConsumer, resumeConsumer, seekConsumer } from './consumer/seek.ts'
export type { Db, ExecOptions, Notice, Row } from './db/db.ts'
export type { DrizzleLike, KnexLike, KyselyLike, PrismaLike } from './db/foreign.ts'
export { type Connectable, type OpenOptions, openDb, toDb } from './db/open.ts'
export { type ErrorCode, SkytoolsError } from './errors.ts'
export type { ServeOptions } from './metrics/http.ts'
export { createMetrics, type Metrics, type MetricsOptions } from './metrics/metrics.ts'
export { serveMetrics } from './metrics/serve.ts'
export { type MoverConfig, type MoverOptions, moverConfig, parseMoverConfig } from './mover/config.ts'
export { createMover, type Mover, type MoverListeners, type MoverStats } from './mover/mover.ts'
export type { Origin } from './mover/route.ts'
export { cancelEventAt, insertEventAt, insertEventOnce } from './queue/delayed.ts'
export { insertEvent, insertEvents, type NewEvent } from './queue/events.ts'
export type { Interval } from './queue/interval.ts'
export {
  createProducer,
  type EventSchemas,
  type Producer,
  type ProducerOptions,
  type TypedEvent,
} from './queue/producer.ts'
export {
  createQueue,
  type DropQueueOptions,
  dropQueue,
  type QueueConfig,
  type QueueInfo,
  queueInfo,
  setQueueConfig,
} from './queue/queue.ts'
export { protect, protection, refuseProtected, unprotect } from './reset/protect.ts'
export { type ResetOptions, type ResetResult, reset, type Seed } from './reset/reset.ts'
export { exactly, type Wiped, type WipeOptions, wipe } from './reset/wipe.ts'
export { type CheckResult, check } from './schema/check.ts'
export { type EjectResult, eject } from './schema/eject.ts'
export { compareFingerprints, type Difference, type Fingerprint, fingerprint } from './schema/fingerprint.ts'
export {
  install,
  type SchemaChange,
  type SchemaStatus,
  schemaStatus,
  type UninstallOptions,
  type UpgradeOptions,
  uninstall,
  upgrade,
} from './schema/install.ts'
export { bundleScript, type ScriptOptions } from './schema/script.ts'
export { type Activity, activity, type ConsumerActivity, type QueueActivity } from './status/activity.ts'
export type { Finding, RetryState } from './status/findings.ts'
export { type Status, status } from './status/status.ts'
export { type LongTransaction, longTransactions } from './status/transactions.ts'
export type { Trouble } from './status/troubles.ts'
export type { TickerConfig, TickerDaemonOptions } from './ticker/config.ts'
export {
  createTicker,
  type TickedDatabase,
  type Ticker,
  type TickerListeners,
  type TickerState,
  type TickerStats,
} from './ticker/daemon.ts'
export { maintain, type Operation, returnRetries } from './ticker/maintain.ts'
export { runTicker, type TickerOptions, type TickerWork } from './ticker/run.ts'
export { serveHealth } from './ticker/serve.ts'
export { tick, tickQueue } from './ticker/tick.ts'
