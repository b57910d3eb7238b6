import { setTimeout as delay } from 'node:timers/promises'
import { type PgClient, type PgPool, survive } from './pg.ts'

type Handler = (payload: string | undefined) => void
type Stop = () => Promise<void>
interface Notification {
  readonly channel: string
  readonly payload?: string
}

const quoted = (channel: string) => `"${channel.replaceAll('"', '""')}"`

/** Listens on the caller's own connection; when that ends, so does the listening. */
export async function clientListen(client: PgClient, channel: string, handler: Handler): Promise<Stop> {
  const listener = (notification: object) => {
    const { channel: from, payload } = notification as Notification
    if (from === channel) handler(payload ?? '')
  }
  client.on('notification', listener)
  await client.query({ text: `listen ${quoted(channel)}` })
  return async () => {
    client.removeListener('notification', listener)
    await client.query({ text: `unlisten ${quoted(channel)}` }).catch(() => undefined)
  }
}

/** Seconds between attempts to get a lost connection back: the first, and the most. */
const [soonest, latest] = [0.1, 5]

const listeners = new WeakMap<PgPool, ReturnType<typeof makeListener>>()

/** All that listen through a pool share one of its connections. */
export function poolListener(pool: PgPool): ReturnType<typeof makeListener> {
  const known = listeners.get(pool)
  if (known) return known
  const made = makeListener(pool)
  listeners.set(pool, made)
  return made
}

function makeListener(pool: PgPool) {
  const handlers = new Map<string, Set<Handler>>()
  let connection: Promise<Awaited<ReturnType<PgPool['connect']>>> | undefined

  const connect = async () => {
    const client = await pool.connect()
    client.on('notification', received)
    survive(client)
    client.on('end', lost)
    try {
      for (const channel of handlers.keys()) await client.query({ text: `listen ${quoted(channel)}` })
      return client
    } catch (error) {
      forget(client)
      throw error
    }
  }
  const forget = (client: Awaited<ReturnType<PgPool['connect']>>) => {
    client.removeListener('notification', received)
    client.removeListener('end', lost)
    client.release(true)
  }
  const received = (notification: object) => {
    const { channel, payload } = notification as Notification
    for (const handler of handlers.get(channel) ?? []) handler(payload ?? '')
  }
  const lost = () => {
    connection?.then(forget, ignore)
    connection = undefined
    void reconnect()
  }
  const reconnect = async () => {
    for (let wait = soonest; handlers.size > 0 && !connection; wait = Math.min(wait * 2, latest)) {
      await delay(wait * 1000, undefined, { ref: false })
      if (connection || handlers.size === 0) return
      connection = connect()
      try {
        await connection
        for (const set of handlers.values()) for (const handler of set) handler(undefined)
      } catch {
        connection = undefined
      }
    }
  }

  const end = async (): Promise<void> => {
    handlers.clear()
    const client = await connection?.catch(ignore)
    connection = undefined
    if (client) forget(client)
  }

  return {
    end,
    async listen(channel: string, handler: Handler): Promise<Stop> {
      const known = handlers.get(channel)
      const set = known ?? new Set()
      handlers.set(channel, set.add(handler))
      try {
        if (connection) {
          const client = await connection
          if (!known) await client.query({ text: `listen ${quoted(channel)}` })
        } else {
          connection = connect()
          await connection
        }
      } catch (error) {
        set.delete(handler)
        if (set.size === 0) handlers.delete(channel)
        connection = undefined
        throw error
      }
      return async () => {
        set.delete(handler)
        if (set.size > 0) return
        handlers.delete(channel)
        if (handlers.size === 0) return end()
        const client = await connection?.catch(ignore)
        await client?.query({ text: `unlisten ${quoted(channel)}` }).catch(ignore)
      }
    },
  }
}

const ignore = () => undefined
