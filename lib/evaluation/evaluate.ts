/** Asks questions, scores the answers and sums up. */
import type { Question } from '../data/questions.ts'
import { SsrlError } from '../errors.ts'
import { inTurns } from '../in-turns.ts'
import type { Policy } from '../policy/policy.ts'
import { derivedSeed } from '../random-seed.ts'
import { coverExactMatchScore, exactMatchScore, f1Score } from '../rewards/answers.ts'
import { type FormatMode, formatScore } from '../rollout/format.ts'
import { parseCompletion } from '../rollout/grammar.ts'
import type { PromptTemplate } from '../rollout/prompts.ts'
import type { Search } from '../rollout/search.ts'
import { type Endpoint, endpointSampler } from './endpoint.ts'
import { createMethod, type Method, type MethodName, type Shot } from './methods.ts'
import { EvaluationWriter } from './output.ts'
import { policySampler, type Sample, type SampleEnd, type SampleSettings } from './sample.ts'
import { searchSampler } from './search-sample.ts'
import { type BenchmarkSummary, type Scores, type Summary, summarize } from './summary.ts'

/** What a trainer records about an evaluation. */
export type EvaluationScores = BenchmarkSummary

export interface EvaluateOptions {
  /** Either a policy… */
  policy?: Policy
  /** …or an OpenAI-compatible server. */
  endpoint?: Endpoint
  /** One set of questions, or several by the benchmark's name. */
  questions: readonly Question[] | Readonly<Record<string, readonly Question[]>>
  /** Default `'self-search'`. */
  method?: MethodName
  /** Samples per question; default 1. */
  n?: number
  /** Default 0, greedy; then n must be 1. */
  temperature?: number
  topP?: number
  topK?: number
  minP?: number
  /** Default 256. */
  maxNewTokens?: number
  /** The first so many questions of each benchmark. */
  limit?: number
  /** Of sampling and of the bootstrap intervals; default 0. */
  seed?: number
  promptTemplate?: PromptTemplate
  shots?: readonly Shot[]
  stopAtAnswer?: boolean
  format?: FormatMode
  /** Who answers the searches of a policy's self-search; by default the policy. */
  search?: Search
  /** Folder for `predictions.jsonl` and `summary.json`. */
  output?: string
  /** Added to `settings` of the summary: names of policy and files, say. */
  about?: Record<string, unknown>
  signal?: AbortSignal
  onProgress?: (done: number, total: number) => void
}

/** One line of `predictions.jsonl`, the question's own fields aside. */
export interface Prediction extends Scores {
  benchmark: string
  sample: number
  text: string
  prediction: string
  finish_reason: SampleEnd
  searches: number
  tokens: number
}

export interface EvaluationReport extends Summary {
  predictions: (Prediction & { question: Question })[]
}

/**
 * Evaluates a policy or an endpoint. Means are over all samples; pass@k is the unbiased estimate from the n samples of
 * each question; intervals are 95 % bootstrap intervals over questions.
 *
 * @throws SsrlError `ERR_INVALID_CONFIG` for options that make no sense together, `ERR_NETWORK` when an endpoint fails
 */
export async function evaluate(options: EvaluateOptions): Promise<EvaluationReport> {
  const method = createMethod(options.method ?? 'self-search', options)
  const settings = samplingSettings(options)
  const sampler = chooseSampler(options)
  const benchmarks = toBenchmarks(options)
  const total = benchmarks.reduce((sum, [, questions]) => sum + questions.length, 0)
  let done = 0
  const onQuestion = () => options.onProgress?.(++done, total)
  await using writer = options.output === undefined ? null : await EvaluationWriter.open(options.output)
  const predictions: EvaluationReport['predictions'] = []
  for (const [index, [benchmark, questions]] of benchmarks.entries()) {
    const seed = derivedSeed(settings.seed, index)
    const samples = await sampler(questions, method, {
      ...settings,
      seed,
      signal: options.signal,
      onQuestion,
    })
    const all = questions.flatMap((question, at) =>
      samples[at]!.map((completion, sample) => ({ benchmark, question, sample, completion })),
    )
    const judged = await inTurns(all, (item) => judge({ ...item, method, format: options.format }))
    for (const [at, prediction] of judged.entries()) {
      const { question } = all[at]!
      predictions.push({ ...prediction, question })
      await writer?.prediction({ ...question.fields, ...prediction })
    }
  }
  const summary = summarizePredictions(predictions, method, settings, options)
  await writer?.finish(summary)
  return { ...summary, predictions }
}

