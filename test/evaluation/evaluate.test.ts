import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { evaluate } from '../../lib/evaluation/evaluate.ts'
import { readJsonl } from '../../lib/logging/jsonl.ts'
import { questions, shortTemplate, tinyPolicy } from '../helpers/tiny-policy.ts'

const promptTemplate = { name: 'short', text: shortTemplate }

interface Reply {
  status?: number
  body: unknown
}

type Body = {
  messages?: { content: string }[]
  prompt?: string
  stop?: string[]
  seed: number
  model: string
}

/** A server that answers each request by a function. */
async function server(t: ExecutionContext, answer: (body: Body, path: string, count: number) => Reply) {
  let count = 0
  const http = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    count += 1
    const { status = 200, body } = answer(JSON.parse(Buffer.concat(chunks).toString()), request.url!, count)
    response.writeHead(status, { 'content-type': 'application/json' })
    response.end(typeof body === 'string' ? body : JSON.stringify(body))
  })
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  t.teardown(() => http.close())
  return {
    url: `http://127.0.0.1:${(http.address() as AddressInfo).port}/v1/`,
    model: 'm',
    requests: () => count,
  }
}

const chat = (content: string, finish_reason = 'stop') => ({
  body: { choices: [{ message: { content }, finish_reason }], usage: { completion_tokens: 7 } },
})

const cityOf = ({ messages }: Body) => /person (\d+)/.exec(messages![0]!.content)![1]

test('an endpoint is asked once a sample, and the stop string that it leaves out is put back', async (t) => {
  const endpoint = await server(t, (body) => {
    t.deepEqual(body.stop, ['</answer>'])
    t.is(body.model, 'm')
    return chat(`<think> x </think><answer> City ${cityOf(body)} `)
  })
  const report = await evaluate({ endpoint, questions: questions(3), n: 2, temperature: 1, seed: 4 })
  t.is(endpoint.requests(), 6)
  t.is(report.benchmarks.questions!.em, 1)
  t.is(report.benchmarks.questions!.format, 0.5)
  t.deepEqual(report.benchmarks.questions!.pass, { 1: 1, 2: 1 })
  t.is(report.predictions[0]!.text, '<think> x </think><answer> City 0 </answer>')
  t.is(report.predictions[0]!.tokens, 7)
})

test('a completion that was cut off keeps its missing end', async (t) => {
  const endpoint = await server(t, () => chat('<answer> City', 'length'))
  const report = await evaluate({ endpoint, questions: questions(1) })
  t.is(report.predictions[0]!.text, '<answer> City')
  t.is(report.predictions[0]!.finish_reason, 'length')
  t.is(report.benchmarks.questions!.em, 0)
})

test('few-shot asks for a text completion', async (t) => {
  const endpoint = await server(t, (body, url) => {
    t.is(url, '/v1/completions')
    t.true(body.prompt!.endsWith('Answer:'))
    return { body: { choices: [{ text: ' city 0', finish_reason: 'stop' }] } }
  })
  const report = await evaluate({ endpoint, questions: questions(1), method: 'few-shot' })
  t.is(report.benchmarks.questions!.em, 1)
})

test('a busy server is asked again, a refusal is ERR_NETWORK', async (t) => {
  const busy = await server(t, (body, _, count) =>
    count === 1 ? { status: 503, body: 'busy' } : chat(`<answer> City ${cityOf(body)} `),
  )
  t.is((await evaluate({ endpoint: busy, questions: questions(1) })).benchmarks.questions!.em, 1)
  const refusing = await server(t, () => ({ status: 401, body: 'no key' }))
  await t.throwsAsync(evaluate({ endpoint: refusing, questions: questions(2) }), {
    code: 'ERR_NETWORK',
    message: /401.*no key/,
  })
  const strange = await server(t, () => ({ body: { hello: 1 } }))
  await t.throwsAsync(evaluate({ endpoint: strange, questions: questions(1) }), {
    code: 'ERR_NETWORK',
    message: /expected a completion/,
  })
})

test('predictions.jsonl has the input fields and the scores, line by line in input order', async (t) => {
  const output = await mkdtemp(path.join(os.tmpdir(), 'ssrl-eval-'))
  t.teardown(() => rm(output, { recursive: true, force: true }))
  const policy = await tinyPolicy()
  t.teardown(() => policy.dispose())
  const asked = questions(3)
  const report = await evaluate({
    policy,
    questions: { first: asked.slice(0, 2), second: asked.slice(2) },
    n: 2,
    temperature: 0.7,
    topP: 0.9,
    maxNewTokens: 8,
    promptTemplate,
    output,
    about: { policy: 'tiny' },
  })
  const lines = await readJsonl<Record<string, unknown>>(path.join(output, 'predictions.jsonl'))
  t.deepEqual(
    lines.map(({ id, benchmark, sample }) => [id, benchmark, sample]),
    [
      ['q0', 'first', 0],
      ['q0', 'first', 1],
      ['q1', 'first', 0],
      ['q1', 'first', 1],
      ['q2', 'second', 0],
      ['q2', 'second', 1],
    ],
  )
  const names = [
    'id',
    'number',
    'benchmark',
    'sample',
    'text',
    'prediction',
    'em',
    'f1',
    'cover_em',
    'format',
  ]
  t.deepEqual(Object.keys(lines[0]!), [...names, 'finish_reason', 'searches', 'tokens'])
  const summary = JSON.parse(await readFile(path.join(output, 'summary.json'), 'utf8'))
  const { predictions, ...rest } = report
  t.deepEqual(summary, JSON.parse(JSON.stringify(rest)))
  t.deepEqual(Object.keys(summary), ['benchmarks', 'macro', 'micro', 'settings', 'scoring'])
  t.is(summary.settings.policy, 'tiny')
  t.is(summary.benchmarks.first.n, 2)
})

test('a greedy evaluation is the same every time; a prompt beyond the context is a wrong answer', async (t) => {
  const policy = await tinyPolicy()
  t.teardown(() => policy.dispose())
  const long = { ...questions(1)[0]!, id: 'long', question: 'why '.repeat(300) }
  const run = () => evaluate({ policy, questions: [...questions(2), long], maxNewTokens: 8, promptTemplate })
  const [first, second] = [await run(), await run()]
  t.deepEqual(first, second)
  t.is(first.predictions[2]!.finish_reason, 'prompt-too-long')
  t.is(first.predictions[2]!.em, 0)
})

test('options that make no sense together are refused', async (t) => {
  const policy = await tinyPolicy()
  t.teardown(() => policy.dispose())
  const refused = async (options: object) =>
    t.throwsAsync(evaluate({ policy, questions: questions(1), ...options }), { code: 'ERR_INVALID_CONFIG' })
  await refused({ n: 2 })
  await refused({ n: 0 })
  await refused({ temperature: Number.NaN })
  await refused({ temperature: -1 })
  await refused({ endpoint: { url: 'http://x', model: 'm' } })
  await refused({ policy: undefined })
  await refused({ questions: [] })
  await refused({ method: 'rag' })
})
