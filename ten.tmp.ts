import pg from 'pg'
import { batchUpsert } from '/tmp/wt/lead3/src/index.ts'
const client = new pg.Client('postgres://postgres@localhost/lead_b?host=/tmp/lead&port=5499'); await client.connect()
await client.query('drop table if exists big; create unlogged table big (id bigint primary key, n int, txt text)')
let most = 0
const timer = setInterval(() => { most = Math.max(most, process.memoryUsage().rss) }, 20)
function* rows() { for (let i = 0; i < 10_000_000; i++) yield { id: i, n: i % 100, txt: `text ${i}` } }
const b = performance.now()
console.log(await batchUpsert(client, { table: 'big', rows: rows() }), ((performance.now() - b) / 1000).toFixed(0), 's, most rss', Math.round(most / 1048576), 'MB')
clearInterval(timer)
await client.end()
