import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test from 'ava'
import { execaNode } from 'execa'
import { Policy } from '../../lib/index.ts'
import { tinyPolicy } from '../helpers/tiny-policy.ts'

let folder: string
test.before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'ssrl-generate-cli-'))
  const policy = await tinyPolicy()
  await policy.save(path.join(folder, 'policy'), { stopStrings: ['</answer>'] })
  await policy.dispose()
})
test.after.always(() => rm(folder, { recursive: true, force: true }))

const nodeOptions = ['--import=tsx']

function ssrl(args: string[], input?: string) {
  const policy = [
    '--policy',
    path.join(folder, 'policy'),
    '--threads',
    '1',
    '--max-new-tokens',
    '8',
    '--seed',
    '1',
  ]
  const options = { nodeOptions, reject: false, stripFinalNewline: false } as const
  return execaNode('lib/cli/main.ts', ['generate', ...policy, ...args], { ...options, input: input ?? '' })
}

test('generate prints the text on stdout, and how it ended on stderr', async (t) => {
  const { stdout, stderr, exitCode } = await ssrl(['--prompt', 'Where was'])
  t.is(exitCode, 0, stderr)
  t.true(stdout.endsWith('\n'))
  t.regex(stderr, /^\d tokens, finished by (length|end|stop)\n$/)
})

test('generate --json prints tokens, log-probs and entropies, the same as the text of one seed', async (t) => {
  const text = await ssrl(['--prompt', 'Where was'])
  const { stdout, exitCode } = await ssrl(['--prompt', 'Where was', '--json'])
  t.is(exitCode, 0)
  const { prompt, promptTokens, completions } = JSON.parse(stdout)
  t.is(prompt, 'Where was')
  t.true(promptTokens.length > 0)
  t.is(completions.length, 1)
  const [completion] = completions
  for (const name of ['tokens', 'pieces', 'logProbs', 'entropies']) {
    t.is(completion[name].length, completion.tokens.length, name)
  }
  t.is(`${completion.text}\n`, text.stdout)
})

test('generate reads the prompt from stdin, and -n gives several completions', async (t) => {
  const { stdout } = await ssrl(['-n', '3', '--json'], 'Where was')
  const { prompt, completions } = JSON.parse(stdout)
  t.is(prompt, 'Where was')
  t.is(completions.length, 3)
  const plain = await ssrl(['-n', '2'], 'Where was')
  t.regex(plain.stdout, /^\[1\] \((length|end|stop)\)\n[\s\S]*\n\[2\] \(/)
})

test('generate without a policy or with a bad flag exits with 2, a policy that is not there with 1', async (t) => {
  t.is((await ssrl(['--top-p', '0'])).exitCode, 2)
  t.is((await ssrl(['--prompt', ''])).exitCode, 2)
  const noPolicy = await execaNode('lib/cli/main.ts', ['generate'], { nodeOptions, reject: false })
  t.is(noPolicy.exitCode, 2)
  const gone = await execaNode('lib/cli/main.ts', ['generate', '-p', '/no/such', '--prompt', 'x'], {
    nodeOptions,
    reject: false,
  })
  t.is(gone.exitCode, 1)
  t.regex(gone.stderr, /ERR_IO/)
})

test('generate takes token ids for a policy without a tokenizer and prints ids; a text is ERR_TOKENIZER', async (t) => {
  const tiny = await tinyPolicy()
  const policy = await Policy.initialize(tiny.config, { seed: 1, dtype: 'f32' })
  await policy.save(path.join(folder, 'bare'))
  await policy.dispose()
  await tiny.dispose()
  const bare = ['generate', '--policy', path.join(folder, 'bare'), '--max-new-tokens', '4', '--seed', '1']
  const run = (...args: string[]) =>
    execaNode('lib/cli/main.ts', [...bare, ...args], { nodeOptions, reject: false })
  const ids = await run('--tokens', '1,2, 3')
  t.is(ids.exitCode, 0, ids.stderr)
  const json = JSON.parse((await run('--tokens', '1,2,3', '--json')).stdout)
  t.deepEqual(json.promptTokens, [1, 2, 3])
  t.true(ids.stdout.includes(json.completions[0].tokens.join(',')))
  t.regex((await run('--prompt', 'x')).stderr, /ERR_TOKENIZER/)
  t.is((await run('--tokens', '1,x')).exitCode, 2)
  t.is((await run('--tokens', '1', '--prompt', 'x')).exitCode, 2)
})
