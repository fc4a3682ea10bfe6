import { SsrlError } from '../errors.ts'
import { RetryableSearchError } from './provider.ts'

export interface JsonRequest {
  url: string
  /** Sent as JSON by POST; without it the request is a GET. */
  body?: unknown
  headers?: Record<string, string>
  signal: AbortSignal
  /** Never shown, should the server repeat it. */
  secret?: string
  /** Bytes of the answer; default 32 MiB. */
  maxBytes?: number
}

/**
 * One request for JSON.
 * @throws RetryableSearchError for status 429 and 5xx and where the server can't be reached; SsrlError ERR_SEARCH for
 * another status, an answer that is too long or no JSON; the signal's reason after an abort
 */
export async function fetchJson(request: JsonRequest): Promise<unknown> {
  const { url, body, headers, signal } = request
  const place = new URL(url).origin
  const response = await fetch(url, {
    method: body === undefined ? 'GET' : 'POST',
    headers: { accept: 'application/json', ...(body === undefined ? {} : jsonHeader), ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
  }).catch((cause: unknown) => {
    signal.throwIfAborted()
    throw new RetryableSearchError('ERR_NETWORK', `${place} can't be reached: ${reasonOf(cause)}`, { cause })
  })
  const text = await readText(response, request, place)
  if (!response.ok) throw statusError(response, text, request, place)
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new SsrlError('ERR_SEARCH', `Expected JSON from ${place} but received ${excerpt(text, request)}`, {
      cause,
    })
  }
}

const jsonHeader = { 'content-type': 'application/json' }

async function readText(response: Response, { signal, maxBytes = 2 ** 25 }: JsonRequest, place: string) {
  const chunks: Uint8Array[] = []
  let length = 0
  try {
    for await (const chunk of response.body ?? []) {
      length += chunk.length
      if (length > maxBytes) break
      chunks.push(chunk)
    }
  } catch (cause) {
    signal.throwIfAborted()
    throw new RetryableSearchError('ERR_NETWORK', `${place} broke off: ${reasonOf(cause)}`, { cause })
  }
  if (length <= maxBytes) return Buffer.concat(chunks).toString('utf8')
  throw new SsrlError('ERR_SEARCH', `Expected at most ${maxBytes} bytes from ${place} but it sends more`)
}

function statusError(response: Response, text: string, request: JsonRequest, place: string): SsrlError {
  const message = `${place} answered with status ${response.status}: ${excerpt(text, request)}`
  if (response.status !== 429 && response.status < 500) return new SsrlError('ERR_SEARCH', message)
  const seconds = Number(response.headers.get('retry-after') ?? 0)
  const retryAfter = Number.isFinite(seconds) && seconds > 0 ? seconds * 1000 : 0
  return new RetryableSearchError('ERR_SEARCH', message, { retryAfter })
}

function excerpt(text: string, { secret }: JsonRequest): string {
  const clean = secret ? text.replaceAll(secret, '***') : text
  return JSON.stringify(clean.slice(0, 200))
}

/** Undici's own message is always "fetch failed"; what happened is its cause. */
function reasonOf(cause: unknown): string {
  const inner = (cause as { cause?: { code?: string; message?: string } }).cause
  return inner?.code ?? inner?.message ?? (cause as Error).message
}
