import { spawn } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import test from 'ava'
import { execa } from 'execa'
import { readJsonl } from '../../lib/logging/jsonl.ts'
import { withoutTimes } from '../../lib/training/step-record.ts'
import { testWithSqlite } from '../helpers/sqlite.ts'
import { questions, shortTemplate, tinyPolicy } from '../helpers/tiny-policy.ts'

const main = ['--import=tsx', 'lib/cli/main.ts']
const folder = await mkdtemp(path.join(os.tmpdir(), 'ssrl-cli-'))
const at = (...parts: string[]) => path.join(folder, ...parts)

const ssrl = (...args: string[]) =>
  execa('node', [...main, ...args], { reject: false, env: { NO_COLOR: '1', SSRL_THREADS: '1' } })

async function writeLines(file: string, rows: object[]): Promise<void> {
  await writeFile(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
}

test.before(async () => {
  const policy = await tinyPolicy()
  await policy.save(at('policy'))
  await policy.dispose()
  const rows = questions(8).map(({ id, question, goldenAnswers }) => ({
    id,
    question,
    golden_answers: goldenAnswers,
  }))
  await writeLines(at('train.jsonl'), rows.slice(0, 6))
  await writeLines(at('held-out.jsonl'), rows.slice(6))
  await writeFile(at('template.txt'), shortTemplate)
  const settings = { promptsPerStep: 2, numGenerations: 2, maxCompletionLength: 8, beta: 0, saveEvery: 1 }
  await writeFile(at('config.json'), JSON.stringify({ ...settings, promptTemplate: at('template.txt') }))
})

test.after.always(() => rm(folder, { recursive: true, force: true }))

const trainArguments = (output: string, ...more: string[]) => [
  'train',
  ...[
    '--policy',
    at('policy'),
    '--dtype',
    'f32',
    '--train',
    at('train.jsonl'),
    '--eval',
    at('held-out.jsonl'),
  ],
  ...['--config', at('config.json'), '--output', output, ...more],
]

test('train shows progress as plain lines on stderr, records as JSON on stdout, and says where the policy is', async (t) => {
  const output = at('run')
  const { exitCode, stdout, stderr } = await ssrl(...trainArguments(output, '--max-steps', '2', '--json'))
  t.is(exitCode, 0, stderr)
  const records = stdout.split('\n').map((line) => JSON.parse(line))
  t.deepEqual(
    records.map(({ step }) => step),
    [1, 2],
  )
  t.is(records[1].evaluation.n, 2)
  t.regex(stderr, /^step 1\/2 · reward \d\.\d+ · format .* left$/m)
  t.regex(stderr, /the policy is in .*run\/policy/)
  t.true((await readdir(path.join(output, 'policy'))).includes('model.safetensors'))
  const generation = JSON.parse(await readFile(path.join(output, 'policy', 'generation_config.json'), 'utf8'))
  t.deepEqual(generation.stop_strings, ['</answer>'])
})

test('--algorithm takes the settings of a published one, and what is given beside it wins', async (t) => {
  const output = at('named')
  const named = ['--algorithm', 'dr_grpo', '--loss-type', 'dapo', '--max-steps', '1']
  const { exitCode, stderr } = await ssrl(...trainArguments(output, ...named))
  t.is(exitCode, 0, stderr)
  const { config } = JSON.parse(await readFile(path.join(output, 'config.json'), 'utf8'))
  t.like(config, { scaleRewards: 'none', dualClip: null, lossType: 'dapo', numGenerations: 2 })
  const unknown = await ssrl('train', '--algorithm', 'grpoo')
  t.is(unknown.exitCode, 2)
  t.regex(unknown.stderr, /dr_grpo/)
})

test('Ctrl-C saves and says how to go on; the resumed run ends as one that never stopped', async (t) => {
  const whole = at('whole')
  t.is((await ssrl(...trainArguments(whole, '--max-steps', '12'))).exitCode, 0)
  const output = at('stopped')
  const child = spawn('node', [...main, ...trainArguments(output, '--max-steps', '12')], {
    env: { ...process.env, SSRL_THREADS: '1' },
  })
  let told = ''
  child.stderr.on('data', (data) => {
    if (told.length === 0 || !/step 3\//.test(told)) {
      told += data
      if (/step 3\//.test(told)) child.kill('SIGINT')
    } else told += data
  })
  t.is(await new Promise((resolve) => child.on('close', resolve)), 130)
  t.regex(told, new RegExp(`saved .*checkpoints/step-0+\\d+\nto go on: ssrl train --resume ${output}`))
  const resumed = await ssrl('train', '--resume', output)
  t.is(resumed.exitCode, 0, resumed.stderr)
  t.regex(resumed.stderr, /going on after step \d+/)
  const recordsOf = async (run: string) =>
    (await readJsonl<object>(path.join(run, 'steps.jsonl'))).map(withoutTimes)
  t.deepEqual(await recordsOf(output), await recordsOf(whole))
  const weights = (run: string) => readFile(path.join(run, 'policy', 'model.safetensors'))
  t.deepEqual(await weights(output), await weights(whole))
})

test('wrong usage exits 2 with what was expected, before a model is loaded', async (t) => {
  const missing = await ssrl('train')
  t.is(missing.exitCode, 2)
  t.regex(missing.stderr, /Expected --policy/)
  const wrong = await ssrl(...trainArguments(at('never'), '--learning-rate', 'fast'))
  t.is(wrong.exitCode, 2)
  t.regex(wrong.stderr, /ERR_INVALID_CONFIG.*learningRate/)
  const unknown = await ssrl('train', '--num-generation', '3')
  t.is(unknown.exitCode, 2)
  t.regex(unknown.stderr, /--num-generations/)
})

test('another setting on resuming is refused', async (t) => {
  const output = at('settings')
  await ssrl(...trainArguments(output, '--max-steps', '1'))
  const { exitCode, stderr } = await ssrl('train', '--resume', output, '--learning-rate', '1')
  t.is(exitCode, 1)
  t.regex(stderr, /ERR_CHECKPOINT.*learningRate \(checkpoint: 0.000001, now: 1\)/)
})

test('bootstrap writes demonstrations that sft learns, and eval judges the result', async (t) => {
  const demonstrations = at('demonstrations.jsonl')
  const made = await ssrl('bootstrap', '--template', '--train', at('train.jsonl'), '--output', demonstrations)
  t.is(made.exitCode, 0, made.stderr)
  t.is((await readJsonl(demonstrations)).length, 6)
  const tuned = await ssrl(
    ...['sft', '--policy', at('policy'), '--dtype', 'f32', '--data', demonstrations, '--output', at('sft')],
    ...[
      '--prompt-template',
      at('template.txt'),
      '--max-steps',
      '150',
      '--learning-rate',
      '0.01',
      '--batch-size',
      '6',
    ],
  )
  t.is(tuned.exitCode, 0, tuned.stderr)
  t.regex(tuned.stderr, /step 150\/150 · loss 0\.0\d+/)
  const judged = await ssrl(
    ...[
      'eval',
      '--policy',
      at('sft', 'policy'),
      '--dtype',
      'f32',
      '--data',
      at('train.jsonl'),
      at('held-out.jsonl'),
    ],
    ...[
      '--prompt-template',
      at('template.txt'),
      '--max-new-tokens',
      '140',
      '--output',
      at('judged'),
      '--json',
    ],
  )
  t.is(judged.exitCode, 0, judged.stderr)
  const summary = JSON.parse(judged.stdout)
  t.deepEqual(Object.keys(summary.benchmarks), ['train', 'held-out'])
  t.true(summary.benchmarks.train.em > 0.5, 'six demonstrations are learnt by heart')
  t.is((await readJsonl(at('judged', 'predictions.jsonl'))).length, 8)
  t.is(summary.settings.method, 'self-search')
})

testWithSqlite(
  'bootstrap --search writes the template around what an index finds, for sft --mask-information',
  async (t) => {
    const rows = await readJsonl<{ question: string; golden_answers: string[] }>(at('train.jsonl'))
    const passages = rows.slice(0, 4).map(({ question, golden_answers: [answer] }, id) => ({
      ...{ id, title: 'Notes', contents: `${question} It is ${answer}.` },
    }))
    await writeLines(at('corpus.jsonl'), passages)
    t.is((await ssrl('index', '--corpus', at('corpus.jsonl'), '--output', at('index'))).exitCode, 0)
    const demonstrations = at('searched.jsonl')
    const made = await ssrl(
      ...['bootstrap', '--template', '--policy', at('policy'), '--train', at('train.jsonl'), '--json'],
      ...['--search', `local:${at('index')}`, '--search-top-k', '1', '--output', demonstrations],
    )
    t.is(made.exitCode, 0, made.stderr)
    t.like(JSON.parse(made.stdout), { questions: 6, answered: 6, failed: 0 })
    const written = await readJsonl<{ completion: string }>(demonstrations)
    t.true(written.length >= 4)
    t.true(
      written.every(({ completion }) =>
        completion.includes('</search>\n\n<information>Doc 1(Title: Notes) '),
      ),
    )
    const tuned = await ssrl(
      ...['sft', '--policy', at('policy'), '--dtype', 'f32', '--data', demonstrations, '--mask-information'],
      ...['--prompt-template', at('template.txt'), '--max-steps', '1', '--output', at('searched-sft')],
    )
    t.is(tuned.exitCode, 0, tuned.stderr)
  },
)

for (const [name, flags, expected] of [
  [
    '--search without --template',
    ['--search', 'local:nowhere'],
    /ERR_INVALID_ARG.*--template beside --search/,
  ],
  ['--search self', ['--template', '--search', 'self'], /ERR_INVALID_ARG.*a real provider/],
  [
    '--search without a tokenizer',
    ['--template', '--search', 'local:x'],
    /ERR_INVALID_ARG.*--policy beside --search/,
  ],
  [
    '--search-top-k alone',
    ['--template', '--search-top-k', '2'],
    /ERR_INVALID_ARG.*--search beside searchTopK/,
  ],
] as const) {
  test(`bootstrap refuses ${name}`, async (t) => {
    const { exitCode, stderr } = await ssrl(
      ...['bootstrap', '--train', at('train.jsonl'), '--output', at('never.jsonl'), ...flags],
    )
    t.is(exitCode, 2)
    t.regex(stderr, expected)
  })
}

test('bootstrap by sampling keeps nothing of a policy that knows no format, and says what to try', async (t) => {
  await mkdir(at('empty'), { recursive: true })
  await writeLines(at('shots.jsonl'), [
    { question: 'a?', completion: '<think> b </think><answer> b </answer>' },
  ])
  const { exitCode, stderr } = await ssrl(
    ...['bootstrap', '--policy', at('policy'), '--train', at('train.jsonl'), '--shots', at('shots.jsonl')],
    ...['--max-new-tokens', '8', '--output', at('empty', 'demonstrations.jsonl')],
  )
  t.is(exitCode, 1)
  t.regex(stderr, /24 samples: 0 well-formed/)
  t.regex(stderr, /ERR_DATASET.*--template/)
})

test('eval refuses methods of a later version', async (t) => {
  const { exitCode, stderr } = await ssrl(
    'eval',
    '--policy',
    at('policy'),
    '--data',
    at('train.jsonl'),
    '--method',
    'rag',
  )
  t.is(exitCode, 2)
  t.regex(stderr, /"rag" needs a search provider/)
})
