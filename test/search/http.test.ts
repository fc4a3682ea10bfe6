import test from 'ava'
import { SearchDesk } from '../../lib/search/desk.ts'
import { httpProvider, joinContents, splitContents } from '../../lib/search/http.ts'
import { retrieveApp } from '../../lib/search/retrieve-app.ts'
import { listen } from '../../lib/serve/listen.ts'
import { type Answer, jsonServer } from '../helpers/json-server.ts'
import { failureOf, searchContext, someOrigin } from '../helpers/search.ts'

const found = (contents: string) => ({ document: { id: '7', contents }, score: 0.5 })

test('a query goes out as the /retrieve protocol says, and documents come back', async (t) => {
  const server = await jsonServer(t, () => ({ body: { result: [[found('"Ada"\nBorn in Rome.')], []] } }))
  const results = await httpProvider({ url: server.url }).search(['a', 'b'], searchContext(2))
  t.like(server.received[0], {
    method: 'POST',
    path: '/retrieve',
    body: { queries: ['a', 'b'], topk: 3, return_scores: true },
  })
  t.deepEqual(results, [
    { documents: [{ id: '7', title: 'Ada', text: 'Born in Rome.', score: 0.5 }] },
    { documents: [] },
  ])
})

test('documents without scores, with a title of their own or with neither are read too', async (t) => {
  const body = { result: [[{ id: 1, contents: 'plain' }, { document: { title: 'T', text: 'x' } }]] }
  const server = await jsonServer(t, () => ({ body }))
  const results = await httpProvider({ url: `${server.url}/retrieve/` }).search(['a'], searchContext(1))
  t.deepEqual(results, [
    {
      documents: [
        { id: '1', text: 'plain' },
        { title: 'T', text: 'x' },
      ],
    },
  ])
})

test('titles and texts come apart and together again', (t) => {
  t.deepEqual(splitContents('"A "b" c"\nText\nmore'), { title: 'A "b" c', text: 'Text\nmore' })
  t.deepEqual(splitContents('no title'), { text: 'no title' })
  t.is(joinContents({ title: 'T', text: 'x' }), '"T"\nx')
})

/** What a search that is asked through a desk comes to. */
async function outcome(t: import('ava').ExecutionContext, answer: (count: number) => Answer) {
  const server = await jsonServer(t, (_, count) => answer(count))
  const desk = new SearchDesk(httpProvider({ url: server.url }), { backoff: 1, timeout: 5000 })
  const answered = await desk.ask('q', someOrigin, searchContext(1))
  return { failure: failureOf(answered), requests: server.received.length, result: answered.result }
}

test('a busy server is asked again, at 429 and at 5xx', async (t) => {
  for (const status of [429, 500, 503]) {
    const { result, requests } = await outcome(t, (count) =>
      count < 3 ? { status, body: 'busy' } : { body: { result: [[found('x')]] } },
    )
    t.is(requests, 3)
    t.true('documents' in result)
  }
})

test('another status, malformed JSON, another shape and a wrong list length are failures at once', async (t) => {
  const cases: [Answer, RegExp][] = [
    [{ status: 404, body: 'nothing here' }, /status 404: "nothing here"/],
    [{ body: '{"result": [[' }, /Expected JSON .* but received/],
    [{ body: '<html>' }, /Expected JSON/],
    [{ body: { results: [] } }, /another shape/],
    [{ body: { result: [[{ document: 7 }]] } }, /another shape/],
    [{ body: { result: [] } }, /Expected 1 results .* but received 0/],
    [{ body: { result: [[], []] } }, /Expected 1 results .* but received 2/],
  ]
  for (const [answer, message] of cases) {
    const { failure, requests } = await outcome(t, () => answer)
    t.regex(failure?.message ?? '', message)
    t.is(failure?.code, 'ERR_SEARCH')
    t.is(requests, 1)
  }
})

test('a server that is down is a failure after some tries', async (t) => {
  const desk = new SearchDesk(httpProvider({ url: 'http://127.0.0.1:9' }), { backoff: 1 })
  const answered = await desk.ask('q', someOrigin, searchContext(1))
  t.like(failureOf(answered), { code: 'ERR_NETWORK' })
  t.regex(failureOf(answered)!.message, /127.0.0.1:9 can't be reached: (ECONNREFUSED|bad port)/)
  t.is(answered.attempts, 4)
})

test('an answer without end is broken off', async (t) => {
  const { failure } = await outcome(t, () => ({ body: { result: [[found('x'.repeat(2 ** 25))]] } }))
  t.regex(failure!.message, /at most 33554432 bytes/)
})

test('a document of 10 MB comes through', async (t) => {
  const { result } = await outcome(t, () => ({ body: { result: [[found('x'.repeat(10 ** 7))]] } }))
  t.is('documents' in result && result.documents[0]!.text.length, 10 ** 7)
})

test('what is no address is refused', (t) => {
  for (const url of ['localhost:8000', 'ftp://x', '', 'nonsense']) {
    t.throws(() => httpProvider({ url }), { code: 'ERR_INVALID_CONFIG' })
  }
})

test('client and server of this package understand each other', async (t) => {
  const documents = [
    { id: '1', title: 'Ada', text: 'Rome', score: 2 },
    { id: '2', text: 'x', score: 1 },
  ]
  const app = retrieveApp({ search: (query, topK) => (query === 'none' ? [] : documents.slice(0, topK)) })
  const server = await listen(app, { port: 0 })
  t.teardown(() => server.close())
  t.regex(server.url, /^http:\/\/127\.0\.0\.1:\d+$/)
  const results = await httpProvider({ url: server.url }).search(['a', 'none'], searchContext(2))
  t.deepEqual(results, [{ documents }, { documents: [] }])
  const plain = await post(`${server.url}/retrieve`, { queries: ['a'], topk: 1 })
  t.deepEqual(await plain.json(), { result: [[{ id: '1', contents: '"Ada"\nRome' }]] })
})

const post = (url: string, body: unknown) =>
  fetch(url, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body) })

test('the server refuses what is no request, and what is too long', async (t) => {
  const server = await listen(retrieveApp({ search: () => [], maxBodyBytes: 1000 }), { port: 0 })
  t.teardown(() => server.close())
  const url = `${server.url}/retrieve`
  t.is((await post(url, '{')).status, 400)
  for (const body of [
    '[]',
    { queries: 'a' },
    { queries: [] },
    { queries: ['a'], topk: 0 },
    { queries: [7] },
  ]) {
    const response = await post(url, body)
    t.is(response.status, 422)
    t.regex(((await response.json()) as { detail: string }).detail, /Expected \{ queries/)
  }
  t.is((await post(url, { queries: ['x'.repeat(2000)] })).status, 413)
  t.is((await fetch(server.url)).status, 404)
})

test('a port that is taken is told', async (t) => {
  const app = retrieveApp({ search: () => [] })
  const server = await listen(app, { port: 0 })
  t.teardown(() => server.close())
  const port = Number(new URL(server.url).port)
  await t.throwsAsync(listen(app, { port }), { code: 'ERR_NETWORK', message: /Can't listen on 127\.0\.0\.1/ })
})
