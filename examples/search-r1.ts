/**
 * Search-R1: a server of the /retrieve protocol over a corpus of one's own, {"id", "title", "contents"} a line, and a policy
 * that learns to ask it, up to four times. An action that is neither search nor answer is told so.
 *
 *   node --import=tsx examples/search-r1.ts POLICY CORPUS TRAIN OUTPUT [STEPS]
 */
import {
  buildIndex,
  LocalIndex,
  listen,
  loadQuestions,
  Policy,
  readCorpus,
  retrieveApp,
  SSRLTrainer,
} from 'ssrl'

const [source, corpus, train, outputDirectory, steps = '100'] = process.argv.slice(2)
if (!source || !corpus || !train || !outputDirectory) {
  throw new Error('usage: search-r1.ts POLICY CORPUS TRAIN OUTPUT [STEPS]')
}

await buildIndex(readCorpus(corpus), `${outputDirectory}-index`)
const index = await LocalIndex.open(`${outputDirectory}-index`)
const server = await listen(retrieveApp({ search: (query, topK) => index.search(query, topK) }), { port: 0 })

const policy = await Policy.load(source)
const trainer = new SSRLTrainer({
  policy,
  train: await loadQuestions(train),
  outputDirectory,
  promptTemplate: 'search',
  searchSchedule: 'multi-turn',
  searchProvider: `http:${server.url}`,
  maxSearches: 4,
  formatWeight: 0,
  promptsPerStep: 4,
  numGenerations: 8,
  maxCompletionLength: 512,
  learningRate: 1e-6,
  maxSteps: Number(steps),
})

for await (const { step, reward, search } of trainer.train()) {
  const { documents, failures, invalidActions } = search!
  console.log(
    `step ${step}: reward ${reward.mean.toFixed(3)}, ${documents} searches answered, ${failures} failed,`,
    `${invalidActions} invalid actions`,
  )
}

trainer.dispose()
await policy.dispose()
await server.close()
index.close()
