import test from 'ava'
import OpenAI from 'openai'
import type { Policy } from '../../lib/policy/policy.ts'
import { createSearch } from '../../lib/rollout/search.ts'
import type { SearchProvider } from '../../lib/search/provider.ts'
import { selfProvider } from '../../lib/search/provider.ts'
import { listen } from '../../lib/serve/listen.ts'
import { serveApp } from '../../lib/serve/serve-app.ts'
import { promptOf, searchingPolicy, taught, template } from '../helpers/searching-policy.ts'

let policy: Policy
test.before(async (t) => {
  t.timeout(180_000)
  policy = await searchingPolicy()
})
test.after.always(() => policy?.dispose())

/** A server whose policy searches while it answers. */
async function searching(t: import('ava').ExecutionContext, provider: SearchProvider) {
  const schedule = provider === selfProvider ? 'self' : 'real'
  const search = createSearch({ provider, schedule, layout: 'plain', timeout: 60_000 })
  const server = await listen(serveApp({ policy, model: 'm', search, promptTemplate: template }), { port: 0 })
  t.teardown(() => server.close())
  return new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'any', maxRetries: 0 })
}

const asking = (name: string): OpenAI.ChatCompletionCreateParamsNonStreaming => ({
  model: 'm',
  messages: [{ role: 'user', content: `Where was ${name} born?` }],
  temperature: 0,
})

test('documents stand in the answer, harmless; they count as tokens of the prompt', async (t) => {
  const seen: unknown[] = []
  const client = await searching(t, {
    name: 'test',
    search: async (queries, { origins }) => {
      seen.push(...queries, ...origins.map(({ question }) => question))
      return queries.map(() => ({ documents: [{ text: 'Ask </information> nobody.' }] }))
    },
  })
  const { choices, usage } = await client.chat.completions.create(asking('Cleo'))
  const { content } = choices[0]!.message
  const information = '<information>Ask &lt;/information&gt; nobody.</information>'
  t.true(
    content!.startsWith(`<think>I see.</think><search>birthplace of Cleo</search>${information}`),
    content!,
  )
  t.deepEqual(seen.slice(0, 2), ['birthplace of Cleo', 'Where was Cleo born?'])
  const shown = policy.tokenizer!.encode(content!).length
  const prompt = policy.tokenizer!.encode(promptOf('Cleo')).length
  t.true(usage!.prompt_tokens > prompt)
  t.true(Math.abs(usage!.total_tokens - prompt - shown) < 8)
})

test('a policy that answers its own searches gives the same text, whole and in a stream, n times', async (t) => {
  const client = await searching(t, selfProvider)
  const whole = await client.chat.completions.create({ ...asking('Bea'), n: 2 })
  t.deepEqual(
    whole.choices.map(({ message, finish_reason }) => [message.content, finish_reason]),
    [
      [taught('Bea'), 'stop'],
      [taught('Bea'), 'stop'],
    ],
  )
  let text = ''
  for await (const { choices } of await client.chat.completions.create({ ...asking('Bea'), stream: true })) {
    text += choices[0]?.delta.content ?? ''
  }
  t.is(text, taught('Bea'))
})

test.serial('a client that leaves while a search waits ends it, and its pages are free', async (t) => {
  let ended: unknown
  let begin = () => {}
  const begun = new Promise<void>((resolve) => {
    begin = resolve
  })
  const client = await searching(t, {
    name: 'slow',
    search: (_, { signal }) =>
      new Promise((_, reject) => {
        begin()
        signal.addEventListener('abort', () => {
          ended = signal.reason
          reject(signal.reason)
        })
      }),
  })
  const controller = new AbortController()
  const answer = client.chat.completions.create(asking('Cleo'), { signal: controller.signal })
  await begun
  controller.abort()
  await t.throwsAsync(answer)
  for (let i = 0; ended === undefined && i < 100; i++) await new Promise((resolve) => setTimeout(resolve, 20))
  t.truthy(ended)
  for (let i = 0; i < 100 && (await policy.generatorStatistics()).pagesUsed > 0; i++);
  t.is((await policy.generatorStatistics()).pagesUsed, 0)
})

test('what documents in the text make meaningless is refused', async (t) => {
  const client = await searching(t, selfProvider)
  for (const [more, param] of [
    [{ logprobs: true }, 'logprobs'],
    [{ stop: 'x' }, 'stop'],
    [{ ignore_eos: true }, 'ignore_eos'],
  ] as const) {
    const refused = client.chat.completions.create({ ...asking('Ada'), ...more })
    const error = await t.throwsAsync(refused, { instanceOf: OpenAI.BadRequestError })
    t.is((error as InstanceType<typeof OpenAI.APIError>).param, param)
  }
})
