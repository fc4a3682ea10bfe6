import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import test from 'ava'
import { execaNode } from 'execa'
import { questions, shortTemplate, tinyPolicy } from '../helpers/tiny-policy.ts'

const folder = await mkdtemp(path.join(os.tmpdir(), 'ssrl-quickstart-cli-'))
const at = (...parts: string[]) => path.join(folder, ...parts)

function quickstart(...args: string[]) {
  return execaNode('lib/cli/main.ts', ['quickstart', ...args], {
    nodeOptions: ['--import=tsx'],
    reject: false,
    env: { NO_COLOR: '1', SSRL_THREADS: '1' },
  })
}

async function writeQuestions(file: string, count: number, start = 0): Promise<string> {
  const rows = questions(start + count).slice(start)
  const lines = rows.map(({ id, question, goldenAnswers }) =>
    JSON.stringify({ id, question, golden_answers: goldenAnswers }),
  )
  await writeFile(at(file), `${lines.join('\n')}\n`)
  return at(file)
}

test.before(async () => {
  const policy = await tinyPolicy()
  await policy.save(at('policy'))
  await policy.dispose()
  await writeFile(at('template.txt'), shortTemplate)
})

test.after.always(() => rm(folder, { recursive: true, force: true }))

test('quickstart on one’s own policy measures on the first --limit held-out questions and says how many', async (t) => {
  const train = await writeQuestions('train.jsonl', 8)
  const evaluation = await writeQuestions('eval.jsonl', 5, 8)
  const own = ['--policy', at('policy'), '--train', train, '--eval', evaluation]
  const rest = ['--prompt-template', at('template.txt'), '--output', at('run'), '--steps', '1', '--json']
  const { stdout, stderr, exitCode } = await quickstart(...own, ...rest, '--limit', '3')
  t.is(exitCode, 0, stderr)
  t.regex(stderr, /measured on 3 of 5 held-out questions \(--limit\), sampled on 3 of these/)
  const { questions: measured, rewards } = JSON.parse(stdout)
  t.is(measured, 3)
  t.is(rewards.length, 1)
})

test('quickstart on one’s own policy measures on 200 held-out questions unless told otherwise', async (t) => {
  const train = await writeQuestions('few.jsonl', 2)
  const evaluation = await writeQuestions('many.jsonl', 205, 2)
  const { stderr, exitCode } = await quickstart(
    ...['--policy', at('no-such-policy'), '--train', train, '--eval', evaluation],
  )
  t.is(exitCode, 1)
  t.regex(stderr, /measured on 200 of 205 held-out questions \(--limit\), sampled on 64 of these/)
})

for (const flag of ['--train', '--eval', '--limit', '--prompt-template', '--threads']) {
  test(`quickstart without a policy refuses ${flag}`, async (t) => {
    const { stderr, exitCode } = await quickstart(flag, '3')
    t.is(exitCode, 2)
    t.regex(stderr, new RegExp(`Expected --policy, --train and --eval beside ${flag}`))
  })
}

test('quickstart refuses a limit that is no count', async (t) => {
  t.is((await quickstart('--policy', 'x', '--limit', '0')).exitCode, 2)
})