function samplingSettings(options: EvaluateOptions): SampleSettings {
  const { n = 1, temperature = 0, topP = 1, topK = 0, minP = 0, maxNewTokens = 256, seed = 0 } = options
  if (!Number.isInteger(n) || n < 1) {
    throw new SsrlError('ERR_INVALID_CONFIG', `Expected an integer of at least 1 for n but received ${n}`)
  }
  if (!(temperature >= 0 && Number.isFinite(temperature))) {
    throw new SsrlError(
      'ERR_INVALID_CONFIG',
      `Expected a temperature of at least 0 but received ${temperature}`,
    )
  }
  if (temperature === 0 && n > 1) {
    throw new SsrlError(
      'ERR_INVALID_CONFIG',
      `Expected a temperature above 0 with n ${n}: greedy samples are all the same`,
    )
  }
  return { n, temperature, topP, topK, minP, maxNewTokens, seed }
}

function chooseSampler({
  policy,
  endpoint,
  search,
  method = 'self-search',
  promptTemplate,
}: EvaluateOptions) {
  if ((policy === undefined) === (endpoint === undefined)) {
    throw new SsrlError('ERR_INVALID_CONFIG', 'Expected a policy or an endpoint to evaluate, one of the two')
  }
  if (search) {
    if (policy && method === 'self-search') return searchSampler(policy, search, promptTemplate)
    throw new SsrlError('ERR_INVALID_CONFIG', 'search needs a policy and the method self-search')
  }
  return policy ? policySampler(policy) : endpointSampler(endpoint!)
}

function toBenchmarks({ questions, limit }: EvaluateOptions): [string, readonly Question[]][] {
  const sets = (Array.isArray(questions) ? { questions } : questions) as Record<string, readonly Question[]>
  const benchmarks = Object.entries(sets).map(([name, items]): [string, readonly Question[]] => [
    name,
    items.slice(0, limit),
  ])
  if (benchmarks.some(([, items]) => items.length === 0) || benchmarks.length === 0) {
    throw new SsrlError('ERR_INVALID_CONFIG', 'Expected at least one question in each set to evaluate on')
  }
  return benchmarks
}

interface Judged {
  benchmark: string
  sample: number
  question: Question
  completion: Sample
  method: Method
  format?: FormatMode
}

function judge({ benchmark, sample, question, completion, method, format }: Judged): Prediction {
  const { text, finishReason, tokens } = completion
  const prediction = method.extract(text)
  const { goldenAnswers } = question
  return {
    benchmark,
    sample,
    text,
    prediction,
    em: exactMatchScore(prediction, goldenAnswers),
    f1: f1Score(prediction, goldenAnswers),
    cover_em: coverExactMatchScore(prediction, goldenAnswers),
    format: formatScore(text, format),
    finish_reason: finishReason,
    searches: parseCompletion(text).searchCount,
    tokens,
  }
}

function summarizePredictions(
  predictions: EvaluationReport['predictions'],
  method: Method,
  settings: SampleSettings,
  { limit, format = 'strict', about, endpoint }: EvaluateOptions,
): Summary {
  const samples = predictions.map(({ question, ...prediction }) => ({
    ...prediction,
    goldenAnswers: question.goldenAnswers,
    questionKey: JSON.stringify([question.id, question.question]),
  }))
  return summarize(samples, {
    seed: settings.seed,
    settings: {
      ...about,
      ...(endpoint ? { endpoint: endpoint.url, model: endpoint.model } : {}),
      method: method.name,
      wording: method.wording,
      ...settings,
      limit: limit ?? null,
      format,
    },
    scoring: describeRule(method, format),
  })
}

function describeRule(method: Method, format: FormatMode): string {
  return (
    `prediction: ${method.rule}. Normalisation: lower case, ASCII punctuation removed, the words a, an, the removed, ` +
    'white space collapsed (as Python does). em: equals a golden answer; cover_em: contains one (FlashRAG: acc); ' +
    'f1: token overlap, best over the golden answers, 0 when exactly one side is yes, no or noanswer. ' +
    `format: the ${format} format score. pass@k: unbiased (1 - C(n-c, k)/C(n, k)); maj@k: the most frequent ` +
    'normalised answer. Intervals: 95 % percentile bootstrap over questions.'
  )
}
