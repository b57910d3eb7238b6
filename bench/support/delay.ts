// A process between client and server that holds back what the client sends: a network with that round trip.
// Arguments: where to listen, the server's socket, milliseconds.
import { createServer, connect as dial } from 'node:net'

const [listen = '', target = '', delay = '1'] = process.argv.slice(2)

createServer((client) => {
  const server = dial(target)
  client.setNoDelay(true)
  // Timers of one length end in the order in which they began.
  client.on('data', (chunk) => setTimeout(() => server.write(chunk), Number(delay)))
  client.on('end', () => setTimeout(() => server.end(), Number(delay)))
  server.on('data', (chunk) => client.write(chunk))
  server.on('end', () => client.end())
  for (const socket of [client, server])
    socket.on('error', () => {
      client.destroy()
      server.destroy()
    })
}).listen(listen, () => process.send?.('listening'))
