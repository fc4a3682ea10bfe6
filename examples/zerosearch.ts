/**
 * ZeroSearch: another model plays the search engine. It writes useful documents and, more often as the run goes on, noisy
 * ones; it is not told the answer.
 *
 *   node --import=tsx examples/zerosearch.ts POLICY SIMULATOR TRAIN OUTPUT [STEPS]
 */
import { loadQuestions, Policy, SSRLTrainer } from 'ssrl'

const [source, simulator, train, outputDirectory, steps = '203'] = process.argv.slice(2)
if (!source || !simulator || !train || !outputDirectory) {
  throw new Error('usage: zerosearch.ts POLICY SIMULATOR TRAIN OUTPUT [STEPS]')
}

const policy = await Policy.load(source)
const trainer = new SSRLTrainer({
  policy,
  train: await loadQuestions(train),
  outputDirectory,
  promptTemplate: 'search',
  searchSchedule: 'real',
  searchProvider: `policy:${simulator}`,
  searchTopK: 5,
  noiseStart: 0,
  noiseEnd: 0.5,
  answerReward: 'f1',
  promptsPerStep: 4,
  numGenerations: 8,
  maxCompletionLength: 512,
  // A model writes slower than an engine finds.
  searchTimeout: 120,
  learningRate: 1e-6,
  maxSteps: Number(steps),
})

for await (const { step, reward, search, searchLatency } of trainer.train()) {
  const { documents, failures, tokens } = search!
  console.log(
    `step ${step}: reward ${reward.mean.toFixed(3)}, ${documents} searches simulated, ${failures} failed,`,
    `${tokens} tokens of documents, ${searchLatency!.mean.toFixed(0)} ms a search`,
  )
}

trainer.dispose()
await policy.dispose()
