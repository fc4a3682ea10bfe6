import { type ServerType, serve } from '@hono/node-server'
import type { Hono } from 'hono'
import { SsrlError } from '../errors.ts'

export interface ListenOptions {
  /** 0 takes any that is free. */
  port: number
  /** Default `127.0.0.1`: nobody but this machine is served unless told otherwise. */
  host?: string
}

export interface RunningServer {
  /** As `http://127.0.0.1:8000`. */
  readonly url: string
  /** Stops listening. Answers under way get `grace` milliseconds, then they are broken off; default 0. */
  close(options?: { grace?: number }): Promise<void>
}

/** @throws SsrlError `ERR_NETWORK` where the port is taken or the address is not this machine's */
export function listen(app: Hono, { port, host = '127.0.0.1' }: ListenOptions): Promise<RunningServer> {
  return new Promise((resolve, reject) => {
    const server = serve({ fetch: app.fetch, port, hostname: host }, (address) => {
      const shown = address.family === 'IPv6' ? `[${address.address}]` : address.address
      resolve({
        url: `http://${shown}:${address.port}`,
        close: ({ grace = 0 } = {}) => closeServer(server, grace),
      })
    })
    server.once('error', (cause) => {
      reject(new SsrlError('ERR_NETWORK', `Can't listen on ${host}:${port}: ${cause.message}`, { cause }))
    })
  })
}

function closeServer(server: ServerType, grace: number): Promise<void> {
  return new Promise((resolve) => {
    const connections = 'closeAllConnections' in server ? server : null
    // A connection that is kept alive between two answers would hold the server open.
    const sweep = setInterval(() => connections?.closeIdleConnections(), 50)
    const end = setTimeout(() => connections?.closeAllConnections(), grace)
    server.close(() => {
      clearInterval(sweep)
      clearTimeout(end)
      resolve()
    })
    connections?.closeIdleConnections()
  })
}
