import { createHash, timingSafeEqual } from 'node:crypto'
import { type Context, Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { SsrlError } from '../errors.ts'
import type { Policy } from '../policy/policy.ts'
import { tokenizerOf } from '../rollout/encode-question.ts'
import type { PromptTemplate } from '../rollout/prompts.ts'
import type { Search } from '../rollout/search.ts'
import { answer, type Work } from './answer.ts'
import { ApiError, toApiError } from './api-error.ts'
import { Gate } from './gate.ts'
import { type ReadOptions, readChat, readText } from './request.ts'
import { searchWriter } from './search-writer.ts'
import { chatShape, textShape } from './shapes.ts'
import { policyWriter } from './write.ts'

export interface ServeOptions {
  policy: Policy
  /** The model's name for requests. */
  model: string
  /** Requests must carry it as `Authorization: Bearer …`; default: whoever reaches the server may ask. */
  apiKey?: string
  /** Largest completion of a request; default: what the context holds. */
  maxNewTokens?: number
  /** Completions under way or waiting at most; default 256. */
  maxPending?: number
  /** Bytes of a request; default 1 MiB. */
  maxBodyBytes?: number
  /** Wording around the user's last turn of a chat; default: none. */
  promptTemplate?: PromptTemplate
  /**
   * Answers searches while the policy writes, from `createSearch`; default: nobody does. Then log-probs and stop strings are
   * refused, as documents stand in the text.
   */
  search?: Search
  /** Once it fires, new requests are refused (503), and those under way go on. */
  closing?: AbortSignal
  /** Receives what went wrong on the server's side (5xx): clients are told little of it. */
  onError?: (error: unknown) => void
}

/**
 * A server of the OpenAI protocol over one policy: `/v1/chat/completions`, `/v1/completions`, `/v1/models`. Requests of
 * all clients are batched by the engine; one whose client leaves ends.
 *
 * @throws SsrlError `ERR_TOKENIZER` for a policy without a tokenizer, `ERR_INVALID_ARG`
 */
export function serveApp(options: ServeOptions): Hono {
  checkOptions(options)
  const { policy, model, maxPending = 256, maxBodyBytes = 2 ** 20, search } = options
  const reading: ReadOptions = {
    policy,
    model,
    maxNewTokens: options.maxNewTokens ?? policy.config.maxPositions,
    promptTemplate: options.promptTemplate ?? null,
  }
  const toAnswer = (error: unknown, left: AbortSignal): ApiError => {
    const told = toApiError(error)
    if (told !== error && told.options.status >= 500 && !left.aborted) options.onError?.(error)
    return told
  }
  const writer = search ? searchWriter(policy, search) : policyWriter(policy)
  const work: Work = { policy, model, gate: new Gate(maxPending), writer, toAnswer }
  const app: ServedApp = new Hono()
  app.onError((error, c) => toAnswer(error, c.get('left')).response())
  app.notFound(({ req }) => {
    const message = `There is no ${req.method} ${req.path} here`
    return new ApiError(message, { status: 404, code: 'unknown_url' }).response()
  })
  guard(app, options)
  app.use(bodyLimit({ maxSize: maxBodyBytes, onError: () => tooLong(maxBodyBytes) }))
  listModel(app, model)
  app.post('/v1/chat/completions', async (c) => {
    const request = readChat(await readJson(c), reading)
    return answer(work, { request, makeShape: chatShape, left: c.get('left') })
  })
  app.post('/v1/completions', async (c) => {
    const request = readText(await readJson(c), reading)
    return answer(work, { request, makeShape: textShape, left: c.get('left') })
  })
  return app as unknown as Hono
}

/** `left` fires when the client leaves. */
type ServedApp = Hono<{ Variables: { left: AbortSignal } }>

function checkOptions({ policy, maxPending, maxBodyBytes, maxNewTokens }: ServeOptions): void {
  tokenizerOf(policy)
  for (const [name, value] of Object.entries({ maxPending, maxBodyBytes, maxNewTokens })) {
    if (value === undefined || (Number.isInteger(value) && value >= 1)) continue
    const message = `Expected an integer of at least 1 for ${name} but received ${value}`
    throw new SsrlError('ERR_INVALID_ARG', message)
  }
}

function guard(app: ServedApp, { apiKey, closing }: ServeOptions): void {
  app.use(async (c, next) => {
    // Taken before the body limit wraps the request into one without it.
    c.set('left', c.req.raw.signal)
    if (closing?.aborted) throw new ApiError('The server is closing', { status: 503, headers: unread })
    if (apiKey !== undefined) checkKey(c.req.header('authorization'), apiKey)
    await next()
  })
}

function listModel(app: ServedApp, model: string): void {
  const card = { id: model, object: 'model', created: Math.floor(Date.now() / 1000), owned_by: 'ssrl' }
  app.get('/v1/models', (c) => c.json({ object: 'list', data: [card] }))
  app.get('/v1/models/:name{.+}', (c) => {
    const name = c.req.param('name')
    if (name === model) return c.json(card)
    throw new ApiError(`The model ${JSON.stringify(name)} does not exist`, {
      status: 404,
      param: 'model',
      code: 'model_not_found',
    })
  })
}

/** With what is answered before the body was read: the rest of it is not to be taken for the next request. */
const unread = { Connection: 'close' }

function checkKey(header: string | undefined, key: string): void {
  const digest = (text: string) => createHash('sha256').update(text).digest()
  // Digests have one length, and comparing them takes the same time whatever was sent.
  if (timingSafeEqual(digest(header ?? ''), digest(`Bearer ${key}`))) return
  throw new ApiError("Expected the server's key as 'Authorization: Bearer KEY'", {
    status: 401,
    code: 'invalid_api_key',
    headers: { ...unread, 'WWW-Authenticate': 'Bearer' },
  })
}

function tooLong(bytes: number): Response {
  return new ApiError(`Expected a request of at most ${bytes} bytes`, {
    status: 413,
    code: 'request_too_large',
    headers: unread,
  }).response()
}

/** A page in a browser can send JSON to this machine without asking, but not under JSON's own name. */
async function readJson(c: Context): Promise<unknown> {
  if (!/^application\/json\s*(;|$)/i.test(c.req.header('content-type') ?? '')) {
    throw new ApiError('Expected the content type application/json', { status: 415 })
  }
  try {
    return await c.req.json()
  } catch (cause) {
    throw new ApiError(`Expected JSON: ${(cause as Error).message}`, { status: 400, cause })
  }
}
