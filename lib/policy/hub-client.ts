import { setTimeout as sleep } from 'node:timers/promises'
import { SsrlError } from '../errors.ts'

const maxRedirects = 10

export interface HubClientOptions {
  signal?: AbortSignal
  retryDelay?: number
  /** default 5 */
  maxAttempts?: number
}

/** Requests to the hub: the token goes to the hub's own origin only, and what may pass is tried again. */
export class HubClient {
  /** HF_ENDPOINT, or huggingface.co */
  readonly endpoint = (process.env.HF_ENDPOINT || 'https://huggingface.co').replace(/\/+$/, '')
  /** whether any server has answered a request */
  wasAnswered = false
  readonly #signal: AbortSignal | undefined
  readonly #retryDelay: number
  readonly maxAttempts: number

  constructor(options: HubClientOptions) {
    this.#signal = options.signal
    this.#retryDelay = options.retryDelay ?? 1000
    this.maxAttempts = options.maxAttempts ?? 5
  }

  /** In the shape of the global fetch, for @huggingface/hub; repeats on 429, 5xx and lost connections. */
  readonly fetch: typeof fetch = async (input, init) => {
    for (let attempt = 1; ; attempt++) {
      try {
        const response = await this.request(String(input instanceof Request ? input.url : input), init ?? {})
        if (!isTemporary(response.status) || attempt === this.maxAttempts) return response
        await response.body?.cancel()
        await this.wait(attempt, response)
      } catch (cause) {
        this.#signal?.throwIfAborted()
        if (attempt === this.maxAttempts) throw unreachable(this.endpoint, cause)
        await this.wait(attempt)
      }
    }
  }

  /** One request, redirects followed. Rejects when the connection fails or the signal fires. */
  async request(url: string, init: RequestInit): Promise<Response> {
    let target = new URL(url)
    for (let hop = 0; hop <= maxRedirects; hop++) {
      const headers = new Headers(init.headers)
      const token = process.env.HF_TOKEN
      headers.delete('authorization')
      if (token && target.origin === new URL(this.endpoint).origin)
        headers.set('authorization', `Bearer ${token}`)
      const response = await fetch(target, {
        ...init,
        headers,
        redirect: 'manual',
        signal: this.#signal ?? null,
      })
      this.wasAnswered = true
      const location = response.headers.get('location')
      if (response.status < 300 || response.status >= 400 || location === null) return response
      await response.body?.cancel()
      target = new URL(location, target)
    }
    throw new SsrlError('ERR_NETWORK', `${url} redirects more than ${maxRedirects} times`)
  }

  /** Waits before the next attempt: as long as the server asks for (a minute at most), or twice as long each time. */
  async wait(attempt: number, response?: Response) {
    const asked = Number(response?.headers.get('retry-after')) * 1000
    const delay = asked > 0 ? Math.min(asked, 60_000) : this.#retryDelay * 2 ** (attempt - 1)
    await sleep(delay, undefined, { signal: this.#signal }).catch(() => this.#signal?.throwIfAborted())
  }
}

export function isTemporary(status: number) {
  return status === 408 || status === 429 || status >= 500
}

export function unreachable(endpoint: string, cause: unknown): SsrlError {
  if (cause instanceof SsrlError) return cause
  const { message, cause: inner } = cause as Error & { cause?: { message?: string; code?: string } }
  const reason = inner?.message || inner?.code || message
  return new SsrlError(
    'ERR_NETWORK',
    `Can't reach ${endpoint}: ${reason}. Check the connection and HF_ENDPOINT, or pass a local folder`,
    { cause },
  )
}
