import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Field, FixedSizeList, Float32, Table, tableToIPC, Utf8, vectorFromArray } from 'apache-arrow'
import test from 'ava'
import { execa } from 'execa'
import { createWorld, queryText } from '../lib/quickstart/world.ts'
import { promptTemplates } from '../lib/rollout/prompts.ts'
import { taughtPolicy } from './helpers/searching-policy.ts'
import { testWithSqlite } from './helpers/sqlite.ts'
import { tinyPolicy } from './helpers/tiny-policy.ts'

let folder: string
const at = (name: string) => path.join(folder, name)

/** A few questions of the embedded world, and what a policy was taught to write: a search first. */
const world = createWorld(7)
const asked = world.train.filter(({ hops }) => hops.length === 1).slice(0, 3)

function lesson(wording: string, { question, subject, hops, golden_answers }: (typeof asked)[number]) {
  const search = `<search>${queryText(subject, hops[0]!)}</search>`
  const found = `<information>It is ${golden_answers[0]}.</information>`
  const completion = `<think>I must look.</think>${search}${found}<think>So.</think><answer>${golden_answers[0]}</answer>`
  return { prompt: wording.replace('{question}', question), completion }
}

const toLines = (rows: readonly object[]) => rows.map((row) => JSON.stringify(row)).join('\n')

test.before(async (t) => {
  t.timeout(180_000)
  folder = await mkdtemp(path.join(tmpdir(), 'ssrl-examples-'))
  // The default instruction is long in a tokenizer that knows few words.
  const tiny = await tinyPolicy({ maxPositions: 2048 })
  await tiny.save(at('policy'))
  tiny.dispose()
  const rows = ['Where was Ada born?', 'Who wrote it?', 'When?', 'Which town?']
  await writeFile(
    at('questions.jsonl'),
    toLines(rows.map((question) => ({ question, golden_answers: ['x'] }))),
  )
  const wordings = [promptTemplates['self-search'], promptTemplates.search]
  const taught = await taughtPolicy(
    wordings.flatMap((wording) => asked.map((question) => lesson(wording, question))),
    { maxPositions: 2048 },
  )
  await taught.save(at('taught'))
  await taught.dispose()
  await writeFile(at('world.jsonl'), toLines(asked))
  const passages = world.facts.map(({ subject, relation, object }, id) => ({
    id,
    title: subject,
    contents: `${queryText(subject, relation)}: ${relation.statements[0]!.replace('{x}', subject).replace('{y}', object)}`,
  }))
  await writeFile(at('corpus.jsonl'), toLines(passages))
})

test.after.always(() => rm(folder, { recursive: true, force: true }))

const run = (name: string, ...args: string[]) =>
  execa('node', ['--import=tsx', `examples/${name}`, ...args], { env: { SSRL_THREADS: '1' } })

test('ssrl.ts trains, logs a mismatch of 0 at every step, evaluates and saves', async (t) => {
  const { stdout } = await run('ssrl.ts', at('taught'), at('world.jsonl'), at('world.jsonl'), at('run'), '2')
  const lines = stdout.split('\n')
  t.regex(lines[0]!, /^step 1: reward \d\.\d+, .* log-prob mismatch 0$/)
  t.regex(lines[1]!, /^step 2: .* log-prob mismatch 0$/)
  t.regex(stdout, /held out: /)
  t.true((await readdir(at('run'))).length > 0)
})

test('zerosearch.ts trains with a policy that plays the engine', async (t) => {
  const args = [at('taught'), at('policy'), at('world.jsonl'), at('zerosearch'), '2']
  const { stdout } = await run('zerosearch.ts', ...args)
  t.regex(
    stdout,
    /^step 1: reward \d\.\d+, [1-9]\d* searches simulated, 0 failed, [1-9]\d* tokens of documents, /m,
  )
  t.regex(stdout, /^step 2: /m)
})

testWithSqlite('search-r1.ts indexes a corpus, serves it, and trains with searches of it', async (t) => {
  const args = [at('taught'), at('corpus.jsonl'), at('world.jsonl'), at('search-r1'), '2']
  const { stdout } = await run('search-r1.ts', ...args)
  t.regex(stdout, /^step 1: reward \d\.\d+, [1-9]\d* searches answered, 0 failed, \d+ invalid actions$/m)
  t.regex(stdout, /^step 2: /m)
})

