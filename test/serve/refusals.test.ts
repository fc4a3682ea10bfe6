import { request as httpRequest } from 'node:http'
import test from 'ava'
import OpenAI from 'openai'
import { listen } from '../../lib/serve/listen.ts'
import { serveApp } from '../../lib/serve/serve-app.ts'
import { tinyPolicy } from '../helpers/tiny-policy.ts'
import { serving } from './serving.ts'

const chat = { model: 'tiny', messages: [{ role: 'user', content: 'Hi' }], max_tokens: 2 }
const text = { model: 'tiny', prompt: 'Hi', max_tokens: 2 }
const json = { 'Content-Type': 'application/json' }

async function post(url: string, body: unknown, headers: Record<string, string> = json) {
  const sent = typeof body === 'string' ? body : JSON.stringify(body)
  const response = await fetch(url, { method: 'POST', headers, body: sent })
  const { error } = (await response.json()) as { error?: Record<string, unknown> }
  return { status: response.status, headers: response.headers, error }
}

/** Title, endpoint, body (fields over a good one, or all of it as text), status, message, and what else the error says. */
const wrong: [string, 'chat/completions' | 'completions', object | string, RegExp, object?][] = [
  ['malformed JSON', 'completions', '{"model": ', /^Expected JSON: /],
  ['an empty body', 'completions', '', /^Expected JSON: /],
  ['a body that is no object', 'completions', '[]', /expected object/],
  [
    'no model',
    'completions',
    { model: undefined },
    /^model: Expected the name of a model/,
    { param: 'model' },
  ],
  ['an unknown field', 'completions', { temprature: 1 }, /Unrecognized key: "temprature"/],
  ['no prompt', 'completions', { prompt: undefined }, /^prompt: Expected a text/, { param: 'prompt' }],
  ['a prompt of numbers that are no ids', 'completions', { prompt: [1.5] }, /^prompt: Expected a text/],
  ['ids beyond the vocabulary', 'completions', { prompt: [1_000_000] }, /Expected token ids below \d+/],
  ['an empty list of prompts', 'completions', { prompt: [] }, /^prompt: Expected a text/],
  ['no messages', 'chat/completions', { messages: [] }, /^messages: /, { param: 'messages' }],
  ['messages that are a text', 'chat/completions', { messages: 'Hi' }, /^messages: .*expected array/],
  [
    'a role that there is not',
    'chat/completions',
    { messages: [{ role: 'boss', content: 'Hi' }] },
    /^messages\.0\.role: /,
    { param: 'messages.0.role' },
  ],
  [
    'a picture',
    'chat/completions',
    { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] },
    /^messages\.0\.content: Expected a string or a list of parts/,
  ],
  ['a temperature that is a text', 'completions', { temperature: 'hot' }, /^temperature: .*expected number/],
  ['a temperature below 0', 'completions', { temperature: -1 }, /^temperature: /],
  ['top_p over 1', 'completions', { top_p: 1.5 }, /^top_p: /, { param: 'top_p' }],
  ['top_k below -1', 'completions', { top_k: -2 }, /^top_k: /],
  ['n of 0', 'chat/completions', { n: 0 }, /^n: /],
  ['n of 1.5', 'chat/completions', { n: 1.5 }, /^n: /],
  ['max_tokens of 0', 'completions', { max_tokens: 0 }, /^max_tokens: /],
  [
    'more new tokens than the server gives',
    'completions',
    { max_tokens: 101 },
    /at most 100 new tokens but 101/,
  ],
  ['a seed that is no integer', 'completions', { seed: 0.5 }, /^seed: /],
  ['an empty stop string', 'completions', { stop: ['a', ''] }, /^stop/],
  ['stream that is no boolean', 'completions', { stream: 'yes' }, /^stream: /],
  [
    'stream_options without stream',
    'completions',
    { stream_options: { include_usage: true } },
    /needs stream/,
  ],
  ['tools', 'chat/completions', { tools: [{ type: 'function' }] }, /^tools: .*not supported here/],
  ['JSON as the format', 'chat/completions', { response_format: { type: 'json_object' } }, /only .* text/],
  ['a penalty', 'chat/completions', { frequency_penalty: 0.5 }, /penalties are not supported/],
  ['echo', 'completions', { echo: true }, /^echo: /],
  ['best_of over n', 'completions', { best_of: 3 }, /best_of other than n/],
  [
    'top_logprobs, which the engine does not know',
    'chat/completions',
    { logprobs: true, top_logprobs: 2 },
    /the log-prob of the sampled token is all that is known here/,
    { param: 'top_logprobs', code: 'unsupported_value' },
  ],
  ['top_logprobs of a completion', 'completions', { logprobs: 1 }, /take logprobs: 0/, { param: 'logprobs' }],
  [
    'a prompt longer than the context',
    'completions',
    { prompt: 'Hi '.repeat(300) },
    /The context holds 256 tokens/,
    { code: 'context_length_exceeded' },
  ],
]

