import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test from 'ava'
import { execaNode } from 'execa'
import OpenAI from 'openai'
import { tinyPolicy } from '../helpers/tiny-policy.ts'

let folder: string
test.before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'ssrl-serve-cli-'))
  const policy = await tinyPolicy({ maxPositions: 60_000 })
  await policy.save(path.join(folder, 'tiny'))
  await policy.dispose()
})
test.after.always(() => rm(folder, { recursive: true, force: true }))

/** Starts a server on a free port; its address is the one line that it prints. */
async function start(t: import('ava').ExecutionContext, args: string[], env: Record<string, string> = {}) {
  const options = {
    nodeOptions: ['--import=tsx'],
    reject: false,
    env: { SSRL_THREADS: '1', ...env },
  } as const
  const policy = path.join(folder, 'tiny')
  const child = execaNode('lib/cli/main.ts', ['serve', '-p', policy, '--port', '0', ...args], options)
  t.teardown(() => {
    child.kill('SIGKILL')
  })
  const lines = child.stdout[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  const { value } = await lines.next()
  const baseURL = String(value).trim()
  return { child, baseURL, client: new OpenAI({ baseURL, apiKey: 'secret', maxRetries: 0 }) }
}

test('serve prints its address; after Ctrl-C the answer under way comes whole, and it ends with 0', async (t) => {
  const { child, baseURL, client } = await start(t, [])
  t.regex(baseURL, /^http:\/\/127\.0\.0\.1:\d+\/v1$/)
  const request = {
    model: 'tiny',
    prompt: 'Where',
    max_tokens: 12_000,
    ignore_eos: true,
    stream: true,
  } as const
  let count = 0
  let reason: string | undefined
  for await (const { choices } of await client.completions.create(request)) {
    if (++count === 3) child.kill('SIGINT')
    reason = choices[0]?.finish_reason ?? reason
  }
  t.is(reason, 'length')
  const { exitCode, stderr } = await child
  t.is(exitCode, 0, stderr)
  t.regex(stderr, /letting answers under way finish/)
})

test('serve takes its key from the environment, and a name, limits and wording from flags', async (t) => {
  const flags = [
    '--model-name',
    'ada',
    '--max-pending',
    '1',
    '--max-body-bytes',
    '300',
    '--max-new-tokens',
    '5',
  ]
  const more = [...flags, '--search', 'self']
  const { client, baseURL, child } = await start(t, more, { SSRL_API_KEY: 'secret' })
  const request = { model: 'ada', messages: [{ role: 'user' as const, content: 'Hi' }] }
  t.is((await client.chat.completions.create(request)).usage!.completion_tokens <= 5, true)
  t.is((await fetch(`${baseURL}/models`)).status, 401)
  await t.throwsAsync(client.chat.completions.create({ ...request, n: 2 }), { message: /400 .*at most 1/ })
  const long = [{ role: 'user' as const, content: 'x'.repeat(400) }]
  await t.throwsAsync(client.chat.completions.create({ ...request, messages: long }), { message: /413/ })
  const stopped = client.chat.completions.create({ ...request, stop: 'x' })
  await t.throwsAsync(stopped, { message: /400 stop is not supported here: .* searches/ })
  child.kill('SIGTERM')
  t.is((await child).exitCode, 0)
})

test('a port that is taken, and a wording that is not there, are one clear message', async (t) => {
  const { baseURL } = await start(t, [])
  const port = new URL(baseURL).port
  const again = (await start(t, ['--port', port])).child
  const taken = await again
  t.is(taken.exitCode, 1)
  t.regex(taken.stderr, new RegExp(`ERR_NETWORK: Can't listen on 127.0.0.1:${port}`))
  const wording = (await start(t, ['--prompt-template', '/no/such'])).child
  t.is((await wording).exitCode, 2)
})
