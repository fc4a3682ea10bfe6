import test from 'ava'
import fc from 'fast-check'
import type { GenerateOptions, GenerateRequest, TokenEvent } from '../../lib/index.ts'
import { Policy } from '../../lib/index.ts'
import { bytePolicy, someTokens } from '../helpers/byte-policy.ts'

const prompt = { tokens: someTokens(20, 3, 256) }

test('a completion says where it comes from, what was drawn, and why it ended', async (t) => {
  const policy = await bytePolicy(t)
  const [completion] = await policy.generate([prompt], { seed: 1, maxNewTokens: 12, ignoreEnd: true })
  t.deepEqual(completion!.promptTokens, prompt.tokens)
  t.is(completion!.requestIndex, 0)
  t.is(completion!.sampleIndex, 0)
  t.is(completion!.finishReason, 'length')
  t.true(completion!.tokens instanceof Int32Array)
  for (const name of ['logProbs', 'entropies'] as const) {
    t.true(completion![name] instanceof Float32Array)
    t.is(completion![name].length, 12)
  }
  t.true(completion!.logProbs.every((value) => value < 0))
  t.is(completion!.text, policy.tokenizer!.decode(completion!.tokens))
  t.false('sampledLogProbs' in completion!)
})

test('a stop string ends a completion with the token that completes it, across token borders', async (t) => {
  const policy = await bytePolicy(t)
  const tokenizer = policy.tokenizer!
  const options = { seed: 5, maxNewTokens: 60, ignoreEnd: true }
  const [free] = await policy.generate([prompt], options)
  const isEnd = (id: number) => policy.endTokenIds.includes(id)
  const bytes = [...free!.tokens].map((id) => Buffer.from(isEnd(id) ? '' : tokenizer.bytesOf(id)))
  const all = Buffer.concat(bytes)
  // Only texts that survive UTF-8 can be stop strings.
  const isText = (piece: Buffer) => Buffer.from(piece.toString('utf8')).equals(piece)
  await fc.assert(
    fc.asyncProperty(fc.nat(all.length - 1), fc.integer({ min: 1, max: 6 }), async (start, length) => {
      const stop = all.subarray(start, start + length)
      fc.pre(isText(stop))
      const [stopped] = await policy.generate([prompt], {
        ...options,
        stop: ['never occurs', stop.toString()],
      })
      const end = all.indexOf(stop) + stop.length
      let count = 0
      for (let seen = 0; seen < end; count++) seen += bytes[count]!.length
      t.is(stopped!.finishReason, 'stop')
      t.deepEqual(stopped!.tokens, free!.tokens.slice(0, count))
      t.true(stopped!.text.includes(stop.toString()))
    }),
    { numRuns: 40 },
  )
})

test('the text keeps what the last token carries after a stop string', async (t) => {
  const policy = await bytePolicy(t)
  // Its embedding is scaled up, so that every step draws the token '>.'
  const id = policy.tokenizer!.tokenId('>.')!
  const name = 'model.embed_tokens.weight'
  const values = await policy.readParameter(name)
  const [, width] = policy.parameters().find((parameter) => parameter.name === name)!.shape
  const logitsOf = async () => (await policy.logits(prompt.tokens)).slice(-policy.config.vocabSize)
  const sign = Math.sign((await logitsOf())[id]!)
  for (let i = 0; i < width!; i++) values[id * width! + i]! *= 100 * sign
  await policy.writeParameter(name, values)
  const [completion] = await policy.generate([prompt], { temperature: 0, stop: ['>'] })
  t.is(completion!.finishReason, 'stop')
  t.is(completion!.text, '>.')
})

