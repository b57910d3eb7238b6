// A process that sends messages at a steady rate.
// Arguments: the database's url, the statement, messages a second, seconds.
import pg from 'pg'

const [url = '', statement = '', rate = '1', seconds = '1'] = process.argv.slice(2)
const pool = new pg.Pool({ connectionString: url, max: 8 })
await Promise.all(Array.from({ length: 8 }, () => pool.query('select pg_sleep(0.1)')))
process.send?.('ready')

const start = performance.now()
const total = Number(rate) * Number(seconds)
let sent = 0
const waiting = new Set<Promise<unknown>>()
while (sent < total) {
  const due = Math.min(total, Math.ceil(((performance.now() - start) * Number(rate)) / 1000))
  for (; sent < due; sent += 1) {
    const query = pool.query({ name: 'send', text: statement })
    waiting.add(query)
    query.finally(() => waiting.delete(query))
  }
  await new Promise((resolve) => setTimeout(resolve, Math.min(1000 / Number(rate), 5)))
}
await Promise.all(waiting)
await pool.end()
process.send?.('done')
process.disconnect?.()
