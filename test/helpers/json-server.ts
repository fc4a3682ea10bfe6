import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { ExecutionContext } from 'ava'

export interface Received {
  method: string
  path: string
  headers: IncomingHttpHeaders
  body: unknown
}

export interface Answer {
  status?: number
  headers?: Record<string, string>
  /** Sent as it is when a string, else as JSON. */
  body: unknown
}

/** A server that answers by a function, and remembers what it was asked. */
export async function jsonServer(t: ExecutionContext, answer: (received: Received, count: number) => Answer) {
  const received: Received[] = []
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const text = Buffer.concat(chunks).toString()
    const body: unknown = text === '' ? null : JSON.parse(text)
    received.push({ method: request.method!, path: request.url!, headers: request.headers, body })
    const { status = 200, headers = {}, body: sent } = answer(received.at(-1)!, received.length)
    response.writeHead(status, { 'content-type': 'application/json', ...headers })
    response.end(typeof sent === 'string' ? sent : JSON.stringify(sent))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, received }
}