test('an end token ends a completion, is among its tokens and not in its text', async (t) => {
  const policy = await bytePolicy(t, { config: { eosTokenIds: [] } })
  const end = policy.endTokenIds[0]!
  t.is(policy.tokenizer!.decode([end]), '<|end|>')
  const completions = await policy.generate([{ ...prompt, n: 64 }], { seed: 2, maxNewTokens: 100 })
  const ended = completions.filter(({ finishReason }) => finishReason === 'end')
  t.true(ended.length > 0)
  for (const { tokens, text } of ended) {
    t.is(tokens.indexOf(end), tokens.length - 1)
    t.false(text.includes('<|end|>'))
  }
  const past = await policy.generate([{ ...prompt, n: 64 }], { seed: 2, maxNewTokens: 100, ignoreEnd: true })
  t.true(past.every(({ tokens, finishReason }) => tokens.length === 100 && finishReason === 'length'))
  t.true(past.some(({ tokens }) => tokens.includes(end)))
})

test('a completion ends where the context does', async (t) => {
  const policy = await bytePolicy(t, { config: { maxPositions: 40 } })
  const [completion] = await policy.generate([prompt], { seed: 1, maxNewTokens: 1000, ignoreEnd: true })
  t.is(completion!.tokens.length, 20)
  t.is(completion!.finishReason, 'length')
})

test("a request's own options win over those of the call", async (t) => {
  const policy = await bytePolicy(t)
  const requests = [{ ...prompt, maxNewTokens: 3 }, { ...prompt, temperature: 0 }, prompt]
  const options = { seed: 1, maxNewTokens: 6, ignoreEnd: true }
  const [short, greedy, plain] = await policy.generate(requests, options)
  t.is(short!.tokens.length, 3)
  const [expected] = await policy.generate([prompt], { ...options, temperature: 0 })
  t.deepEqual(greedy!.tokens, expected!.tokens)
  t.notDeepEqual(plain!.tokens, greedy!.tokens)
})

test('a string prompt is raw text; messages without a chat template stand with a blank line between', async (t) => {
  const policy = await bytePolicy(t)
  const tokenizer = policy.tokenizer!
  const options = { maxNewTokens: 1 }
  const messages = [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'Why? <|end|>' },
  ]
  const completions = await policy.generate([{ prompt: 'Why?' }, { prompt: messages }], options)
  t.deepEqual(completions[0]!.promptTokens, tokenizer.encode('Why?'))
  t.is(tokenizer.decode(completions[1]!.promptTokens), 'Be brief.\n\nWhy? <|end|>')
  t.false(completions[1]!.promptTokens.includes(policy.endTokenIds[0]!))
})

test('onToken tells every token and log-prob of every sample in order, and its texts join to the completion', async (t) => {
  const policy = await bytePolicy(t)
  const events: TokenEvent[] = []
  const completions = await policy.generate([{ ...prompt, n: 3 }, prompt], {
    seed: 4,
    maxNewTokens: 30,
    onToken: (event) => events.push(event),
  })
  for (const { requestIndex, sampleIndex, tokens, logProbs, text } of completions) {
    const mine = events.filter(
      (event) => event.requestIndex === requestIndex && event.sampleIndex === sampleIndex,
    )
    t.deepEqual(
      mine.map(({ token }) => token),
      [...tokens],
    )
    t.deepEqual(
      mine.map(({ logProb }) => logProb),
      [...logProbs],
    )
    const streamed = mine.map((event) => event.text).join('')
    t.true(text.startsWith(streamed))
  }
})

test('onCompletion tells each completion as it finishes', async (t) => {
  const policy = await bytePolicy(t)
  const lengths: number[] = []
  const requests = [30, 2, 10].map((maxNewTokens) => ({ ...prompt, maxNewTokens }))
  const completions = await policy.generate(requests, {
    ignoreEnd: true,
    onCompletion: ({ tokens }) => lengths.push(tokens.length),
  })
  t.deepEqual(lengths, [2, 10, 30])
  t.deepEqual(
    completions.map(({ tokens }) => tokens.length),
    [30, 2, 10],
  )
})

