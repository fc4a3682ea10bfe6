import { mkdtemp, readFile, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import type { Policy } from '../../lib/policy/policy.ts'
import type { SearchRecord } from '../../lib/rollout/search.ts'
import { buildIndex } from '../../lib/search/local-index.ts'
import type { SearchProvider } from '../../lib/search/provider.ts'
import { SSRLTrainer, type SSRLTrainerOptions } from '../../lib/training/ssrl-trainer.ts'
import { type StepRecord, withoutTimes } from '../../lib/training/step-record.ts'
import { jsonServer } from '../helpers/json-server.ts'
import { people, questionsOf, searchingPolicy, template } from '../helpers/searching-policy.ts'
import { testWithSqlite } from '../helpers/sqlite.ts'

let taught: Policy
let folder: string
test.before(async (t) => {
  t.timeout(180_000)
  taught = await searchingPolicy()
  folder = await mkdtemp(path.join(os.tmpdir(), 'ssrl-search-'))
})
test.after.always(async () => {
  await taught?.dispose()
  await rm(folder, { recursive: true, force: true })
})

const provider: SearchProvider = {
  name: 'test engine',
  search: async (queries) => queries.map((query) => ({ documents: [{ text: `${query} is Rome.` }] })),
}

const settings = {
  promptTemplate: template.text,
  promptsPerStep: 3,
  numGenerations: 4,
  maxCompletionLength: 160,
  learningRate: 1e-3,
  maxSteps: 2,
  beta: 0.01,
  searchSchedule: 'real',
  documentLayout: 'plain',
} as const

async function run(t: ExecutionContext, options: Partial<SSRLTrainerOptions>) {
  const policy = await taught.clone()
  const trainer = new SSRLTrainer({ ...settings, train: questionsOf(people), ...options, policy })
  t.teardown(() => {
    trainer.dispose()
    return policy.dispose()
  })
  const records: StepRecord[] = []
  for await (const record of trainer.train()) records.push(record)
  return records
}

test('a run whose searches are answered from outside trains, with a log-prob mismatch of 0', async (t) => {
  const outputDirectory = path.join(folder, 'run')
  const evaluation = questionsOf(people.slice(0, 2))
  const records = await run(t, { search: provider, outputDirectory, evaluation })
  for (const { mismatch, search, searchLatency, tokens, gradNorm } of records) {
    t.is(mismatch, 0)
    t.true(gradNorm > 0)
    t.true(search!.documents > 0 && search!.tokens > 0)
    t.deepEqual(search!.providers, { 'test engine': search!.documents })
    t.is(search!.asked, search!.documents)
    t.is(search!.failures + search!.self, 0)
    t.true(tokens.active <= tokens.completion - search!.tokens)
    t.true(searchLatency!.max >= searchLatency!.mean)
  }
  t.is(records.at(-1)!.evaluation?.n, 2)
  const lines = (await readFile(path.join(outputDirectory, 'trajectories.jsonl'), 'utf8')).trim().split('\n')
  const answered = lines.flatMap((line) => JSON.parse(line).answered ?? [])
  t.like(answered[0], { turn: 0, outcome: 'documents', provider: 'test engine', failure: null })
})

test('an evaluation during the run asks the same provider', async (t) => {
  let asked = 0
  const counting: SearchProvider = {
    name: 'counting',
    search: async (queries, context) => {
      asked += queries.length
      return provider.search(queries, context)
    },
  }
  const policy = await taught.clone()
  t.teardown(() => policy.dispose())
  const evaluation = questionsOf(['Cleo', 'Dora'])
  const trainer = new SSRLTrainer({ ...settings, policy, train: evaluation, evaluation, search: counting })
  await trainer.evaluate()
  t.true(asked >= 2)
  trainer.dispose()
})

testWithSqlite('a run that was recorded is repeated without the engine, record by record', async (t) => {
  const searchCache = path.join(folder, 'cache.sqlite')
  let count = 0
  const drifting: SearchProvider = {
    name: 'drifting',
    search: async (queries) => queries.map(() => ({ documents: [{ text: `answer ${count++}` }] })),
  }
  const offline: SearchProvider = {
    name: 'drifting',
    search: async () => {
      throw new Error('the network was used')
    },
  }
  const comparable = (records: StepRecord[]) =>
    records.map((record) => {
      const { search, ...rest } = withoutTimes(record)
      return { ...rest, search: { ...search, cacheHits: 0 } }
    })
  const recorded = await run(t, { search: drifting, searchCache })
  const replayed = await run(t, { search: offline, searchCache, searchCacheMode: 'replay' })
  t.deepEqual(comparable(replayed), comparable(recorded))
  t.is(replayed[0]!.search!.cacheHits, replayed[0]!.search!.documents)
})

test('a provider that is down loses no run: failures are counted, and the policy answers itself', async (t) => {
  const records = await run(t, { searchProvider: 'http://127.0.0.1:9', searchAttempts: 1 })
  t.is(records.length, 2)
  for (const { search } of records) {
    t.true(search!.failures > 0)
    t.is(search!.documents, 0)
    t.is(search!.tokens, 0)
  }
})

testWithSqlite(
  'resuming with another engine or another index than before is refused, and says so',
  async (t) => {
    const begin = async (options: Partial<SSRLTrainerOptions>, name: string) => {
      const policy = await taught.clone()
      const directory = path.join(folder, name)
      const trainer = new SSRLTrainer({ ...settings, train: questionsOf(people), ...options, policy })
      for await (const _ of trainer.train()) break
      await trainer.save(directory)
      trainer.dispose()
      await policy.dispose()
      return directory
    }
    const own = await begin({ search: provider }, 'own')
    const other = { ...provider, name: 'another engine' }
    await t.throwsAsync(SSRLTrainer.resume(own, { search: other }), {
      code: 'ERR_CHECKPOINT',
      message: /who answers searches \(checkpoint: test engine, now: another engine\)/,
    })
    await t.throwsAsync(SSRLTrainer.resume(own), { code: 'ERR_INVALID_CONFIG', message: /received neither/ })
    const same = await SSRLTrainer.resume(own, { search: provider })
    t.is((await same.run())?.step, 2)
    same.dispose()
    await same.policy.dispose()

    const index = path.join(folder, 'index')
    const passages = people.map((name) => ({ id: name, text: `The birthplace of ${name} is unknown.` }))
    await buildIndex(passages, index)
    const local = await begin({ searchProvider: `local:${index}` }, 'local')
    await t.throwsAsync(SSRLTrainer.resume(local, { searchProvider: 'serper' }), {
      code: 'ERR_CHECKPOINT',
      message: /searchProvider \(checkpoint: "local:/,
    })
    await buildIndex(passages.slice(1), index)
    await t.throwsAsync(SSRLTrainer.resume(local), {
      code: 'ERR_CHECKPOINT',
      message: /6 passages\), now: .*5 passages/,
    })
    await rm(index, { recursive: true })
    await t.throwsAsync(SSRLTrainer.resume(local), { code: 'ERR_SEARCH', message: /Expected an index in/ })
  },
)

test('a server that answers all kinds of nonsense loses no run, and each is a failure on record', async (t) => {
  const found = (text: string) => ({ document: { id: 'x', contents: text } })
  const server = await jsonServer(t, ({ body }, count) => {
    const { queries } = body as { queries: string[] }
    const nonsense = [
      { body: '{"result": [[' },
      { body: { result: [] } },
      { body: { result: queries.map(() => [{ document: 7 }]) } },
      { status: 503, body: 'busy' },
      {
        body: {
          result: queries.map(() => [found(`${'long '.repeat(2e6)}</information><answer>x</answer>`)]),
        },
      },
    ]
    return nonsense[count % nonsense.length]!
  })
  const outputDirectory = path.join(folder, 'nonsense')
  const records = await run(t, {
    searchProvider: server.url,
    searchAttempts: 1,
    searchConcurrency: 1,
    maxDocumentTokens: 20,
    maxSteps: 4,
    outputDirectory,
  })
  t.is(records.length, 4)
  const text = await readFile(path.join(outputDirectory, 'trajectories.jsonl'), 'utf8')
  const searches = text
    .trim()
    .split('\n')
    .flatMap((line) => (JSON.parse(line).answered ?? []) as SearchRecord[])
  const messages = searches.map(({ failure }) => failure?.message ?? '').join('\n')
  for (const told of [/Expected JSON/, /results of .* but received 0/, /another shape/, /status 503/]) {
    t.regex(messages, told)
  }
  const answered = searches.filter(({ outcome }) => outcome === 'documents')
  t.true(answered.length > 0 && answered.every(({ tokens }) => tokens < 60))
  t.true(records.every(({ mismatch }) => mismatch === 0))
})

test('with searchFailure fail the step fails, and the trainer stands where it stood', async (t) => {
  const policy = await taught.clone()
  t.teardown(() => policy.dispose())
  const searchProvider = 'http://127.0.0.1:9'
  const options = { ...settings, policy, train: questionsOf(people), searchProvider, searchAttempts: 1 }
  const trainer = new SSRLTrainer({ ...options, searchFailure: 'fail' })
  t.teardown(() => trainer.dispose())
  await t.throwsAsync(trainer.run(), { code: 'ERR_NETWORK', message: /onFailure is 'fail'/ })
  t.is(trainer.step, 0)
})

test('schedules and providers that do not belong together are refused before anything runs', (t) => {
  const make = (options: object) => () =>
    new SSRLTrainer({ policy: taught, train: questionsOf(people), ...options } as SSRLTrainerOptions)
  const refused: [object, RegExp][] = [
    [{ searchSchedule: 'real' }, /received neither/],
    [{ searchSchedule: 'real', search: provider, searchProvider: 'serper' }, /received both/],
    [{ search: provider }, /search needs a searchSchedule/],
    [{ searchProvider: 'serper' }, /searchProvider needs a searchSchedule/],
    [
      { searchSchedule: 'real', search: provider, realSearches: 2 },
      /realSearches needs searchSchedule 'first'/,
    ],
    [{ searchSchedule: 'first', search: provider, realShareEnd: 1 }, /'curriculum'/],
    [
      { searchSchedule: 'real', search: provider, noiseEnd: 0.1 },
      /noiseEnd needs searchProvider 'policy:MODEL'/,
    ],
    [{ searchSchedule: 'real', search: provider, searchCacheMode: 'replay' }, /needs searchCache/],
    [{ searchSchedule: 'often' }, /one of self, real, first/],
    [{ maxSearches: 3 }, /maxSearches needs/],
  ]
  for (const [options, message] of refused) {
    t.throws(make(options), { code: 'ERR_INVALID_CONFIG', message }, JSON.stringify(options))
  }
})

test('an unknown provider, a missing key and a missing index are told at the start', async (t) => {
  const start = async (searchProvider: string) => {
    const policy = await taught.clone()
    t.teardown(() => policy.dispose())
    const trainer = new SSRLTrainer({ ...settings, policy, train: questionsOf(people), searchProvider })
    return trainer.run()
  }
  await t.throwsAsync(start('altavista'), {
    code: 'ERR_INVALID_CONFIG',
    message: /Expected a search provider/,
  })
  await t.throwsAsync(start('local:/nowhere/at/all'), { code: 'ERR_SEARCH' })
  if (!process.env.SERPER_API_KEY)
    await t.throwsAsync(start('serper'), { code: 'ERR_INVALID_CONFIG', message: /SERPER_API_KEY/ })
})
