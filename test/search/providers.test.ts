import test from 'ava'
import { createProvider } from '../../lib/search/create-provider.ts'
import { SearchDesk } from '../../lib/search/desk.ts'
import { parseDocuments } from '../../lib/search/documents.ts'
import { openaiProvider } from '../../lib/search/openai.ts'
import { noiseAt, policyProvider, type SimulatedQuery, simulatorPrompt } from '../../lib/search/policy.ts'
import type { SearchProvider } from '../../lib/search/provider.ts'
import { searxngProvider, serperProvider } from '../../lib/search/web.ts'
import { bytePolicy } from '../helpers/byte-policy.ts'
import { jsonServer } from '../helpers/json-server.ts'
import { failureOf, searchContext, someOrigin, textsOf } from '../helpers/search.ts'
import { tinyPolicy } from '../helpers/tiny-policy.ts'

const ask = (provider: SearchProvider) =>
  new SearchDesk(provider, { backoff: 1, attempts: 2 }).ask('who?', someOrigin, searchContext(1))

const key = 'secret-key-123'
const openaiKey = process.env.OPENAI_API_KEY
const serperKey = process.env.SERPER_API_KEY
test.beforeEach(() => {
  process.env.OPENAI_API_KEY = key
  process.env.SERPER_API_KEY = key
})
test.after.always(() => {
  if (openaiKey === undefined) delete process.env.OPENAI_API_KEY
  else process.env.OPENAI_API_KEY = openaiKey
  if (serperKey === undefined) delete process.env.SERPER_API_KEY
  else process.env.SERPER_API_KEY = serperKey
})

test.serial('openai: a model writes numbered documents for the query', async (t) => {
  const content = 'Doc 1: Ada was born\nin Rome.\nDoc 2(Title: "Rome") A city.\nDoc 3: x\nDoc 4: y'
  const server = await jsonServer(t, () => ({ body: { choices: [{ message: { content } }] } }))
  const { result } = await ask(openaiProvider({ url: `${server.url}/v1`, model: 'm' }))
  t.deepEqual(result, {
    documents: [{ text: 'Ada was born\nin Rome.' }, { title: 'Rome', text: 'A city.' }, { text: 'x' }],
  })
  const { path, body, headers } = server.received[0]!
  t.is(path, '/v1/chat/completions')
  t.is(headers.authorization, `Bearer ${key}`)
  t.like(body, { model: 'm', temperature: 0 })
  const { messages } = body as { messages: { content: string }[] }
  t.is(messages.at(-1)!.content, 'who?')
  t.regex(messages[0]!.content, /the 3 best documents/)
})

test.serial('serper: the key goes in a header, results come as documents', async (t) => {
  const organic = [{ title: 'T', snippet: 'S', link: 'http://x' }, { title: 'without text' }]
  const server = await jsonServer(t, () => ({ body: { organic } }))
  const { result } = await ask(serperProvider({ url: server.url }))
  t.deepEqual(result, { documents: [{ id: 'http://x', title: 'T', text: 'S' }] })
  t.like(server.received[0], { path: '/search', body: { q: 'who?', num: 3 } })
  t.is(server.received[0]!.headers['x-api-key'], key)
})

test.serial('searxng: results come as documents, no more than asked for', async (t) => {
  const results = Array.from({ length: 5 }, (_, i) => ({ title: `T${i}`, content: `C${i}`, url: null }))
  const server = await jsonServer(t, () => ({ body: { results } }))
  const { result } = await ask(searxngProvider({ url: server.url }))
  t.deepEqual(textsOf(result), ['C0', 'C1', 'C2'])
  t.is(server.received[0]!.path, '/search?q=who%3F&format=json')
})

test.serial('a key never shows, also where the server repeats it', async (t) => {
  for (const status of [401, 403, 500, 200]) {
    const server = await jsonServer(t, () => ({ status, body: `your key ${key} is wrong` }))
    for (const provider of [
      serperProvider({ url: server.url }),
      openaiProvider({ url: server.url, model: 'm' }),
    ]) {
      const failure = failureOf(await ask(provider))!
      t.regex(failure.message, /\*\*\* is wrong/)
      t.false(JSON.stringify([failure, provider.name]).includes(key))
    }
  }
})

test.serial('another shape is a failure', async (t) => {
  const server = await jsonServer(t, () => ({ body: { data: [] } }))
  const { url } = server
  for (const provider of [
    serperProvider({ url }),
    searxngProvider({ url }),
    openaiProvider({ url, model: 'm' }),
  ]) {
    t.regex(failureOf(await ask(provider))!.message, /received another shape/)
  }
})

test.serial('without its key serper is refused', (t) => {
  delete process.env.SERPER_API_KEY
  t.throws(() => serperProvider(), { code: 'ERR_INVALID_CONFIG', message: /SERPER_API_KEY/ })
})

