/**
 * The runs of docs/runs/search.md on the small world: the same start trained with searches answered by the policy itself
 * (`self`), by a provider that knows the facts (`world`), or by a model that was tuned to play the engine (`simulated`).
 * Resumable: what is there already is kept. Run by hand: `npx tsx scripts/search-runs.ts OUT self|world|simulated [seed]`.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import path from 'node:path'
import { loadExamples } from '../lib/data/examples.ts'
import { evaluate } from '../lib/evaluation/evaluate.ts'
import { Policy } from '../lib/policy/policy.ts'
import { prepareWorld, worldQuestions, worldSettings, worldTemplate } from '../lib/quickstart/main-job.ts'
import { createWorld } from '../lib/quickstart/world.ts'
import { worldProvider } from '../lib/quickstart/world-search.ts'
import { createSearch } from '../lib/rollout/search.ts'
import { policyProvider } from '../lib/search/policy.ts'
import type { SearchProvider } from '../lib/search/provider.ts'
import { SFTTrainer } from '../lib/training/sft-trainer.ts'
import { simulatorExamples } from '../lib/training/simulator-data.ts'
import { SSRLTrainer } from '../lib/training/ssrl-trainer.ts'

const [out, kind, seedText = '0'] = process.argv.slice(2)
const kinds = ['self', 'world', 'simulated']
if (out === undefined || kind === undefined || !kinds.includes(kind)) {
  console.error(`usage: npx tsx scripts/search-runs.ts OUT ${kinds.join('|')} [seed]`)
  process.exit(2)
}
const seed = Number(seedText)
const world = createWorld(seed)
const train = worldQuestions(world.train)
const heldOut = worldQuestions(world.heldOut)
const places = {
  start: path.join(out, 'start'),
  examples: path.join(out, 'examples.jsonl'),
  simulator: path.join(out, 'simulator'),
  run: path.join(out, kind),
  report: path.join(out, `${kind}.json`),
}
const interrupt = new AbortController()
for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => interrupt.abort(new Error(name)))
const { signal } = interrupt

/** As the small world's policies write it: one sentence, no title, no number. */
const shown = { layout: 'plain', topK: 1, maxDocumentTokens: 60 } as const
const settings = {
  ...worldSettings,
  maxSteps: 40,
  seed,
  promptTemplate: worldTemplate.text,
  saveEvery: 5,
  logTrajectories: 10,
}

async function make(file: string, what: () => Promise<unknown>): Promise<void> {
  if (existsSync(file)) return
  const start = performance.now()
  await what()
  console.log(`${file}: ${((performance.now() - start) / 1000).toFixed(0)} s`)
}

/** Greedy answers to all held-out questions: with searches answered as in the run, and by the policy alone. */
async function measure(policy: Policy, provider: SearchProvider | null) {
  const scores = async (search: SearchProvider | null) => {
    const report = await evaluate({
      policy,
      questions: heldOut,
      promptTemplate: worldTemplate,
      maxNewTokens: settings.maxCompletionLength,
      search: search === null ? undefined : createSearch({ ...shown, provider: search }),
      seed,
      signal,
    })
    const { em, format, interval } = Object.values(report.benchmarks)[0]!
    const { predictions } = report
    const twoHop = predictions.filter(({ question }) => question.id.includes('+'))
    const share = (list: typeof predictions) => list.reduce((sum, one) => sum + one.em, 0) / list.length
    return { em, interval: interval.em, twoHop: share(twoHop), format, n: predictions.length }
  }
  return { alone: await scores(null), ...(provider === null ? {} : { searching: await scores(provider) }) }
}

