/**
 * What a simulated search engine is tuned on (ZeroSearch, arXiv 2505.04588): a policy answers questions with real
 * searches, and each query with its documents becomes an example. Deviations: the label is given to what was found and
 * not to the trajectory alone (the same documents may be seen by several), and no example shows the golden answer unless
 * it is asked for.
 */
import type { Question } from '../data/questions.ts'
import { SsrlError } from '../errors.ts'
import type { Policy } from '../policy/policy.ts'
import type { Tokenizer } from '../policy/tokenizer.ts'
import { exactMatch } from '../rewards/rules.ts'
import { tokenizerOf } from '../rollout/encode-question.ts'
import type { PromptTemplate } from '../rollout/prompts.ts'
import { createSearch } from '../rollout/search.ts'
import { searchSeed } from '../rollout/search-row.ts'
import { selfSearch } from '../rollout/self-search.ts'
import type { Trajectory } from '../rollout/trajectory.ts'
import { simulatorPrompt } from '../search/policy.ts'
import type { SearchContext, SearchDocument, SearchProvider } from '../search/provider.ts'
import { cutText, type DocumentLayout, renderDocument } from '../search/sanitize.ts'

/** One line of a file that `ssrl sft --data` reads. */
export interface SimulatorExample {
  /** The simulator's prompt, word for word as a `policy` provider asks. */
  prompt: [{ role: 'user'; content: string }]
  /** The documents that were found: `Doc 1(Title: …) text`, a line each. */
  completion: string
  id: string
  question: string
  query: string
  /** The right answer followed in at least half of the trajectories that saw these documents for this question. */
  useful: boolean
  /** Trajectories that saw them, and how many of these ended in the right answer. */
  seen: number
  right: number
}

export interface SimulatorStatistics {
  questions: number
  trajectories: number
  /** Trajectories whose answer was right. */
  right: number
  /** Searches that found documents, nothing, and failed. */
  found: number
  nothing: number
  failed: number
  useful: number
  noisy: number
}

export interface SimulatorDataOptions {
  /** Asks the searches. */
  policy: Policy
  /** Answers them. */
  provider: SearchProvider
  questions: readonly Question[]
  /** Trajectories of a question; default 4. */
  n?: number
  /** Default 1. */
  temperature?: number
  /** Default 512, documents counted. */
  maxNewTokens?: number
  /** Documents of a query; default 5, as in ZeroSearch. */
  topK?: number
  /** Tokens of one document in an example; default 60: about 30 words. */
  maxDocumentTokens?: number
  /** Searches of one trajectory at most; default 4. */
  maxSearches?: number
  /** How the policy is shown documents; default `numbered`. */
  layout?: DocumentLayout
  /** Put question and golden answers into the prompt, for a simulator that is used with `leakAnswer`. */
  leakAnswer?: boolean
  promptTemplate?: PromptTemplate
  seed?: number
  signal?: AbortSignal
  onProgress?: (done: number, total: number) => void
}

/** Rolls the questions out with real searches, and labels what was found by whether the answer followed. */
export async function simulatorExamples(
  options: SimulatorDataOptions,
): Promise<{ examples: SimulatorExample[]; statistics: SimulatorStatistics }> {
  const { policy, questions, n = 4, temperature = 1, maxNewTokens = 512, seed = 0, signal } = options
  const { topK = 5, maxSearches = 4, layout, promptTemplate } = options
  const listening = listenTo(options.provider)
  const search = createSearch({ provider: listening.provider, topK, maxSearches, layout, onFailure: 'empty' })
  const asked = new Map<string, Asked>()
  const statistics = emptyStatistics(questions.length)
  let done = 0
  const sampling = { n, temperature, maxNewTokens, promptTemplate, seed, signal, search }
  for await (const group of selfSearch(policy, questions, sampling)) {
    const scores = (await exactMatch(group, { signal: new AbortController().signal })) as (number | null)[]
    for (const [sample, trajectory] of group.entries()) {
      const isRight = scores[sample] === 1
      statistics.trajectories += 1
      statistics.right += Number(isRight)
      const documentsOf = (turn: number) =>
        listening.found.get(searchSeed(seed, trajectory.group, sample, turn)) ?? []
      gather(asked, statistics, { trajectory, isRight, documentsOf })
    }
    options.onProgress?.(++done, questions.length)
  }
  // Groups come as they finish.
  const inOrder = [...asked.values()].toSorted((a, b) => a.question.group - b.question.group)
  const examples = inOrder.map((one) => toExample(tokenizerOf(policy), one, options))
  statistics.useful = examples.filter(({ useful }) => useful).length
  statistics.noisy = examples.length - statistics.useful
  if (examples.length > 0) return { examples, statistics }
  throw new SsrlError(
    'ERR_DATASET',
    `None of ${statistics.trajectories} trajectories searched and found something (${statistics.nothing} searches found ` +
      `nothing, ${statistics.failed} failed): give the policy a cold start that searches, or another provider`,
  )
}

