export type { Db, ExecOptions, Notice, Row } from './db/db.ts'
export { type Connectable, openDb, toDb } from './db/open.ts'
export { type ErrorCode, SkytoolsError } from './errors.ts'
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
