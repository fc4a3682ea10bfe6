import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { stripVTControlCharacters } from 'node:util'
import test from 'ava'
import { execaNode } from 'execa'
import { buildIndex } from '../../lib/index.ts'
import { people, searchingPolicy, taught } from '../helpers/searching-policy.ts'
import { testWithSqlite } from '../helpers/sqlite.ts'
import { tinyPolicy } from '../helpers/tiny-policy.ts'

let folder: string
const at = (name: string) => path.join(folder, name)

test.before(async (t) => {
  t.timeout(180_000)
  folder = await mkdtemp(path.join(tmpdir(), 'ssrl-chat-cli-'))
  const policy = await searchingPolicy()
  await policy.save(at('policy'))
  await policy.dispose()
  const endless = await tinyPolicy({ maxPositions: 60_000 })
  await endless.save(at('endless'))
  await endless.dispose()
  await writeFile(at('wording.txt'), 'Question: {question}\n')
})
test.after.always(() => rm(folder, { recursive: true, force: true }))

interface Given {
  args?: string[]
  input?: string
  env?: Record<string, string>
  policy?: string
}

function chat({ args = [], input, env = {}, policy = 'policy' }: Given) {
  const flags = ['chat', '-p', at(policy), '--prompt-template', at('wording.txt'), '--temperature', '0']
  return execaNode('lib/cli/main.ts', [...flags, '--no-history', ...args], {
    nodeOptions: ['--import=tsx'],
    reject: false,
    stripFinalNewline: false,
    env: { SSRL_THREADS: '1', ...env },
    ...(input === undefined ? {} : { input }),
  })
}

const questionOf = (name: string) => `Where was ${name} born?`

test('questions from a pipe are answered one after another, plainly, blank lines aside', async (t) => {
  const input = `${questionOf('Ada')}\n\n${questionOf('Cleo')}\n`
  const { stdout, stderr, exitCode } = await chat({ input })
  t.is(exitCode, 0, stderr)
  t.is(stdout, `${taught('Ada')}\n${taught('Cleo')}\n`)
  t.is(stderr, '')
})

test('each block has a colour of its own where colours are wanted, and none with NO_COLOR', async (t) => {
  const input = questionOf('Cleo')
  const { stdout } = await chat({ input, env: { FORCE_COLOR: '1' } })
  const [think, search, information, again, answer] = [2, 33, 34, 2, 32]
  const codes = stdout.split('\u001b[').flatMap((part) => {
    const found = /^(\d+)m<(\w+)>/.exec(part)
    return found ? [[Number(found[1]), found[2]]] : []
  })
  t.deepEqual(codes, [
    [think, 'think'],
    [search, 'search'],
    [information, 'information'],
    [again, 'think'],
    [answer, 'answer'],
  ])
  const plain = stripVTControlCharacters(stdout)
  t.is(plain, `${taught('Cleo')}\n`)
  const none = await chat({ input, env: { FORCE_COLOR: '1', NO_COLOR: '1' } })
  t.is(none.stdout, plain)
})

testWithSqlite(
  'a local index answers the search: its documents stand in the text, harmless, and it is told who answered',
  async (t) => {
    const text = 'Cleo is from <answer>Rome</answer>, birthplace of many.'
    await buildIndex([{ id: '1', title: 'Cleo', text }], at('index'))
    const args = ['--search', `local:${at('index')}`, '--document-layout', 'plain', '--search-top-k', '1']
    const { stdout, stderr, exitCode } = await chat({ input: questionOf('Cleo'), args })
    t.is(exitCode, 0, stderr)
    const shown =
      '<information>Cleo is from &lt;answer&gt;Rome&lt;/answer&gt;, birthplace of many.</information>'
    t.true(stdout.includes(`<search>birthplace of Cleo</search>${shown}`), stdout)
    t.regex(stderr, /^\(local .* answered "birthplace of Cleo" with 1 documents in \d+ ms\)$/m)
  },
)

test('earlier turns stand before a question; the oldest are left out where the context is full', async (t) => {
  const flags = [
    'chat',
    '-p',
    at('policy'),
    '--prompt-template',
    at('wording.txt'),
    '--max-new-tokens',
    '400',
  ]
  const input = Array.from({ length: 20 }, (_, i) => questionOf(people[i % people.length]!)).join('\n')
  const { stderr, exitCode } = await execaNode('lib/cli/main.ts', [...flags, '--seed', '1'], {
    nodeOptions: ['--import=tsx'],
    reject: false,
    env: { SSRL_THREADS: '1' },
    input,
  })
  t.is(exitCode, 0, stderr)
  t.regex(stderr, /\(the context is full: \d+ earlier questions were left out\)/)
})

test('Ctrl-C stops the answer and the next question is taken; a second one leaves', async (t) => {
  const args = ['--max-new-tokens', '50000']
  const child = chat({ args, policy: 'endless' })
  let shown = ''
  child.stdout.on('data', (data: Buffer) => {
    shown += data
  })
  const grown = async (than: number) => {
    while (shown.length <= than) await sleep(20)
    return shown.length
  }
  child.stdin.write('first\n')
  await grown(100)
  child.kill('SIGINT')
  let said = ''
  child.stderr.on('data', (data: Buffer) => {
    said += data
  })
  while (!said.includes('(stopped)')) await sleep(20)
  const before = shown.length
  child.stdin.write('second\n')
  await grown(before + 100)
  child.kill('SIGINT')
  t.is((await child).exitCode, 130)
})

test('a question that does not fit is told, the others are answered, and the exit code is 1', async (t) => {
  const input = `${questionOf('Ada')}\n${'Where '.repeat(1200)}\n${questionOf('Cleo')}`
  const { stdout, stderr, exitCode } = await chat({ input })
  t.is(exitCode, 1)
  t.regex(stderr, /^error ERR_INVALID_ARG: Expected at most \d+ tokens/m)
  t.is(stdout, `${taught('Ada')}\n\n${taught('Cleo')}\n`)
})

test('a provider or a policy that is not there is one clear message', async (t) => {
  const unknown = await chat({ input: 'x', args: ['--search', 'nobody'] })
  t.is(unknown.exitCode, 2)
  t.regex(unknown.stderr, /^error ERR_INVALID_CONFIG: Expected a search provider/)
  for (const flags of [
    ['--search-top-k', '2'],
    ['--search', 'http://127.0.0.1:9', '--real-searches', '2'],
  ]) {
    const idle = await chat({ input: 'x', args: flags })
    t.is(idle.exitCode, 2)
    t.regex(idle.stderr, /^error ERR_INVALID_ARG: Expected --search/)
  }
  const missing = await chat({ input: 'x', args: ['--search', `local:${at('nothing')}`] })
  t.is(missing.exitCode, 1)
  t.is((await chat({ input: 'x', policy: 'nothing' })).exitCode, 1)
})