testWithSqlite('sim-to-real.ts answers the first K searches by an engine, and says how many', async (t) => {
  const { buildIndex, readCorpus } = await import('../lib/search/local-index.ts')
  await buildIndex(readCorpus(at('corpus.jsonl')), at('index'))
  const { stdout } = await run('sim-to-real.ts', at('taught'), `local:${at('index')}`, at('world.jsonl'))
  const lines = stdout.split('\n')
  t.deepEqual(
    lines.map((line) => /^K = (\d|all): exact match [01]\.\d{3}, /.exec(line)?.[1]),
    ['0', '1', '3', 'all'],
  )
  t.regex(lines[0]!, /, 0 real searches, [1-9]\d* of the policy's own, 0 failed$/)
  t.regex(lines[1]!, /, [1-3] real searches, /)
  t.regex(lines[3]!, /, [1-9]\d* real searches, 0 of the policy's own, 0 failed$/)
})

test('ttrl.ts learns questions of the embedded world without their answers, and says how far labels are right', async (t) => {
  const rows = world.train.slice(0, 6).map(({ question, golden_answers }, index) =>
    // Half of the questions have no answer at all.
    index % 2 === 0 ? { question } : { question, golden_answers },
  )
  await writeFile(at('unlabelled.jsonl'), toLines(rows))
  const { stdout } = await run('ttrl.ts', at('policy'), at('unlabelled.jsonl'), at('ttrl'), '2')
  t.regex(stdout, /^step 1: consensus \d+ %, ties \d+ %, labels right (\d+ %|unknown), /m)
  t.regex(stdout, /^step 2: /m)
})

test('custom-reward.ts logs each part of the reward', async (t) => {
  const { stdout } = await run('custom-reward.ts', at('policy'), at('questions.jsonl'), '1')
  t.regex(stdout, /^1 \{ exactMatch: [\d.]+, format: [\d.]+, brevity: [\d.]+ \}$/)
})

test('own-loop.ts takes policy-gradient steps', async (t) => {
  const { stdout } = await run('own-loop.ts', at('policy'), 'Where was Ada born?', 'London', '2')
  t.regex(stdout, /^1 \{/m)
  t.regex(stdout, /^2 \{[^}]*entropy: [1-9]/m)
})

test('embed.ts finds and draws neighbours in an Arrow table', async (t) => {
  const angles = { north: 0, 'north by east': 0.2, 'north-east': 0.8, east: 1.57, south: 3.14 }
  const type = new FixedSizeList(3, new Field('item', new Float32()))
  const rows = Object.values(angles).map((angle) => [3 * Math.sin(angle), 3 * Math.cos(angle), 0])
  const table = new Table({
    text: vectorFromArray(Object.keys(angles), new Utf8()),
    embedding: vectorFromArray(rows, type),
  })
  await mkdir(at('arrow'))
  await writeFile(at('arrow/table.arrow'), tableToIPC(table, 'file'))
  const { stdout } = await run('embed.ts', at('arrow/table.arrow'), '0')
  const cosine = (name: keyof typeof angles) => Math.cos(angles[name]).toFixed(3)
  const near = (['north by east', 'north-east', 'east'] as const).map((name) => `  ${cosine(name)}  ${name}`)
  const lines = stdout.split('\n')
  t.deepEqual(lines.slice(0, 5), ['nearest to north:', ...near, 'drawn:'])
  t.is(lines.length, 10)
  const weights = Object.entries(angles).map(([name, angle]) => ({
    name,
    weight: name === 'north' ? Math.exp(-10) : Math.exp(Math.cos(angle) / 0.1),
  }))
  const sum = weights.reduce((total, { weight }) => total + weight, 0)
  for (const line of lines.slice(5)) {
    const [, probability, name] = /^ {2}p = (\S+) {2}(.*)$/.exec(line)!
    t.is(probability, (weights.find((entry) => entry.name === name)!.weight / sum).toFixed(3))
  }
})

test('each example is under 60 lines', async (t) => {
  const names = (await readdir('examples')).filter((name) => name.endsWith('.ts'))
  const recipes = ['ssrl.ts', 'zerosearch.ts', 'search-r1.ts', 'ttrl.ts', 'sim-to-real.ts', 'embed.ts']
  for (const recipe of recipes) t.true(names.includes(recipe), recipe)
  for (const name of names) {
    const lines = (await readFile(`examples/${name}`, 'utf8')).split('\n').length
    t.true(lines < 60, `${name}: ${lines}`)
  }
})