test('what is wrong with a request is 400 with the field and the reason, and the server goes on', async (t) => {
  const { url, client } = await serving(t, { maxNewTokens: 100 })
  for (const [title, endpoint, change, message, more = {}] of wrong) {
    const good = endpoint === 'completions' ? text : chat
    const body = typeof change === 'string' ? change : { ...good, ...change }
    const { status, error } = await post(`${url}/v1/${endpoint}`, body)
    t.is(status, 400, title)
    t.regex(String(error!.message), message, title)
    t.like(error, { type: 'invalid_request_error', ...more }, title)
    t.deepEqual(Object.keys(error!), ['message', 'type', 'param', 'code'])
  }
  t.is((await client.completions.create(text)).choices.length, 1)
})

test("the official client makes its own errors of them: another model's name is NotFoundError", async (t) => {
  const { client } = await serving(t)
  const other = client.completions.create({ ...text, model: 'gpt-4' })
  const error = await t.throwsAsync(other, { instanceOf: OpenAI.NotFoundError })
  t.like(error, { status: 404, code: 'model_not_found', param: 'model' })
  const streamed = client.completions.create({ ...text, stream: true, prompt: [1_000_000] })
  await t.throwsAsync(streamed, { instanceOf: OpenAI.BadRequestError })
})

test('another path or method is 404, and another content type 415', async (t) => {
  const { url } = await serving(t)
  const { status, error } = await post(`${url}/v1/embeddings`, {})
  t.is(status, 404)
  t.is(error!.message, 'There is no POST /v1/embeddings here')
  const got = await fetch(`${url}/v1/completions`)
  t.is(got.status, 404)
  const plain = await post(`${url}/v1/completions`, text, { 'Content-Type': 'text/plain' })
  t.is(plain.status, 415)
})

test('a request beyond the size limit is 413, whether it says its size or not', async (t) => {
  const { url } = await serving(t, { maxBodyBytes: 1000 })
  const large = JSON.stringify({ ...text, prompt: 'x'.repeat(2000) })
  const { status, error } = await post(`${url}/v1/completions`, large)
  t.is(status, 413)
  t.is(error!.code, 'request_too_large')
  const inChunks = (body: string) =>
    new Promise((resolve, reject) => {
      const sent = httpRequest(`${url}/v1/completions`, { method: 'POST', headers: json }, (response) => {
        response.resume()
        resolve(response.statusCode)
      })
      sent.on('error', reject)
      sent.write(body.slice(0, 10))
      sent.end(body.slice(10))
    })
  t.is(await inChunks(large), 413)
  t.is(await inChunks(JSON.stringify(text)), 200)
  t.is((await post(`${url}/v1/completions`, text)).status, 200)
})

