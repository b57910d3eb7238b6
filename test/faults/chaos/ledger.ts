import type { Db } from '../../../src/index.ts'
import { poison, type Role } from './roles.ts'

/** What was sent and what was handled, and each rotation, all noted in the transaction that did it. */
export async function createLedger(db: Db): Promise<void> {
  await db.exec(`create schema chaos;
    create table chaos.sent (queue text not null, id text primary key, type text not null);
    create table chaos.handled (queue text not null, consumer text not null, id text not null, how text not null);`)
  await countRotations(db)
}

/** From now on `rotations()` tells how often the queues have rotated. */
export async function countRotations(db: Db): Promise<void> {
  await db.exec(`create table public.rotation (queue_id integer);
    create function public.note_rotation() returns trigger language plpgsql as $$
      begin
        insert into public.rotation values (new.queue_id);
        return null;
      end $$;
    create trigger note_rotation after update on pgq.queue for each row
      when (new.queue_cur_table <> old.queue_cur_table) execute function public.note_rotation();`)
}

export async function rotations(db: Db): Promise<number> {
  const [row] = await db.query<{ n: number }>('select count(*)::int as n from public.rotation')
  return row?.n ?? 0
}

export interface Account {
  readonly consumer: string
  readonly sent: number
  /** Sent and neither handled nor, where it is poison, a dead letter. */
  readonly missing: number
  /** Handled more than once. */
  readonly doubled: number
  /** Handled, and nobody has sent it: its transaction was rolled back. */
  readonly foreign: number
  /** Dead letters that are no poison; poison that counts as handled. */
  readonly unduly: number
}

/** What became of the events for each consumer. */
export async function settle(db: Db, roles: readonly Role[]): Promise<Account[]> {
  const consumers = roles.filter((role) => role.kind === 'consumer')
  const names = new Map(consumers.map(({ consumer, queue }) => [consumer, queue]))
  const found = await Promise.all(
    [...names].map(([consumer, queue]) =>
      db.query<Account & Record<string, unknown>>(
        `with handled as (select id, count(*) as times from chaos.handled where queue = $1 and consumer = $2 group by id),
              dead as (select ev_data as id from pgq.dead_letter where queue_name = $1 and consumer_name = $2),
              sent as (select id, type from chaos.sent where queue = $1)
         select $2::text as consumer,
                (select count(*) from sent)::int as sent,
                (select count(*) from sent s
                  where not exists (select from handled h where h.id = s.id)
                    and not (s.type = $3 and exists (select from dead d where d.id = s.id)))::int as missing,
                (select count(*) from handled where times > 1)::int as doubled,
                (select count(*) from handled h where not exists (select from sent s where s.id = h.id))::int as foreign,
                ((select count(*) from dead d where not exists (select from sent s where s.id = d.id and s.type = $3))
                 + (select count(*) from handled h join sent s using (id) where s.type = $3))::int as unduly`,
        [queue, consumer, poison],
      ),
    ),
  )
  return found.flat()
}

/** Nothing waits any more to be handled. */
export async function drained(db: Db, roles: readonly Role[]): Promise<boolean> {
  const [row] = await db.query<{ waiting: boolean }>(
    'select exists (select from pgq.retry_queue) or exists (select from pgq.delayed_event) as waiting',
  )
  if (row?.waiting) return false
  return (await settle(db, roles)).every(({ missing }) => missing === 0)
}

/** How the events came to be handled that were handled twice where that must not be, for the report. */
export function suspects(db: Db): Promise<object[]> {
  return db.query(
    `select h.consumer, s.queue, s.type, s.id, array_agg(h.how order by h.how) as how
       from chaos.handled h join chaos.sent s using (id)
      where h.consumer not like 'at least%' group by 1, 2, 3, 4 having count(*) > 1 limit 20`,
  )
}
