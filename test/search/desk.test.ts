import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { SsrlError } from '../../lib/errors.ts'
import { type AnsweredSearch, type DeskOptions, SearchDesk } from '../../lib/search/desk.ts'
import { RetryableSearchError, type SearchProvider, type SearchResult } from '../../lib/search/provider.ts'

const origin = { questionId: 'q', question: 'Q?', goldenAnswers: [], turn: 0, seed: 1 }
const open = () => ({ signal: new AbortController().signal, step: 0, steps: 0 })
const quick: DeskOptions = { backoff: 1, timeout: 1000 }
const echo = (queries: readonly string[]): SearchResult[] =>
  queries.map((text) => ({ documents: [{ text }] }))
const provider = (search: SearchProvider['search'], batchSize?: number): SearchProvider => ({
  name: 'test',
  search,
  batchSize,
})
const failureOf = ({ result }: AnsweredSearch) => ('failure' in result ? result.failure : null)

test('queries that come together go as one call, cut to the provider’s batch size', async (t) => {
  const calls: number[] = []
  const counting = provider(async (queries) => {
    calls.push(queries.length)
    return echo(queries)
  }, 4)
  const desk = new SearchDesk(counting, quick)
  const context = open()
  const answers = await Promise.all(
    Array.from({ length: 10 }, (_, i) => desk.ask(`query ${i}`, origin, context)),
  )
  t.deepEqual(calls, [4, 4, 2])
  t.deepEqual(
    answers.map(({ result }) => result),
    echo(Array.from({ length: 10 }, (_, i) => `query ${i}`)),
  )
})

test('no more calls than the limit are under way at once', async (t) => {
  let running = 0
  let most = 0
  const slow = provider(async (queries) => {
    most = Math.max(most, ++running)
    await sleep(5)
    running -= 1
    return echo(queries)
  }, 1)
  const desk = new SearchDesk(slow, { ...quick, concurrency: 3 })
  const context = open()
  await Promise.all(Array.from({ length: 12 }, () => desk.ask('q', origin, context)))
  t.is(most, 3)
})

test('queries that wait for a call to end go together in the next one', async (t) => {
  const calls: number[] = []
  let release = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  const slow = provider(async (queries) => {
    calls.push(queries.length)
    await held
    return echo(queries)
  })
  const desk = new SearchDesk(slow, { ...quick, concurrency: 2 })
  const context = open()
  const asked: Promise<AnsweredSearch>[] = []
  for (let i = 0; i < 10; i++) {
    asked.push(desk.ask(`query ${i}`, origin, context))
    await new Promise((resolve) => setImmediate(resolve))
  }
  release()
  const answers = await Promise.all(asked)
  t.deepEqual(calls, [1, 1, 8])
  t.deepEqual(
    answers.map(({ result }) => result),
    echo(Array.from({ length: 10 }, (_, i) => `query ${i}`)),
  )
})

test('a failure that may pass is tried again, with pauses that double; another one is not', async (t) => {
  const times: number[] = []
  const flaky = provider(async (queries) => {
    times.push(performance.now())
    if (times.length < 4) throw new RetryableSearchError('ERR_SEARCH', 'busy')
    return echo(queries)
  })
  const answered = await new SearchDesk(flaky, { ...quick, backoff: 20 }).ask('q', origin, open())
  t.is(answered.attempts, 4)
  t.deepEqual(answered.result, { documents: [{ text: 'q' }] })
  const pauses = times.slice(1).map((time, i) => time - times[i]!)
  t.true(pauses[0]! >= 18 && pauses[1]! >= 38 && pauses[2]! >= 78, pauses.join())

  let calls = 0
  const refusing = provider(async () => {
    calls += 1
    throw new SsrlError('ERR_SEARCH', 'key refused')
  })
  t.deepEqual(failureOf(await new SearchDesk(refusing, quick).ask('q', origin, open())), {
    code: 'ERR_SEARCH',
    message: 'key refused',
  })
  t.is(calls, 1)
})

test('a server that asks for a pause gets it', async (t) => {
  const times: number[] = []
  const busy = provider(async (queries) => {
    times.push(performance.now())
    if (times.length === 1) throw new RetryableSearchError('ERR_SEARCH', 'busy', { retryAfter: 60 })
    return echo(queries)
  })
  await new SearchDesk(busy, quick).ask('q', origin, open())
  t.true(times[1]! - times[0]! >= 58)
})

test('after the last try the failure is the answer', async (t) => {
  let calls = 0
  const down = provider(async () => {
    calls += 1
    throw new RetryableSearchError('ERR_NETWORK', 'refused')
  })
  const answered = await new SearchDesk(down, { ...quick, attempts: 3 }).ask('q', origin, open())
  t.is(calls, 3)
  t.is(answered.attempts, 3)
  t.is(failureOf(answered)?.code, 'ERR_NETWORK')
})

test('a call that takes too long is left behind, also where the provider does not look at its signal', async (t) => {
  const hanging = provider(() => new Promise(() => {}))
  const answered = await new SearchDesk(hanging, { timeout: 20, attempts: 2, backoff: 1 }).ask(
    'q',
    origin,
    open(),
  )
  t.like(failureOf(answered), { code: 'ERR_TIMEOUT', message: 'test gave no answer within 20 ms' })
  t.is(answered.attempts, 2)
})

test('an abort rejects with its reason, and ends waiting, calls and pauses', async (t) => {
  const reason = new Error('enough')
  const cases: SearchProvider[] = [
    provider(() => new Promise(() => {})),
    provider(async () => {
      throw new RetryableSearchError('ERR_SEARCH', 'busy', { retryAfter: 30_000 })
    }),
  ]
  for (const held of cases) {
    const controller = new AbortController()
    const asked = new SearchDesk(held, { timeout: 60_000 }).ask('q', origin, {
      ...open(),
      signal: controller.signal,
    })
    setTimeout(() => controller.abort(reason), 20)
    t.is(await t.throwsAsync(asked), reason)
  }
})

test('an answer of the wrong shape is a failure, its neighbours stand', async (t) => {
  const ask = async (answer: unknown) => {
    const desk = new SearchDesk(
      provider(async () => answer as SearchResult[]),
      quick,
    )
    const context = open()
    return Promise.all([desk.ask('a', origin, context), desk.ask('b', origin, context)])
  }
  for (const wrong of [[{ documents: [] }], 'text', null, undefined, {}]) {
    const answers = await ask(wrong)
    t.is(answers.filter(failureOf).length, 2, JSON.stringify(wrong))
  }
  const [first, second] = await ask([
    { documents: [{ title: 'no text' }] },
    { documents: [{ text: 'fine' }] },
  ])
  t.regex(failureOf(first!)!.message, /Expected documents/)
  t.deepEqual(second!.result, { documents: [{ text: 'fine' }] })
  t.regex(failureOf((await ask([7, { documents: [] }]))[0]!)!.message, /but received 7/)
})

test('no more than topK documents come through', async (t) => {
  const many = provider(async () => [{ documents: Array.from({ length: 9 }, () => ({ text: 'x' })) }])
  const { result } = await new SearchDesk(many, { ...quick, topK: 2 }).ask('q', origin, open())
  t.is('documents' in result && result.documents.length, 2)
})

test('settings out of range are refused', (t) => {
  for (const options of [
    { topK: 0 },
    { concurrency: 1.5 },
    { timeout: 0 },
    { attempts: 0 },
    { backoff: -1 },
  ]) {
    t.throws(
      () =>
        new SearchDesk(
          provider(async () => []),
          options,
        ),
      { code: 'ERR_INVALID_CONFIG' },
    )
  }
})
