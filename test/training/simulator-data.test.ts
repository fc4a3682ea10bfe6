import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import test from 'ava'
import { execa } from 'execa'
import { loadExamples } from '../../lib/data/examples.ts'
import { encodePrompt } from '../../lib/policy/chat-template.ts'
import type { Policy } from '../../lib/policy/policy.ts'
import { parseDocuments } from '../../lib/search/documents.ts'
import { buildIndex } from '../../lib/search/local-index.ts'
import { policyProvider, simulatorPrompt } from '../../lib/search/policy.ts'
import type { SearchProvider } from '../../lib/search/provider.ts'
import { SFTTrainer } from '../../lib/training/sft-trainer.ts'
import { type SimulatorExample, simulatorExamples } from '../../lib/training/simulator-data.ts'
import { searchContext, textsOf } from '../helpers/search.ts'
import { people, questionsOf, searchingPolicy, template } from '../helpers/searching-policy.ts'
import { testWithSqlite } from '../helpers/sqlite.ts'
import { tinyPolicy } from '../helpers/tiny-policy.ts'

let policy: Policy
let folder: string
test.before(async (t) => {
  t.timeout(180_000)
  policy = await searchingPolicy()
  folder = await mkdtemp(path.join(os.tmpdir(), 'ssrl-simulator-'))
})
test.after.always(async () => {
  await policy?.dispose()
  await rm(folder, { recursive: true, force: true })
})

const towns: Record<string, string> = { Cleo: 'Bonn', Dora: 'Graz', Edda: 'Lima', Fay: 'Cork' }
const names = Object.keys(towns)

/** What the policy was taught is found for all but Fay, of whom the engine says what makes the policy go wrong. */
const engine: SearchProvider = {
  name: 'engine',
  search: async (queries) =>
    queries.map((query) => {
      const name = query.split(' ').at(-1)!
      const text = name === 'Fay' ? 'Cleo was born in Bonn.' : `${name} was born in ${towns[name]}.`
      return {
        documents: name in towns ? [{ title: `${name} (person)`, text }, { text: 'More of it.' }] : [],
      }
    }),
}

const options = {
  provider: engine,
  promptTemplate: template,
  layout: 'plain',
  topK: 2,
  maxNewTokens: 200,
  temperature: 0.01,
  n: 2,
} as const

test.serial('what was found becomes an example, useful where the right answer followed', async (t) => {
  // The second document is a stranger to the policy, which was taught one: it is asked for one here.
  const one = { ...options, topK: 1, policy, questions: questionsOf(names) }
  const { examples, statistics } = await simulatorExamples(one)
  t.is(statistics.trajectories, 8)
  t.deepEqual(
    examples.map(({ query }) => query),
    names.map((name) => `birthplace of ${name}`),
  )
  for (const example of examples) {
    const name = example.id
    t.is(example.useful, 2 * example.right >= example.seen)
    t.is(example.seen, 2)
    const expected = name === 'Fay' ? 'Cleo was born in Bonn.' : `${name} was born in ${towns[name]}.`
    t.is(example.completion, `Doc 1(Title: ${name} person) ${expected}`)
    t.deepEqual(parseDocuments(example.completion, 5)[0]?.text, expected)
    const kind = example.useful ? /are useful/ : /are noisy/
    t.regex(example.prompt[0].content, kind)
    t.false(example.prompt[0].content.includes(towns[name]!), 'the answer is not told')
  }
  t.true(examples.filter(({ id, useful }) => id !== 'Fay' && useful).length >= 2)
  t.is(statistics.useful + statistics.noisy, examples.length)
})

test.serial('the prompts are those that a simulated engine is asked by, token by token', async (t) => {
  const { examples } = await simulatorExamples({
    ...options,
    policy,
    questions: questionsOf(names),
    leakAnswer: true,
  })
  const tokenizer = policy.tokenizer!
  for (const { prompt, query, useful, question, id } of examples) {
    const goldenAnswers = [towns[id]!]
    const segments = simulatorPrompt({ query, useful, documents: 2, question, goldenAnswers })
    t.deepEqual(
      encodePrompt(tokenizer, prompt),
      encodePrompt(tokenizer, [{ role: 'user', content: segments }]),
    )
    t.true(prompt[0].content.includes(`Its answer: ${towns[id]}`))
  }
})

