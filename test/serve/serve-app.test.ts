import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test from 'ava'
import type OpenAI from 'openai'
import { Policy } from '../../lib/policy/policy.ts'
import { tinyPolicy } from '../helpers/tiny-policy.ts'
import { serving, tokensAtRest } from './serving.ts'

const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content: 'Where was Ada born?' }]
const chat = { model: 'tiny', messages, seed: 3, max_tokens: 24 }
const text = { model: 'tiny', prompt: 'Where was', seed: 3, max_tokens: 24 }

async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const chunks: T[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return chunks
}

test('the served model is listed and found by its name; another is 404', async (t) => {
  const { client } = await serving(t)
  const models = await collect(client.models.list())
  t.deepEqual(
    models.map(({ id, object, owned_by }) => [id, object, owned_by]),
    [['tiny', 'model', 'ssrl']],
  )
  t.is((await client.models.retrieve('tiny')).id, 'tiny')
  await t.throwsAsync(client.models.retrieve('org/other'), { message: /404 .*"org\/other" does not exist/ })
})

test("a chat completion is the policy's own, with usage and reason to end", async (t) => {
  const { client, policy } = await serving(t)
  const answer = await client.chat.completions.create(chat)
  const [own] = await policy.generate([{ prompt: messages as never, seed: 3 }], { maxNewTokens: 24 })
  t.like(answer, { object: 'chat.completion', model: 'tiny' })
  t.regex(answer.id, /^chatcmpl-/)
  t.deepEqual(answer.choices, [
    {
      index: 0,
      message: { role: 'assistant', content: own!.text, refusal: null },
      logprobs: null,
      finish_reason: 'length',
    },
  ])
  const prompt = own!.promptTokens.length
  t.deepEqual(answer.usage, { prompt_tokens: prompt, completion_tokens: 24, total_tokens: prompt + 24 })
})

test('a stream brings the same text in pieces, then the usage where it is asked for', async (t) => {
  const { client } = await serving(t)
  const whole = await client.chat.completions.create({ ...chat, n: 2 })
  const chunks = await collect(
    await client.chat.completions.create({
      ...chat,
      n: 2,
      stream: true,
      stream_options: { include_usage: true },
    }),
  )
  for (const index of [0, 1]) {
    const mine = chunks.flatMap(({ choices }) => choices.filter((choice) => choice.index === index))
    t.is(mine.map(({ delta }) => delta.content ?? '').join(''), whole.choices[index]!.message.content!)
    t.is(mine[0]!.delta.role, 'assistant')
    t.true(mine.length > 10)
    t.deepEqual(
      mine.map(({ finish_reason: reason }) => reason),
      [...mine.slice(1).map(() => null), 'length'],
    )
  }
  t.not(whole.choices[0]!.message.content, whole.choices[1]!.message.content)
  t.deepEqual(chunks.at(-1), { ...chunks.at(-1)!, choices: [], usage: whole.usage! })
  t.true(chunks.slice(0, -1).every(({ usage }) => usage === null))
  const plain = await collect(await client.chat.completions.create({ ...chat, stream: true }))
  t.true(plain.every((chunk) => !('usage' in chunk)))
})

test('a stream ends with [DONE] and is server-sent events', async (t) => {
  const { url } = await serving(t)
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ ...text, max_tokens: 3, stream: true }),
  })
  t.regex(response.headers.get('content-type')!, /^text\/event-stream/)
  const events = (await response.text()).split('\n\n')
  t.deepEqual(events.slice(-2), ['data: [DONE]', ''])
  t.true(events.slice(0, -1).every((event) => event.startsWith('data: ')))
})

test('log-probs of a chat are those that the policy sampled with, bit for bit, whole and in pieces', async (t) => {
  const { client, policy } = await serving(t)
  const options = { ...chat, temperature: 0.7, logprobs: true } as const
  const whole = await client.chat.completions.create(options)
  const sampling = { temperature: 0.7, maxNewTokens: 24 }
  const [own] = await policy.generate([{ prompt: messages as never, seed: 3 }], sampling)
  const content = whole.choices[0]!.logprobs!.content!
  t.deepEqual(
    content.map(({ logprob }) => logprob),
    [...own!.logProbs],
  )
  const bytes = content.flatMap((token) => token.bytes!)
  t.is(Buffer.from(bytes).toString(), whole.choices[0]!.message.content!)
  t.deepEqual([...new Set(content.map((token) => token.top_logprobs.length))], [0])
  const chunks = await collect(await client.chat.completions.create({ ...options, stream: true }))
  t.deepEqual(
    chunks.flatMap(({ choices }) => choices[0]!.logprobs?.content ?? []),
    content,
  )
})