test('what a callback throws stops the work and rejects the call', async (t) => {
  const policy = await bytePolicy(t)
  const problem = new Error('no more')
  const error = await t.throwsAsync(
    policy.generate([prompt], {
      maxNewTokens: 400,
      ignoreEnd: true,
      onToken: () => {
        throw problem
      },
    }),
  )
  t.is(error, problem)
  t.true((await policy.generatorStatistics()).decodedTokens < 400)
})

test("an abort rejects with the signal's reason, which carries what had finished", async (t) => {
  const policy = await bytePolicy(t)
  const controller = new AbortController()
  const reason = new Error('enough')
  const error = await t.throwsAsync(
    policy.generate([{ ...prompt, maxNewTokens: 2 }, prompt], {
      maxNewTokens: 400,
      ignoreEnd: true,
      signal: controller.signal,
      onCompletion: () => controller.abort(reason),
    }),
  )
  t.is(error, reason)
  const { completions } = error as Error & { completions: { tokens: Int32Array }[] }
  t.deepEqual(
    completions.map(({ tokens }) => tokens.length),
    [2],
  )
  t.true((await policy.generatorStatistics()).decodedTokens < 400)
  t.is((await policy.generatorStatistics()).pagesUsed, 0)
  const [completion] = await policy.generate([prompt], { maxNewTokens: 3, ignoreEnd: true })
  t.is(completion!.tokens.length, 3)
})

test('a signal that has fired before stops the call before it begins', async (t) => {
  const policy = await bytePolicy(t)
  const signal = AbortSignal.abort(new Error('too late'))
  await t.throwsAsync(policy.generate([prompt], { signal }), { message: 'too late' })
  await t.throwsAsync(policy.score([prompt.tokens], { signal }), { message: 'too late' })
  t.is((await policy.generatorStatistics()).steps, 0)
})

test('calls that overlap share the batch, and each gets its own result', async (t) => {
  const policy = await bytePolicy(t)
  const options = (seed: number) => ({ seed, maxNewTokens: 40, ignoreEnd: true })
  const one = await policy.generate([prompt], options(1))
  const two = await policy.generate([prompt], options(2))
  const before = (await policy.generatorStatistics()).steps
  const both = await Promise.all([
    policy.generate([prompt], options(1)),
    policy.generate([prompt], options(2)),
  ])
  t.deepEqual(both, [one, two])
  t.true((await policy.generatorStatistics()).steps - before < 60)
})

test('no request gives no completion', async (t) => {
  const policy = await bytePolicy(t)
  t.deepEqual(await policy.generate([]), [])
  t.deepEqual(await policy.score([]), [])
})

const request = (extra: object) => [{ ...prompt, ...extra }] as unknown as GenerateRequest[]
const options = (extra: object) => extra as GenerateOptions