test.serial('where nobody searches and finds something it is told', async (t) => {
  const empty: SearchProvider = {
    name: 'empty',
    search: async (queries) => queries.map(() => ({ documents: [] })),
  }
  const none = { ...options, policy, questions: questionsOf(names), provider: empty }
  await t.throwsAsync(simulatorExamples(none), { code: 'ERR_DATASET', message: /8 searches found nothing/ })
})

test.serial('a model that was tuned on the examples finds what the real engine found', async (t) => {
  const simulator = await tinyPolicy({ maxPositions: 512 })
  t.teardown(() => simulator.dispose())
  const { examples } = await simulatorExamples({ ...options, topK: 1, policy, questions: questionsOf(names) })
  const file = path.join(folder, 'examples.jsonl')
  await writeFile(file, examples.map((line) => `${JSON.stringify(line)}\n`).join(''))
  const trainer = new SFTTrainer({
    policy: simulator,
    train: await loadExamples(file),
    maxSteps: 120,
    batchSize: examples.length,
    learningRate: 2e-2,
  })
  await trainer.run()
  trainer.dispose()
  const useful = examples.filter((example) => example.useful)
  const kind = { noiseStart: 0, noiseEnd: 0 }
  const tuned = policyProvider({ policy: simulator, temperature: 0, ...kind })
  const context = searchContext(useful.length, { topK: 1 })
  const found = await tuned.search(
    useful.map(({ query }) => query),
    context,
  )
  for (const [index, { id }] of useful.entries()) {
    t.deepEqual(textsOf(found[index]), [`${id} was born in ${towns[id]}.`])
  }
})

testWithSqlite('from the command line: examples, tuning, and a run with the tuned engine', async (t) => {
  const at = (name: string) => path.join(folder, name)
  const ssrl = (...args: string[]) =>
    execa('node', ['--import=tsx', 'lib/cli/main.ts', ...args], { reject: false, env: { SSRL_THREADS: '1' } })
  await policy.save(at('policy'))
  const blank = await tinyPolicy({ maxPositions: 512 })
  await blank.save(at('blank'))
  await blank.dispose()
  const rows = questionsOf(people).map(({ id, question, goldenAnswers }) => ({ id, question, goldenAnswers }))
  await writeFile(at('train.jsonl'), rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
  await writeFile(at('template.txt'), template.text)
  const facts = names.map((name) => ({ id: name, text: `The birthplace of ${name} is ${towns[name]}.` }))
  await buildIndex(facts, at('index'))

  const shared = ['--train', at('train.jsonl'), '--prompt-template', at('template.txt')]
  const search = ['--search', `local:${at('index')}`, '--document-layout', 'plain', '--top-k', '1', '-n', '2']
  const flags = ['--policy', at('policy'), ...shared, '--output', at('made.jsonl'), '--max-new-tokens', '160']
  const made = await ssrl('simulator', ...flags, ...search, '--json')
  t.is(made.exitCode, 0, made.stderr)
  t.like(JSON.parse(made.stdout), { questions: 6, trajectories: 12 })
  t.regex(made.stderr, /wrote \d+ examples to .*: \d+ useful, \d+ noisy/)
  const lines = (await readFile(at('made.jsonl'), 'utf8')).trim().split('\n')
  const first = JSON.parse(lines[0]!) as SimulatorExample
  t.regex(first.completion, /^Doc 1: The birthplace of /)

  const sft = [
    '--data',
    at('made.jsonl'),
    '--max-steps',
    '3',
    '--batch-size',
    '4',
    '--output',
    at('simulator'),
  ]
  const tuned = await ssrl('sft', '--policy', at('blank'), ...sft)
  t.is(tuned.exitCode, 0, tuned.stderr)
  const run = ['--search-schedule', 'real', '--search-provider', `policy:${at('simulator/policy')}`]
  const small = ['--max-steps', '1', '--prompts-per-step', '2', '--num-generations', '2', '--beta', '0']
  const length = ['--max-completion-length', '160', '--document-layout', 'plain', '--search-top-k', '1']
  const trained = await ssrl(
    ...[
      'train',
      '--policy',
      at('policy'),
      ...shared,
      '--output',
      at('run'),
      ...run,
      ...small,
      ...length,
      '--json',
    ],
  )
  t.is(trained.exitCode, 0, trained.stderr)
  const { search: searches } = JSON.parse(trained.stdout)
  t.is(searches.failures, 0)
  t.deepEqual(Object.keys(searches.providers), [`policy ${at('simulator/policy')}`])

  const self = await ssrl('simulator', ...flags, '--search', 'self')
  t.is(self.exitCode, 2)
  t.regex(self.stderr, /Expected a real provider/)
})