/** A query of a question with what was found, over all trajectories that saw it. */
interface Asked {
  question: Trajectory
  query: string
  documents: readonly SearchDocument[]
  seen: number
  right: number
}

function gather(
  asked: Map<string, Asked>,
  statistics: SimulatorStatistics,
  {
    trajectory,
    isRight,
    documentsOf,
  }: { trajectory: Trajectory; isRight: boolean; documentsOf: (turn: number) => readonly SearchDocument[] },
): void {
  const seen = new Set<string>()
  for (const { turn, query, outcome } of trajectory.searches) {
    const documents = documentsOf(turn)
    if (outcome === 'failure') statistics.failed += 1
    else if (outcome === 'documents' && documents.length === 0) statistics.nothing += 1
    if (outcome !== 'documents' || documents.length === 0) continue
    statistics.found += 1
    const key = JSON.stringify([
      trajectory.questionId,
      query,
      documents.map(({ title, text }) => [title, text]),
    ])
    // A trajectory that repeats its query is one witness.
    if (seen.has(key)) continue
    seen.add(key)
    const one = asked.get(key) ?? { question: trajectory, query, documents, seen: 0, right: 0 }
    asked.set(key, one)
    one.seen += 1
    one.right += Number(isRight)
  }
}

function toExample(tokenizer: Tokenizer, asked: Asked, options: SimulatorDataOptions): SimulatorExample {
  const { topK = 5, maxDocumentTokens = 60, leakAnswer = false } = options
  const { question, query, documents, seen, right } = asked
  const useful = 2 * right >= seen
  const segments = simulatorPrompt({
    query,
    useful,
    documents: topK,
    question: question.question,
    goldenAnswers: leakAnswer ? question.goldenAnswers : null,
  })
  const short = documents.map(({ title, text }) => ({
    // A bracket would end the title.
    title: title && cutText(tokenizer, title.replaceAll(/[()\n]/g, ' '), maxDocumentTokens),
    text: cutText(tokenizer, text, maxDocumentTokens).replaceAll('\n', ' '),
  }))
  return {
    prompt: [{ role: 'user', content: segments.map(({ text }) => text).join('') }],
    completion: short.map((document, index) => renderDocument(document, index, 'numbered')).join('\n'),
    id: question.questionId,
    question: question.question,
    query,
    useful,
    seen,
    right,
  }
}

/** The same provider, with what it found by the seed of each search. */
function listenTo(provider: SearchProvider) {
  const found = new Map<number, readonly SearchDocument[]>()
  const search = async (queries: readonly string[], context: SearchContext) => {
    const results = await provider.search(queries, context)
    for (const [index, result] of results.entries()) {
      const { seed } = context.origins[index] ?? {}
      if (seed !== undefined && 'documents' in result)
        found.set(seed, result.documents.slice(0, context.topK))
    }
    return results
  }
  const { name, batchSize } = provider
  return { found, provider: { name, search, ...(batchSize === undefined ? {} : { batchSize }) } }
}

function emptyStatistics(questions: number): SimulatorStatistics {
  return { questions, trajectories: 0, right: 0, found: 0, nothing: 0, failed: 0, useful: 0, noisy: 0 }
}