test('log-probs of a completion come with the places of their tokens', async (t) => {
  const { client, policy } = await serving(t)
  const { choices } = await client.completions.create({ ...text, seed: 5, logprobs: 0 })
  const [own] = await policy.generate([{ prompt: text.prompt, seed: 5 }], { maxNewTokens: 24 })
  const { tokens, token_logprobs: values, text_offset: offsets } = choices[0]!.logprobs!
  t.deepEqual(values, [...own!.logProbs])
  t.deepEqual(
    tokens,
    Array.from(own!.tokens, (token) => policy.tokenizer!.decode([token])),
  )
  // A token that ends within a character brings its text with the next.
  const stream = policy.tokenizer!.createStream()
  const lengths = Array.from(own!.tokens, (token) => stream.push(token).length)
  t.deepEqual(
    offsets,
    lengths.map((_, i) => lengths.slice(0, i).reduce((sum, length) => sum + length, 0)),
  )
})

test('a list of prompts, texts or token ids, gives n choices each; a prompt is taken as it is', async (t) => {
  const { client, policy } = await serving(t)
  const ids = Array.from(policy.tokenizer!.encode('Where was'))
  const one = await client.completions.create({ ...text, n: 2 })
  const both = await client.completions.create({ ...text, prompt: ['Where was', 'Who'], n: 2 })
  t.deepEqual(
    both.choices.map(({ index }) => index),
    [0, 1, 2, 3],
  )
  t.deepEqual(
    both.choices.slice(0, 2).map((choice) => choice.text),
    one.choices.map((choice) => choice.text),
  )
  t.deepEqual((await client.completions.create({ ...text, prompt: ids, n: 2 })).choices, one.choices)
  const lists = await client.completions.create({ ...text, prompt: [ids, ids] })
  t.is(lists.choices[0]!.text, one.choices[0]!.text)
  const { choices, usage } = await client.completions.create({ model: 'tiny', prompt: '<|end|>', seed: 1 })
  t.is(usage!.prompt_tokens, 1)
  t.is(usage!.completion_tokens, 16)
  t.is(choices[0]!.finish_reason, 'length')
})

test('what clients write in a chat makes no control token, whoever says it', async (t) => {
  const { client, policy } = await serving(t)
  const length = policy.tokenizer!.encode('<|end|>', { allowAddedTokens: false }).length
  t.true(length > 1)
  for (const role of ['system', 'developer', 'user', 'assistant'] as const) {
    const { usage } = await client.chat.completions.create({
      ...chat,
      messages: [{ role, content: '<|end|>' }],
    })
    t.is(usage!.prompt_tokens, length, role)
  }
})

test('messages of several parts, and a message as it came, go in', async (t) => {
  const { client } = await serving(t)
  const parts = [
    { type: 'text' as const, text: 'Where was ' },
    { type: 'text' as const, text: 'Ada born?' },
  ]
  const first = await client.chat.completions.create({
    ...chat,
    messages: [{ role: 'user', content: parts }],
  })
  const plain = await client.chat.completions.create(chat)
  t.deepEqual(first.choices, plain.choices)
  const again = [...messages, first.choices[0]!.message, { role: 'user' as const, content: 'Why?' }]
  t.is((await client.chat.completions.create({ ...chat, messages: again })).choices.length, 1)
})

test('an equal seed gives equal choices, beside whatever else is asked; without one they differ', async (t) => {
  const { client } = await serving(t)
  const { seed: _, ...unseeded } = text
  const alone = await client.completions.create(text)
  const others = Array.from({ length: 6 }, () => client.completions.create(unseeded))
  const [busy, ...different] = await Promise.all([client.completions.create(text), ...others])
  t.is(busy.choices[0]!.text, alone.choices[0]!.text)
  t.is(new Set(different.map(({ choices }) => choices[0]!.text)).size, 6)
  const negative = await Promise.all([-7, -7].map((seed) => client.completions.create({ ...text, seed })))
  t.is(negative[0]!.choices[0]!.text, negative[1]!.choices[0]!.text)
})

test('requests of several clients go through the model together', async (t) => {
  const { client, policy } = await serving(t, { maxPositions: 1024 })
  const request = { ...text, max_tokens: 400, ignore_eos: true }
  await Promise.all(Array.from({ length: 8 }, () => client.completions.create(request)))
  const { steps, decodedTokens } = await policy.generatorStatistics()
  t.is(decodedTokens, 8 * 400)
  t.true(steps < 2 * 400, `${steps} steps`)
})