test('more completions than fit are 429 with Retry-After, and once others are over there is room', async (t) => {
  const { url, client } = await serving(t, { maxPending: 2, maxPositions: 60_000 })
  const controller = new AbortController()
  const endless = { ...text, n: 2, max_tokens: 50_000, ignore_eos: true, stream: true } as const
  const stream = await client.completions.create(endless, { signal: controller.signal })
  await stream[Symbol.asyncIterator]().next()
  const { status, headers, error } = await post(`${url}/v1/completions`, text)
  t.is(status, 429)
  t.regex(headers.get('retry-after')!, /^[1-9]\d*$/)
  t.like(error, { type: 'rate_limit_error', code: 'queue_full' })
  await t.throwsAsync(client.completions.create(text), { instanceOf: OpenAI.RateLimitError })
  const never = await post(`${url}/v1/completions`, { ...text, n: 3 })
  t.is(never.status, 400)
  t.is(never.error!.param, 'n')
  controller.abort()
  // The client of the protocol waits as it was told, and gets through.
  const patient = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'any', maxRetries: 3 })
  t.is((await patient.completions.create(text)).choices.length, 1)
})

test('with a key, requests without it are 401', async (t) => {
  const { url, client } = await serving(t, { apiKey: 'secret' })
  t.is((await client.completions.create(text)).choices.length, 1)
  for (const headers of [
    json,
    { ...json, Authorization: 'Bearer secre' },
    { ...json, Authorization: 'secret' },
  ]) {
    const { status, error } = await post(`${url}/v1/completions`, text, headers)
    t.is(status, 401)
    t.is(error!.code, 'invalid_api_key')
    t.false(JSON.stringify(error).includes('secret'))
  }
  t.is((await fetch(`${url}/v1/models`)).status, 401)
})

test('what goes wrong while a stream is under way is its last event, an error to the client', async (t) => {
  const seen: unknown[] = []
  const onError = (error: unknown) => seen.push((error as { code?: string }).code)
  const { client, policy } = await serving(t, { maxPositions: 60_000, onError })
  const endless = { ...text, max_tokens: 50_000, ignore_eos: true, stream: true } as const
  const chunks = await client.completions.create(endless)
  const reading = async () => {
    let count = 0
    for await (const _ of chunks) if (++count === 3) void policy.dispose()
  }
  await t.throwsAsync(reading(), { instanceOf: OpenAI.APIError, message: /disposed/ })
  await t.throwsAsync(client.completions.create(text), { message: /503 .*disposed/ })
  t.deepEqual(seen, ['ERR_DISPOSED', 'ERR_DISPOSED'])
})

test('a server that closes lets answers finish, takes no further request, and breaks off after the grace', async (t) => {
  const policy = await tinyPolicy({ maxPositions: 60_000 })
  t.teardown(() => policy.dispose())
  const closing = new AbortController()
  const server = await listen(serveApp({ policy, model: 'tiny', closing: closing.signal }), { port: 0 })
  const url = `${server.url}/v1`
  const client = new OpenAI({ baseURL: url, apiKey: 'any', maxRetries: 0 })
  const long = { ...text, max_tokens: 2000, ignore_eos: true, stream: true } as const
  const chunks = await client.completions.create(long)
  closing.abort()
  t.is((await post(`${url}/completions`, text)).status, 503)
  const closed = server.close({ grace: 60_000 })
  let reason: string | undefined
  for await (const { choices } of chunks) reason = choices[0]?.finish_reason ?? reason
  t.is(reason, 'length')
  await closed
  await t.throwsAsync(client.completions.create(text), { instanceOf: OpenAI.APIConnectionError })

  const other = await listen(serveApp({ policy, model: 'tiny' }), { port: 0 })
  const hurried = new OpenAI({ baseURL: `${other.url}/v1`, apiKey: 'any', maxRetries: 0 })
  const broken = await hurried.completions.create({ ...long, max_tokens: 50_000 })
  const reading = (async () => {
    for await (const _ of broken);
  })()
  await other.close({ grace: 10 })
  await t.throwsAsync(reading)
})

test('options that make no sense are ERR_INVALID_ARG', async (t) => {
  const policy = await tinyPolicy()
  t.teardown(() => policy.dispose())
  for (const options of [{ maxPending: 0 }, { maxBodyBytes: 1.5 }, { maxNewTokens: -1 }]) {
    t.throws(() => serveApp({ policy, model: 'x', ...options }), { code: 'ERR_INVALID_ARG' })
  }
})