/** A copy of the start, tuned on what the world's provider answered to the start's own searches. */
async function tuneSimulator(): Promise<void> {
  await make(places.examples, async () => {
    const policy = await Policy.load(places.start)
    const { examples, statistics } = await simulatorExamples({
      ...shown,
      policy,
      provider: worldProvider(world),
      questions: train,
      n: 8,
      maxNewTokens: settings.maxCompletionLength,
      promptTemplate: worldTemplate,
      seed,
      signal,
    })
    writeFileSync(`${places.examples}.json`, `${JSON.stringify(statistics, null, 2)}\n`)
    writeFileSync(places.examples, examples.map((line) => `${JSON.stringify(line)}\n`).join(''))
    await policy.dispose()
  })
  await make(path.join(places.simulator, 'policy'), async () => {
    const policy = await Policy.load(places.start)
    const trainer = new SFTTrainer({
      policy,
      train: await loadExamples(places.examples),
      maxSteps: 150,
      batchSize: 32,
      learningRate: 1e-3,
      schedule: 'linear',
      warmupSteps: 10,
      outputDirectory: places.simulator,
      seed,
    })
    await trainer.run({ signal })
    trainer.dispose()
    await policy.dispose()
  })
}

/** Share of the world's facts that the simulator says when it is asked for useful documents, and for noisy ones. */
async function judgeSimulator(simulator: Policy) {
  const share = async (noise: number) => {
    const provider = policyProvider({ policy: simulator, noiseStart: noise, noiseEnd: noise, temperature: 0 })
    const queries = world.facts.map(({ subject, relation }) => `${relation.heading} ${subject}`)
    const origins = queries.map((_, index) => ({
      questionId: '',
      question: '',
      goldenAnswers: [],
      turn: 0,
      seed: index,
    }))
    const context = { signal, topK: 1, step: 0, steps: 0, origins }
    const results = await provider.search(queries, context)
    const right = results.filter(
      (result, index) =>
        'documents' in result &&
        result.documents.some(({ text }) => text.includes(world.facts[index]!.object)),
    )
    return right.length / queries.length
  }
  return { useful: await share(0), noisy: await share(1) }
}

async function openTrainer(own: SearchProvider | undefined): Promise<SSRLTrainer> {
  if (existsSync(path.join(places.run, 'checkpoints'))) {
    try {
      return await SSRLTrainer.resume(places.run, { search: own })
    } catch (error) {
      // Stopped before its first checkpoint.
      if ((error as { code?: string }).code !== 'ERR_CHECKPOINT') throw error
      console.log((error as Error).message)
    }
  }
  const asked = {
    searchSchedule: 'real',
    documentLayout: 'plain',
    searchTopK: 1,
    maxDocumentTokens: 60,
  } as const
  const bySimulator = { searchProvider: `policy:${places.simulator}/policy` }
  const searching = kind === 'self' ? {} : { ...asked, ...(own ? { search: own } : bySimulator) }
  const policy = await Policy.load(places.start)
  return new SSRLTrainer({ ...settings, ...searching, policy, train, outputDirectory: places.run })
}

await mkdir(out, { recursive: true })
await make(places.start, async () => {
  const { policy } = await prepareWorld(seed, { signal })
  await policy.save(places.start, { dtype: 'f32' })
  await policy.dispose()
})
if (kind === 'simulated') await tuneSimulator()
await make(places.report, async () => {
  const simulator = kind === 'simulated' ? await Policy.load(path.join(places.simulator, 'policy')) : null
  const engine =
    simulator === null
      ? worldProvider(world)
      : policyProvider({ policy: simulator, noiseStart: 0, noiseEnd: 0 })
  const start = await Policy.load(places.start)
  const before = await measure(start, engine)
  await start.dispose()
  const trainer = await openTrainer(kind === 'world' ? engine : undefined)
  try {
    for await (const { step, reward, format, exactMatch, seconds } of trainer.train({ signal })) {
      const figures = [reward.mean, format.mean, exactMatch.mean!].map((value) => value.toFixed(3))
      console.log(
        `${kind} step ${step}: reward, format, EM ${figures.join(' ')}; ${seconds.total.toFixed(1)} s`,
      )
    }
  } catch (error) {
    if (signal.aborted) console.log(`saved ${await trainer.save()}`)
    throw error
  }
  const after = await measure(trainer.policy, engine)
  trainer.dispose()
  await trainer.policy.dispose()
  const judged = simulator === null ? {} : { simulator: await judgeSimulator(simulator) }
  await simulator?.dispose()
  writeFileSync(places.report, `${JSON.stringify({ kind, seed, before, after, ...judged }, null, 2)}\n`)
})
console.log(readFileSync(places.report, 'utf8'))
