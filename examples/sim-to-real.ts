/**
 * Sim-to-real: a policy that learnt to search itself meets a real engine. Of each trajectory the first K searches are
 * answered by the engine, the others by the policy; K = 0 is self-search alone.
 *
 *   node --import=tsx examples/sim-to-real.ts POLICY PROVIDER QUESTIONS [LIMIT]
 *
 * PROVIDER is local:FOLDER (what `ssrl index` made), http:ADDRESS, serper, searxng:ADDRESS, …
 */
import {
  createProvider,
  createSearch,
  exactMatchScore,
  loadQuestions,
  Policy,
  selfSearch,
  type Trajectory,
} from 'ssrl'

const [source, word, file, limit = '200'] = process.argv.slice(2)
if (!source || !word || !file) throw new Error('usage: sim-to-real.ts POLICY PROVIDER QUESTIONS [LIMIT]')

const policy = await Policy.load(source)
const provider = await createProvider(word)
const questions = (await loadQuestions(file)).slice(0, Number(limit))

const isRight = ({ prediction, goldenAnswers }: Trajectory) =>
  exactMatchScore(prediction ?? '', goldenAnswers)

for (const realSearches of [0, 1, 3, Number.POSITIVE_INFINITY]) {
  const search = createSearch({ provider, schedule: 'first', realSearches })
  const options = { search, temperature: 0, maxNewTokens: 512 }
  let right = 0
  const answered = { documents: 0, self: 0, failure: 0, blank: 0 }
  for await (const [trajectory] of selfSearch(policy, questions, options)) {
    right += isRight(trajectory!)
    for (const { outcome } of trajectory!.searches) answered[outcome] += 1
  }
  const name = realSearches === Number.POSITIVE_INFINITY ? 'all' : realSearches
  console.log(
    `K = ${name}: exact match ${(right / questions.length).toFixed(3)},`,
    `${answered.documents} real searches, ${answered.self} of the policy's own, ${answered.failure} failed`,
  )
}

await provider.close?.()
await policy.dispose()
