/** What the quickstart's table shows of a policy. */
import type { Question } from '../data/questions.ts'
import { type EvaluationReport, evaluate } from '../evaluation/evaluate.ts'
import type { Policy } from '../policy/policy.ts'
import type { PromptTemplate } from '../rollout/prompts.ts'

export interface Measurement {
  /** Mean strict format score of sampled completions, and share of them with a score above 0. */
  format: number
  wellFormed: number
  greedyExactMatch: number
  /** pass@k by k, over the sampled questions. */
  pass: Record<string, number>
  /** The greedy completion of each question, in the questions' order. */
  greedy: { question: Question; text: string; right: boolean }[]
}

export interface MeasureOptions {
  promptTemplate: PromptTemplate
  maxNewTokens: number
  /** Sample this many of the questions, `samples` times each; greedy answers them all. */
  sampledQuestions: number
  samples: number
  seed: number
  signal?: AbortSignal
}

/** Greedy answers to all questions, and samples at temperature 1 of the first few. */
export async function measure(
  policy: Policy,
  questions: readonly Question[],
  options: MeasureOptions,
): Promise<Measurement> {
  const { promptTemplate, maxNewTokens, seed, signal } = options
  const shared = { policy, promptTemplate, maxNewTokens, seed, signal }
  const greedy = await evaluate({ ...shared, questions })
  const sampled = await evaluate({
    ...shared,
    questions: questions.slice(0, options.sampledQuestions),
    n: options.samples,
    temperature: 1,
  })
  return {
    format: only(sampled).format,
    wellFormed: share(sampled.predictions, ({ format }) => format > 0),
    greedyExactMatch: only(greedy).em,
    pass: only(sampled).pass,
    greedy: greedy.predictions.map(({ question, text, em }) => ({ question, text, right: em === 1 })),
  }
}

const only = (report: EvaluationReport) => Object.values(report.benchmarks)[0]!

const share = <T>(items: readonly T[], holds: (item: T) => boolean) =>
  items.filter(holds).length / Math.max(1, items.length)
