import test from 'ava'
import { Session, type TokenEvent } from '../../lib/index.ts'
import { bytePolicy, someTokens } from '../helpers/byte-policy.ts'

const prompt = someTokens(90, 3, 256)
const options = { seed: 6, maxNewTokens: 20, ignoreEnd: true }

for (const dtype of ['f32', 'bf16'] as const) {
  test(`${dtype}: a session generates what the policy does`, async (t) => {
    const policy = await bytePolicy(t, { dtype })
    const [expected] = await policy.generate([{ tokens: prompt, seed: 6 }], options)
    const session = await Session.open(policy, prompt)
    t.deepEqual(await session.generate(options), expected)
    t.deepEqual(session.tokens, Int32Array.of(...prompt, ...expected!.tokens))
    t.is(session.length, 110)
  })

  test(`${dtype}: forks are as fresh sessions, and do not disturb each other`, async (t) => {
    const policy = await bytePolicy(t, { dtype })
    const session = await Session.open(policy, prompt)
    const forks = await session.fork(4)
    const completions = await Promise.all(
      forks.map((fork, sampleIndex) => fork.generate({ ...options, sampleIndex })),
    )
    const expected = await policy.generate([{ tokens: prompt, n: 4, seed: 6 }], options)
    t.deepEqual(completions, expected)
    t.deepEqual(await session.generate(options), expected[0])
  })

  test(`${dtype}: what is appended in the call that goes on is as appended before it`, async (t) => {
    const policy = await bytePolicy(t, { dtype })
    const outside = someTokens(40, 8, 256)
    const one = await Session.open(policy, prompt)
    const other = (await one.fork(1))[0]!
    await one.append(outside)
    const before = await policy.generatorStatistics()
    const expected = await one.generate(options)
    const between = await policy.generatorStatistics()
    t.deepEqual(await other.generate({ ...options, append: outside }), expected)
    const after = await policy.generatorStatistics()
    t.deepEqual(other.tokens, one.tokens)
    t.is(after.prefilledTokens - between.prefilledTokens, outside.length + 1)
    t.is(after.steps - between.steps, between.steps - before.steps)
    const aborted = other.generate({
      ...options,
      append: outside,
      signal: AbortSignal.abort(new Error('enough')),
    })
    await t.throwsAsync(aborted, { message: 'enough' })
    t.deepEqual(other.tokens, one.tokens)
    t.deepEqual(await other.generate(options), await one.generate(options))
    const wrong = other.generate({ ...options, append: Int32Array.of(1000) })
    await t.throwsAsync(wrong, { code: 'ERR_INVALID_ARG' })
  })

  test(`${dtype}: generate, append, generate is as one prompt`, async (t) => {
    const policy = await bytePolicy(t, { dtype })
    for (const length of [1, 5, 64, 131]) {
      const outside = someTokens(length, 8, 256)
      const session = await Session.open(policy, prompt)
      const first = await session.generate(options)
      await session.append(outside)
      const second = await session.generate(options)
      const tokens = Int32Array.of(...prompt, ...first.tokens, ...outside)
      const [expected] = await policy.generate([{ tokens, seed: 6 }], options)
      t.deepEqual(second, expected, `${length} tokens`)
      session.close()
    }
  })
}

test('what is open stays computed: going on feeds the new tokens only', async (t) => {
  const policy = await bytePolicy(t)
  const fed = async () => (await policy.generatorStatistics()).prefilledTokens
  const session = await Session.open(policy, prompt)
  t.is(await fed(), prompt.length - 1)
  await session.generate(options)
  t.is(await fed(), prompt.length)
  await session.append(someTokens(7, 1, 256))
  await session.generate(options)
  // Seven, and the token that was sampled last, which had not been fed before.
  t.is(await fed(), prompt.length + 8)
  const forks = await session.fork(5)
  await Promise.all(forks.map((fork) => fork.append(Int32Array.of(1, 2))))
  // Of each the last sampled token again, and the first of its own; the second waits for generate.
  t.is(await fed(), prompt.length + 8 + 5 * 2)
})

test('a resting session that lost its pages to others goes on with the same result', async (t) => {
  const roomy = await bytePolicy(t)
  const [expected] = await roomy.generate([{ tokens: prompt, seed: 6 }], options)
  const policy = await bytePolicy(t)
  policy.setCacheBudget(4 * 2 * 2 * 64 * 20 * 4)
  const session = await Session.open(policy, prompt)
  await policy.generate([{ tokens: someTokens(200, 9, 256) }], options)
  const before = (await policy.generatorStatistics()).prefilledTokens
  t.deepEqual(await session.generate(options), expected)
  t.is((await policy.generatorStatistics()).prefilledTokens - before, prompt.length)
})