const badInput: [title: string, requests: GenerateRequest[], options?: GenerateOptions, message?: RegExp][] =
  [
    [
      'a prompt longer than the context',
      request({ tokens: someTokens(512, 1, 256) }),
      {},
      /at most 511 .* received 512/,
    ],
    ['an empty prompt', request({ tokens: new Int32Array(0) }), {}, /at least one token/],
    ['an empty text without BOS', [{ prompt: '' }], {}, /at least one token/],
    ['an empty list of messages', [{ prompt: [] }]],
    ['a message without content', [{ prompt: [{ role: 'user' }] as never }]],
    ['a token id of the vocabulary size', request({ tokens: Int32Array.of(1, 265) }), {}, /from 0 to 264/],
    ['a negative token id', request({ tokens: Int32Array.of(-1) })],
    ['tokens in a plain array', request({ tokens: [1, 2, 3] }), {}, /an Int32Array .* an array/],
    ['tokens in an array of another type', request({ tokens: Float32Array.of(1) })],
    ['neither prompt nor tokens', request({ tokens: undefined })],
    ['both prompt and tokens', request({ prompt: 'x' })],
    ['a prompt that is a number', request({ tokens: undefined, prompt: 7 })],
    ['requests that are no array', prompt as never],
    ['a request that is null', [null] as never],
    [
      'a negative temperature',
      request({ temperature: -1 }),
      {},
      /requests\[0\]\.temperature but received -1/,
    ],
    [
      'a temperature of NaN',
      request({}),
      options({ temperature: Number.NaN }),
      /temperature but received NaN/,
    ],
    ['a temperature of Infinity', request({}), options({ temperature: Infinity })],
    ['a temperature in a string', request({}), options({ temperature: '1' }), /'1'/],
    ['a temperature of null', request({ temperature: null })],
    ['topP 0', request({}), options({ topP: 0 }), /topP but received 0/],
    ['topP above 1', request({}), options({ topP: 1.5 })],
    ['topK -1', request({}), options({ topK: -1 })],
    ['topK 1.5', request({}), options({ topK: 1.5 })],
    ['minP of NaN', request({}), options({ minP: Number.NaN })],
    ['maxNewTokens 0', request({}), options({ maxNewTokens: 0 })],
    ['maxNewTokens 2^40', request({}), options({ maxNewTokens: 2 ** 40 })],
    ['an empty stop string', request({}), options({ stop: [''] })],
    ['stop that is a string', request({}), options({ stop: 'x' })],
    ['a negative seed', request({}), options({ seed: -1 })],
    ['a seed of 2^64', request({}), options({ seed: 2n ** 64n })],
    ['n 0', request({ n: 0 })],
    ['n 1.5', request({ n: 1.5 })],
    ['ignoreEnd 1', request({}), options({ ignoreEnd: 1 })],
    ['an unknown option', request({}), options({ temprature: 1 }), /Unknown option 'temprature'/],
    ['an unknown option of a request', request({ top_p: 1 }), {}, /Unknown option of requests\[0\] 'top_p'/],
    ['onToken that is no function', request({}), options({ onToken: 1 })],
    ['options that are a string', request({}), 'x' as never],
  ]

test('bad input is ERR_INVALID_ARG naming what is wrong, and the policy goes on', async (t) => {
  const policy = await bytePolicy(t)
  for (const [title, requests, given = {}, message] of badInput) {
    await t.throwsAsync(
      policy.generate(requests, given),
      { code: 'ERR_INVALID_ARG', ...(message && { message }) },
      title,
    )
  }
  t.is((await policy.generate([prompt], { maxNewTokens: 2, ignoreEnd: true })).length, 1)
})

test('text on a policy without a tokenizer is ERR_TOKENIZER; tokens work, with empty text', async (t) => {
  const { config } = await bytePolicy(t)
  const policy = await Policy.initialize(config, { seed: 1, dtype: 'f32', threads: 1 })
  t.teardown(() => policy.dispose())
  await t.throwsAsync(policy.generate([{ prompt: 'x' }]), { code: 'ERR_TOKENIZER' })
  await t.throwsAsync(policy.generate([prompt], { stop: ['x'] }), { code: 'ERR_TOKENIZER' })
  const [completion] = await policy.generate([prompt], { maxNewTokens: 3 })
  t.is(completion!.tokens.length, 3)
  t.is(completion!.text, '')
})

test('a group larger than the batch is whole, also when its prompt fills its pages exactly', async (t) => {
  const policy = await bytePolicy(t)
  // Samples that end at different times let the waiting ones join while siblings hold the prompt's pages.
  const stop = Array.from({ length: 64 }, (_, i) => String.fromCharCode(33 + i))
  for (const length of [63, 64, 65, 128]) {
    const tokens = someTokens(length, 9, 256)
    const completions = await policy.generate([{ tokens, n: 600 }], { seed: 2, maxNewTokens: 12, stop })
    t.is(completions.length, 600)
    t.true(
      completions.every((completion) => completion.tokens.length > 0),
      `${length} tokens`,
    )
    const alone = await policy.generate([{ tokens, n: 5 }], { seed: 2, maxNewTokens: 12, stop })
    t.deepEqual(
      completions.slice(0, 5).map((completion) => completion.tokens),
      alone.map((completion) => completion.tokens),
    )
  }
})