test('sampling settings reach the engine, with what other servers add', async (t) => {
  const { client, policy } = await serving(t)
  const given = { ...text, temperature: 0.5, top_p: 0.9, top_k: 7, min_p: 0.01 }
  const { choices } = await client.completions.create(given)
  const sampling = { temperature: 0.5, topP: 0.9, topK: 7, minP: 0.01, maxNewTokens: 24 }
  const [own] = await policy.generate([{ prompt: text.prompt, seed: 3 }], sampling)
  t.is(choices[0]!.text, own!.text)
  const all = await client.completions.create({ ...text, top_k: -1 } as never)
  t.is(all.choices[0]!.text, (await client.completions.create(text)).choices[0]!.text)
})

test('max_tokens and max_completion_tokens end a choice; without them the context does', async (t) => {
  const { client } = await serving(t)
  const short = await client.chat.completions.create({ ...chat, max_completion_tokens: 5 })
  t.is(short.usage!.completion_tokens, 5)
  const { max_tokens: _, ...open } = chat
  const long = await client.chat.completions.create({ ...open, ignore_eos: true } as typeof open)
  t.is(long.usage!.total_tokens, 256)
  t.is(long.choices[0]!.finish_reason, 'length')
})

test('fields that ask for nothing are taken: those that clients send along', async (t) => {
  const { client } = await serving(t)
  const answer = await client.chat.completions.create({
    ...chat,
    frequency_penalty: 0,
    presence_penalty: 0,
    logit_bias: {},
    tools: [],
    tool_choice: 'none',
    parallel_tool_calls: true,
    response_format: { type: 'text' },
    user: 'me',
    metadata: { a: 'b' },
    top_logprobs: null,
  })
  t.is(answer.choices.length, 1)
})

test('a client that leaves ends its generation, streaming or not', async (t) => {
  const { client, policy } = await serving(t, { maxPositions: 60_000, maxPending: 1 })
  const endless = { ...text, max_tokens: 50_000, ignore_eos: true }
  for (const stream of [true, false]) {
    const controller = new AbortController()
    const { signal } = controller
    const before = (await policy.generatorStatistics()).decodedTokens
    if (stream) {
      const chunks = await client.completions.create({ ...endless, stream }, { signal })
      for await (const _ of chunks) break
      controller.abort()
    } else {
      const answer = client.completions.create({ ...endless, stream }, { signal })
      while ((await policy.generatorStatistics()).decodedTokens < before + 10);
      controller.abort()
      await t.throwsAsync(answer)
    }
    const tokens = (await tokensAtRest(policy)) - before
    t.true(tokens > 0 && tokens < 40_000, `${tokens} tokens, streaming: ${stream}`)
    // Its place is free again.
    t.is((await client.completions.create({ ...text, max_tokens: 2 })).choices.length, 1)
  }
})

test('the wording of a template stands around the last turn of the user', async (t) => {
  const template = { name: 'test', text: 'Question: {question}\n' }
  const { client, policy } = await serving(t, { promptTemplate: template })
  const { choices } = await client.chat.completions.create(chat)
  const prompt = 'Question: Where was Ada born?\n'
  const [own] = await policy.generate([{ prompt, seed: 3 }], { maxNewTokens: 24 })
  t.is(choices[0]!.message.content, own!.text)
})

test('a stop string ends a choice and is no part of it, unless it is wanted', async (t) => {
  const { client, policy } = await serving(t)
  const [own] = await policy.generate([{ prompt: text.prompt, seed: 3 }], { maxNewTokens: 24 })
  const stop = own!.text.slice(4, 7)
  const before = own!.text.slice(0, own!.text.indexOf(stop))
  const { choices, usage } = await client.completions.create({ ...text, stop: [stop, 'never'] })
  t.like(choices[0], { text: before, finish_reason: 'stop' })
  t.true(usage!.completion_tokens < 24, 'the engine stopped there')
  const streamed = await collect(await client.completions.create({ ...text, stop, stream: true }))
  t.is(streamed.map((chunk) => chunk.choices[0]!.text).join(''), before)
  t.is(streamed.at(-1)!.choices[0]!.finish_reason, 'stop')
  const kept = { ...text, stop, include_stop_str_in_output: true }
  t.is((await client.completions.create(kept)).choices[0]!.text, before + stop)
})

test("the policy's own stop strings end a choice and stay in it", async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'ssrl-serve-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const plain = await tinyPolicy()
  const [own] = await plain.generate([{ prompt: text.prompt, seed: 3 }], { maxNewTokens: 24 })
  const stop = own!.text.slice(4, 7)
  await plain.save(path.join(folder, 'policy'), { stopStrings: [stop] })
  await plain.dispose()
  const policy = await Policy.load(path.join(folder, 'policy'), { dtype: 'f32' })
  const { client } = await serving(t, { policy })
  const { choices } = await client.completions.create(text)
  const end = own!.text.indexOf(stop) + stop.length
  t.like(choices[0], { text: own!.text.slice(0, end), finish_reason: 'stop' })
})
