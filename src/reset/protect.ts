import { value } from '../db/call.ts'
import type { Connectable } from '../db/open.ts'

/** Marks a database, so that whatever destroys queues refuses it unless it is named.
 *
 * @param reason shown in each refusal, such as `production`
 * @throws ReasonMissingError (PQ020)
 * @remarks Needs pgq_admin. */
export async function protect(db: Connectable, reason: string): Promise<void> {
  await value(db, 'select skytools.protect($1) as value', [reason])
}

/** Takes the mark away.
 *
 * @returns false when there was none
 * @remarks Needs pgq_admin. */
export function unprotect(db: Connectable): Promise<boolean> {
  return value<boolean>(db, 'select skytools.unprotect() as value')
}

/** Why a database is protected; undefined when it is not, or has no skytools. */
export async function protection(db: Connectable): Promise<string | undefined> {
  const there = await value<boolean>(db, `select to_regprocedure('skytools.protection()') is not null as value`)
  return there ? ((await value<string | null>(db, 'select skytools.protection() as value')) ?? undefined) : undefined
}

/** Throws where something shall be destroyed in a protected database.
 *
 * @param action what shall be done, for the message
 * @param database the name of the database, to insist
 * @throws ProtectedError (PQ021), OtherDatabaseError (PQ023) */
export async function refuseProtected(db: Connectable, action: string, database: string | undefined): Promise<void> {
  const there = await value<boolean>(db, `select to_regprocedure('skytools.protection()') is not null as value`)
  if (there) await value(db, 'select skytools.refuse_protected($1, $2) as value', [action, database ?? null])
}
