import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export const commit = 'a'.repeat(40)

export interface HubFile {
  content: Buffer
  /** listed with a sha256, and served by the second server after a redirect */
  lfs?: boolean
  /** what the listing claims instead of the true digest */
  claimedDigest?: string
}

export interface SeenRequest {
  host: 'hub' | 'cdn'
  path: string
  range: string | undefined
  authorization: string | undefined
}

/** What one download request gets instead of the plain answer. */
export type Fault = { cutAfter: number } | { status: number; retryAfter?: string } | { stallAfter: number }

/** A hub for one repository, org/tiny, with a second server that large files are redirected to. */
export class HubServer {
  readonly files: Map<string, HubFile>
  readonly requests: SeenRequest[] = []
  /** faults of coming download requests, first in, first out */
  readonly faults: Fault[] = []
  /** files in each page of the listing */
  pageSize = 100
  ignoresRange = false
  #hub: Server
  #cdn: Server

  private constructor(files: Map<string, HubFile>) {
    this.files = files
    this.#hub = createServer((request, response) => this.#answerHub(request, response))
    this.#cdn = createServer((request, response) => this.#answerCdn(request, response))
  }

  static async start(files: Record<string, HubFile>) {
    const server = new HubServer(new Map(Object.entries(files)))
    for (const one of [server.#hub, server.#cdn]) {
      one.listen(0, '127.0.0.1')
      await once(one, 'listening')
    }
    return server
  }

  get endpoint() {
    return origin(this.#hub)
  }

  stop() {
    for (const one of [this.#hub, this.#cdn]) {
      one.closeAllConnections()
      one.close()
    }
  }

  downloads(name: string) {
    return this.requests.filter(({ path }) => path.endsWith(`/${name}`))
  }

  #see(host: 'hub' | 'cdn', request: IncomingMessage) {
    const { range, authorization } = request.headers
    this.requests.push({ host, path: request.url!.split('?')[0]!, range, authorization })
  }

  #answerHub(request: IncomingMessage, response: ServerResponse) {
    this.#see('hub', request)
    const url = new URL(request.url!, this.endpoint)
    if (url.pathname.startsWith('/api/models/org/tiny/revision/')) {
      sendJson(response, {
        _id: '1',
        id: 'org/tiny',
        sha: commit,
        lastModified: '2024-01-01',
        private: false,
      })
    } else if (url.pathname === `/api/models/org/tiny/tree/${commit}`) {
      this.#sendListing(url, response)
    } else {
      const name = url.pathname.replace(`/org/tiny/resolve/${commit}/`, '')
      const file = this.files.get(name)
      if (!file) return response.writeHead(404).end()
      if (file.lfs) return response.writeHead(302, { location: `${origin(this.#cdn)}/${name}` }).end()
      this.#sendFile(file, request, response)
    }
  }

  #answerCdn(request: IncomingMessage, response: ServerResponse) {
    this.#see('cdn', request)
    this.#sendFile(this.files.get(request.url!.slice(1))!, request, response)
  }

  #sendListing(url: URL, response: ServerResponse) {
    const from = Number(url.searchParams.get('cursor') ?? 0)
    const all = [...this.files].map(([path, { content, lfs, claimedDigest }]) => {
      const oid = claimedDigest && !lfs ? claimedDigest : gitDigest(content)
      const sha256 = claimedDigest ?? createHash('sha256').update(content).digest('hex')
      const entry = { type: 'file', path, size: content.length, oid }
      return lfs ? { ...entry, lfs: { oid: sha256, size: content.length, pointerSize: 130 } } : entry
    })
    const next = from + this.pageSize
    const link = `<${this.endpoint}${url.pathname}?cursor=${next}>; rel="next"`
    sendJson(response, all.slice(from, next), next < all.length ? { link } : {})
  }

  #sendFile({ content }: HubFile, request: IncomingMessage, response: ServerResponse) {
    const fault = this.faults.shift()
    if (fault && 'status' in fault) {
      response.writeHead(fault.status, fault.retryAfter ? { 'retry-after': fault.retryAfter } : {}).end()
      return
    }
    const range = this.ignoresRange ? null : /^bytes=(\d+)-$/.exec(request.headers.range ?? '')
    const start = range ? Number(range[1]) : 0
    const body = content.subarray(start)
    const headers: Record<string, string> = { 'content-length': String(body.length) }
    if (range) headers['content-range'] = `bytes ${start}-${content.length - 1}/${content.length}`
    response.writeHead(range ? 206 : 200, headers)
    if (!fault) response.end(body)
    else if ('cutAfter' in fault) response.write(body.subarray(0, fault.cutAfter), () => response.destroy())
    else response.write(body.subarray(0, fault.stallAfter))
  }
}

export function gitDigest(content: Buffer) {
  return createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex')
}

function origin(server: Server) {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

function sendJson(response: ServerResponse, value: unknown, headers: Record<string, string> = {}) {
  response.writeHead(200, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value))
}
