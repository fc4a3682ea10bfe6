import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test from 'ava'
import { execa } from 'execa'
import { createWorld } from '../lib/quickstart/world.ts'
import { tinyPolicy } from './helpers/tiny-policy.ts'

let folder: string
let policy: string
let questions: string

test.before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'ssrl-examples-'))
  policy = path.join(folder, 'policy')
  questions = path.join(folder, 'questions.jsonl')
  // The default instruction is long in a tokenizer that knows few words.
  const tiny = await tinyPolicy({ maxPositions: 2048 })
  await tiny.save(policy)
  tiny.dispose()
  const rows = ['Where was Ada born?', 'Who wrote it?', 'When?', 'Which town?']
  await writeFile(
    questions,
    rows.map((question) => JSON.stringify({ question, golden_answers: ['x'] })).join('\n'),
  )
})

test.after.always(() => rm(folder, { recursive: true, force: true }))

const run = (name: string, ...args: string[]) =>
  execa('node', ['--import=tsx', `examples/${name}`, ...args], { env: { SSRL_THREADS: '1' } })

test('train.ts trains, logs a mismatch of 0 at every step, evaluates and saves', async (t) => {
  const output = path.join(folder, 'run')
  const { stdout } = await run('train.ts', policy, questions, questions, output, '2')
  const lines = stdout.split('\n')
  t.regex(lines[0]!, /^step 1: reward \d\.\d+, .* log-prob mismatch 0$/)
  t.regex(lines[1]!, /^step 2: .* log-prob mismatch 0$/)
  t.regex(stdout, /held out: /)
  t.true((await readdir(output)).length > 0)
})

test('custom-reward.ts logs each part of the reward', async (t) => {
  const { stdout } = await run('custom-reward.ts', policy, questions, '1')
  t.regex(stdout, /^1 \{ exactMatch: [\d.]+, format: [\d.]+, brevity: [\d.]+ \}$/)
})

test('own-loop.ts takes policy-gradient steps', async (t) => {
  const { stdout } = await run('own-loop.ts', policy, 'Where was Ada born?', 'London', '2')
  t.regex(stdout, /^1 \{/m)
  t.regex(stdout, /^2 \{[^}]*entropy: [1-9]/m)
})

test('ttrl.ts learns questions of the embedded world without their answers, and says how far labels are right', async (t) => {
  const world = createWorld(7)
  const rows = world.train.slice(0, 6).map(({ question, golden_answers }, index) =>
    // Half of the questions have no answer at all.
    index % 2 === 0 ? { question } : { question, golden_answers },
  )
  const file = path.join(folder, 'unlabelled.jsonl')
  await writeFile(file, rows.map((row) => JSON.stringify(row)).join('\n'))
  const { stdout } = await run('ttrl.ts', policy, file, path.join(folder, 'ttrl'), '2')
  t.regex(stdout, /^step 1: consensus \d+ %, ties \d+ %, labels right (\d+ %|unknown), /m)
  t.regex(stdout, /^step 2: /m)
})

test('each example is under 60 lines', async (t) => {
  const names = (await readdir('examples')).filter((name) => name.endsWith('.ts'))
  t.true(names.length > 3)
  for (const name of names) {
    const lines = (await readFile(`examples/${name}`, 'utf8')).split('\n').length
    t.true(lines < 60, `${name}: ${lines}`)
  }
})