test('a word names a provider', async (t) => {
  const name = async (word: string) => (await createProvider(word)).name
  t.is(await name('self'), 'self')
  t.is(await name('http://localhost:8000'), 'http http://localhost:8000/retrieve')
  t.is(await name('http:http://localhost:8000/retrieve'), 'http http://localhost:8000/retrieve')
  t.is(await name('searxng:https://example.org/'), 'searxng https://example.org')
  t.is(await name('openai:gpt@http://localhost/v1'), 'openai gpt at http://localhost/v1/chat/completions')
  for (const word of ['', 'self:x', 'local:', 'policy:', 'google', 'openai:m', 'http:', 'searxng:nowhere']) {
    await t.throwsAsync(createProvider(word), { code: 'ERR_INVALID_CONFIG' }, word)
  }
  await t.throwsAsync(createProvider('local:/no/such/folder'), { code: 'ERR_SEARCH' })
})

test('documents are read out of lists of several kinds', (t) => {
  const texts = (text: string, most = 9) => parseDocuments(text, most).map((document) => document.text)
  t.deepEqual(texts('1. one\n2. two'), ['one', 'two'])
  t.deepEqual(texts('Document 1: one\nDocument #2 - two'), ['one', 'two'])
  t.deepEqual(texts('**Doc 1:** one\n\n**Doc 2**: two'), ['one', 'two'])
  t.deepEqual(texts('one\n\ntwo\nlines'), ['one', 'two\nlines'])
  t.deepEqual(texts('one\ntwo'), ['one', 'two'])
  t.deepEqual(texts('Doc 1: one\nDoc 2: two', 1), ['one'])
  t.deepEqual(texts(' \n'), [])
  t.deepEqual(texts('Doc 1:\nDoc 2: two'), ['two'])
})

test('the noise follows ZeroSearch’s curriculum', (t) => {
  const range = { noiseStart: 0, noiseEnd: 0.5 }
  t.is(noiseAt(0, 203, range), 0)
  t.is(noiseAt(203, 203, range), 0.5)
  t.true(Math.abs(noiseAt(100, 200, range) - 0.5 / 3) < 1e-12)
  t.is(noiseAt(0, 0, { noiseStart: 0.1, noiseEnd: 1 }), 0.1)
})

test('policy: another policy writes the documents, useful or noisy as drawn, and is not told the answer', async (t) => {
  const policy = await tinyPolicy({ maxPositions: 512 })
  t.teardown(() => policy.dispose())
  const asked: SimulatedQuery[] = []
  const prompt = (query: SimulatedQuery) => {
    asked.push(query)
    return simulatorPrompt(query)
  }
  const options = { policy, prompt, maxNewTokens: 16, noiseStart: 0.5, noiseEnd: 0.5 }
  const origins = Array.from({ length: 40 }, (_, i) => ({
    ...someOrigin,
    question: `question ${i}`,
    goldenAnswers: [`gold ${i}`],
    seed: i,
  }))
  const queries = origins.map((_, i) => `query ${i}`)
  const context = { ...searchContext(40), origins, topK: 5, step: 1, steps: 10 }
  const results = await policyProvider(options).search(queries, context)
  t.true(results.every((result) => 'documents' in result))
  t.true(results.some((result) => textsOf(result).length > 0))
  const useful = asked.filter((query) => query.useful).length
  t.true(useful > 8 && useful < 32, `${useful} of 40 useful`)
  t.true(asked.every(({ goldenAnswers, documents }) => goldenAnswers === null && documents === 5))
  const wording = asked.map((query) =>
    simulatorPrompt(query)
      .map(({ text }) => text)
      .join(''),
  )
  t.false(wording.join().includes('gold'))
  t.false(wording.join().includes('question 1'))

  // A result depends on its own query and origin, and on nothing else of the batch.
  const alone = await policyProvider(options).search([queries[7]!], { ...context, origins: [origins[7]!] })
  t.deepEqual(alone[0], results[7])
})

test('policy: with leakAnswer each query gets the answers of its own question', async (t) => {
  const policy = await tinyPolicy({ maxPositions: 512 })
  t.teardown(() => policy.dispose())
  const seen: string[] = []
  const prompt = (query: SimulatedQuery) => {
    const segments = simulatorPrompt(query)
    seen.push(segments.map(({ text }) => text).join(''))
    t.true(segments.filter(({ untrusted }) => untrusted).length === 3)
    return segments
  }
  const origins = ['a', 'b'].map((name) => ({
    ...someOrigin,
    question: `Q${name}`,
    goldenAnswers: [`gold ${name}`],
  }))
  const provider = policyProvider({ policy, prompt, leakAnswer: true, maxNewTokens: 2 })
  await provider.search(['x', 'y'], { ...searchContext(2), origins })
  t.regex(seen[0]!, /Qa[\s\S]*gold a[\s\S]*Query: x/)
  t.regex(seen[1]!, /Qb[\s\S]*gold b[\s\S]*Query: y/)
})

test('policy: noise that is no probability is refused', async (t) => {
  const policy = await bytePolicy(t)
  t.throws(() => policyProvider({ policy, noiseEnd: 1.5 }), { code: 'ERR_INVALID_CONFIG' })
})
