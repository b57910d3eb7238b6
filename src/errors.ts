const names = {
  PQ001: 'QueueNotFoundError',
  PQ002: 'NotSubscribedError',
  PQ003: 'BatchNotFoundError',
  PQ004: 'EventNotFoundError',
  PQ005: 'TickNotFoundError',
  PQ006: 'InsertDisabledError',
  PQ007: 'TransactionLimitError',
  PQ008: 'InvalidArgumentError',
  PQ009: 'ConsumersAttachedError',
  PQ010: 'ExternalTickerError',
  PQ011: 'InconsistentStateError',
  PQ012: 'NoTickError',
  PQ013: 'MaintenanceHookError',
  PQ014: 'CaptureStaleError',
  PQ015: 'QueueCapturedError',
  PQ016: 'TriggerDefinitionError',
  PQ017: 'ChangeDeniedError',
  PQ018: 'EventKeyError',
  PQ019: 'BatchTakenOverError',
  PQ024: 'BatchArgumentError',
  PQ025: 'KeyRepeatedError',
  PQ026: 'RowsMissingError',
  PQ027: 'UniqueIndexMissingError',
  PQ028: 'BatchLockTimeoutError',
  PQ029: 'EventNotApplicableError',
  PQ020: 'ReasonMissingError',
  PQ021: 'ProtectedError',
  PQ022: 'InUseError',
  PQ023: 'OtherDatabaseError',
  PQ030: 'ForeignSchemaError',
  PQ031: 'CreateNotAllowedError',
  PQ032: 'ReadOnlyError',
  PQ033: 'ServerTooOldError',
  PQ034: 'QueuesExistError',
  PQ035: 'NotInstalledError',
  PQ036: 'VersionUnknownError',
  PQ037: 'IrreversibleError',
  PQ038: 'MigrationFailedError',
  PQ039: 'BundleInvalidError',
  PQ040: 'ConnectionError',
  PQ041: 'DependentObjectsError',
  PQ042: 'CooperationError',
  PQ043: 'CaptureOptionError',
  PQ044: 'NotCapturableError',
  PQ055: 'CronMissingError',
  PQ058: 'BatchTakenError',
  PQ060: 'MoverConfigError',
  PQ061: 'NoRouteError',
  PQ065: 'ValueInvalidError',
  PQ066: 'RowInvalidError',
  PQ070: 'EventInvalidError',
  PQ071: 'EventTypeUnknownError',
  PQ072: 'HandlerTimeoutError',
  PQ073: 'TransactionOverError',
  PQ074: 'ConsumerOptionError',
  PQ080: 'TickerConfigError',
  PQ085: 'QueueNeverEmptyError',
} as const

export type ErrorCode = keyof typeof names

/** Every error of ours. Tell them apart by `code` or `name`, never by message. */
export class SkytoolsError extends Error {
  readonly code: ErrorCode
  readonly hint: string | undefined
  constructor(code: ErrorCode, message: string, hint?: string, cause?: unknown) {
    super(message, { cause })
    this.name = names[code]
    this.code = code
    this.hint = hint
  }
}

interface DriverError {
  readonly code: string
  readonly message: string
  readonly hint?: string | undefined
}

function isDriverError(error: unknown): error is DriverError {
  return typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string'
}

export function isErrorCode(code: string): code is ErrorCode {
  return code in names
}

/** An error of our SQL as a SkytoolsError; any other error as it is. */
export function toSkytoolsError(error: unknown): unknown {
  if (error instanceof SkytoolsError || !isDriverError(error) || !isErrorCode(error.code)) return error
  return new SkytoolsError(error.code, error.message, error.hint, error)
}

/** Runs `work` and throws our errors as SkytoolsError. */
export async function mapErrors<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw toSkytoolsError(error)
  }
}