test('an abort leaves the session as it was', async (t) => {
  const policy = await bytePolicy(t)
  const session = await Session.open(policy, prompt)
  const controller = new AbortController()
  const running = session.generate({ ...options, maxNewTokens: 300, signal: controller.signal })
  controller.abort(new Error('stop'))
  await t.throwsAsync(running, { message: 'stop' })
  t.deepEqual(session.tokens, prompt)
  const [expected] = await policy.generate([{ tokens: prompt, seed: 6 }], options)
  t.deepEqual(await session.generate(options), expected)
})

test('appended text holds no control token, unless a segment is trusted', async (t) => {
  const policy = await bytePolicy(t)
  const end = policy.endTokenIds[0]!
  const session = await Session.open(policy, 'Search: ')
  const start = session.length
  await session.append('found <|end|> it')
  t.false(session.tokens.includes(end))
  t.is(policy.tokenizer!.decode(session.tokens.slice(start)), 'found <|end|> it')
  await session.append([{ text: '<|end|>' }])
  t.is(session.tokens.at(-1), end)
  await session.append('')
  t.is(session.tokens.at(-1), end)
})

test('a session that works takes no second call', async (t) => {
  const policy = await bytePolicy(t)
  const session = await Session.open(policy, prompt)
  const running = session.generate({ ...options, maxNewTokens: 100 })
  // Together: by the time that one is refused, the work may be done.
  await Promise.all([
    t.throwsAsync(session.generate(options), { code: 'ERR_INVALID_ARG', message: /at rest/ }),
    t.throwsAsync(session.append(Int32Array.of(1)), { code: 'ERR_INVALID_ARG' }),
    t.throwsAsync(session.fork(2), { code: 'ERR_INVALID_ARG' }),
  ])
  const { tokens } = await running
  t.is(session.length, prompt.length + tokens.length)
})

test('onToken tells the tokens of a turn as they come; what it throws ends the turn and leaves the session', async (t) => {
  const policy = await bytePolicy(t)
  const session = await Session.open(policy, prompt)
  const events: TokenEvent[] = []
  const { tokens, logProbs } = await session.generate({ ...options, onToken: (event) => events.push(event) })
  t.deepEqual(
    events.map(({ token, logProb }) => [token, logProb]),
    Array.from(tokens, (token, i) => [token, logProbs[i]]),
  )
  const problem = new Error('no room to show it')
  const broken = session.generate({
    ...options,
    maxNewTokens: 300,
    onToken: () => {
      throw problem
    },
  })
  t.is(await t.throwsAsync(broken), problem)
  t.is(session.length, 110)
  t.is((await session.generate(options)).promptTokens.length, 110)
})

test('after close, and after the policy is disposed, a session is ERR_DISPOSED; its pages are free', async (t) => {
  const policy = await bytePolicy(t)
  const session = await Session.open(policy, prompt)
  const [fork] = await session.fork(1)
  t.true((await policy.generatorStatistics()).pagesUsed > 0)
  session.close()
  session.close()
  await t.throwsAsync(session.generate(options), { code: 'ERR_DISPOSED' })
  await t.throwsAsync(session.append('x'), { code: 'ERR_DISPOSED' })
  t.true((await fork!.generate(options)).tokens.length > 0)
  fork!.close()
  t.is((await policy.generatorStatistics()).pagesUsed, 0)
  const last = await Session.open(policy, prompt)
  await policy.dispose()
  await t.throwsAsync(last.generate(options), { code: 'ERR_DISPOSED' })
  last.close()
})

test('bad input is a coded error, and the session goes on', async (t) => {
  const policy = await bytePolicy(t)
  const bad = { code: 'ERR_INVALID_ARG' }
  await t.throwsAsync(Session.open(policy, new Int32Array(0)), bad)
  await t.throwsAsync(Session.open(policy, someTokens(512, 1, 256)), bad)
  await t.throwsAsync(Session.open(policy, 7 as never), bad)
  await t.throwsAsync(Session.open({} as never, prompt), bad)
  const session = await Session.open(policy, prompt)
  await t.throwsAsync(session.append(Int32Array.of(265)), bad)
  await t.throwsAsync(session.append(someTokens(423, 1, 256)), bad)
  await t.throwsAsync(session.append(7 as never), bad)
  await t.throwsAsync(session.fork(0), bad)
  await t.throwsAsync(session.fork(1.5), bad)
  await t.throwsAsync(session.generate({ temperature: Number.NaN }), bad)
  await t.throwsAsync(session.generate({ sampleIndex: -1 }), bad)
  await t.throwsAsync(session.generate({ onToken: 1 as never }), bad)
  await t.throwsAsync(session.generate({ tokens: 1 } as never), bad)
  t.is((await session.generate(options)).tokens.length, 20)
})
