/** From scored samples to `summary.json`. */
import { mean } from '../mean.ts'
import { type BootstrapOptions, bootstrapIntervals, majorityAtK, passAtK, sampleSizes } from './statistics.ts'

/** The metrics of one completion, named as they stand in `predictions.jsonl`. */
export interface Scores {
  em: number
  f1: number
  cover_em: number
  format: number
}

export type Metric = keyof Scores

export const METRICS: readonly Metric[] = ['em', 'f1', 'cover_em', 'format']

/** One scored completion. Samples of one benchmark with the same question key belong together. */
export interface ScoredSample extends Scores {
  benchmark: string
  questionKey: string
  prediction: string
  goldenAnswers: readonly string[]
}

export interface BenchmarkSummary extends Scores {
  /** Questions. */
  n: number
  /** Completions: n times the samples of a question. Means are over these. */
  samples: number
  /** 95 % bootstrap intervals over questions. */
  interval: Record<Metric, [number, number]>
  /** By k: the unbiased estimate of pass@k, for k up to the smallest number of samples of a question. */
  pass: Record<string, number>
  /** By k: exact match of the majority answer. */
  maj: Record<string, number>
}

export interface Summary {
  benchmarks: Record<string, BenchmarkSummary>
  /** Mean over benchmarks, each counting the same. */
  macro: Scores
  /** Mean over all completions. */
  micro: Scores & { n: number; samples: number; interval: Record<Metric, [number, number]> }
  settings: Record<string, unknown>
  /** The scoring rule in words. */
  scoring: string
}

export interface SummaryOptions extends BootstrapOptions {
  settings: Record<string, unknown>
  scoring: string
}

/** Sums up samples in the order of their benchmarks. The order within a benchmark matters to `maj` alone. */
export function summarize(samples: readonly ScoredSample[], options: SummaryOptions): Summary {
  const { settings, scoring, ...bootstrap } = options
  const benchmarks: [string, BenchmarkSummary][] = []
  for (const [name, members] of groupBy(samples, (sample) => sample.benchmark)) {
    benchmarks.push([name, summarizeBenchmark(members, bootstrap)])
  }
  const all = groupQuestions(samples)
  return {
    benchmarks: Object.fromEntries(benchmarks),
    macro: meanScores(benchmarks.map(([, summary]) => summary)),
    micro: {
      n: all.length,
      samples: samples.length,
      ...meanScores(samples),
      interval: intervals(all, bootstrap),
    },
    settings,
    scoring,
  }
}

function summarizeBenchmark(samples: readonly ScoredSample[], bootstrap: BootstrapOptions): BenchmarkSummary {
  const questions = groupQuestions(samples)
  const smallest = Math.min(...[...new Set(questions.map((question) => question.length))])
  const pass: Record<string, number> = {}
  const maj: Record<string, number> = {}
  for (const k of sampleSizes(smallest)) {
    pass[k] = mean(questions.map((question) => passAtK(question.length, countRight(question), k)))
    maj[k] = mean(questions.map((question) => majorityOf(question, k)))
  }
  const scores = meanScores(samples)
  return {
    n: questions.length,
    samples: samples.length,
    ...scores,
    interval: intervals(questions, bootstrap),
    pass,
    maj,
  }
}

function countRight(question: readonly ScoredSample[]): number {
  return question.filter((sample) => sample.em === 1).length
}

function majorityOf(question: readonly ScoredSample[], k: number): number {
  // One sample is its own majority, by its own score: a blank answer may be right by the letter of the metric.
  if (k === 1) return countRight(question) / question.length
  return majorityAtK(
    question.map((sample) => sample.prediction),
    question[0]!.goldenAnswers,
    k,
  )
}

function intervals(
  questions: readonly ScoredSample[][],
  bootstrap: BootstrapOptions,
): Record<Metric, [number, number]> {
  const counts = Float64Array.from(questions, (question) => question.length)
  const sums = METRICS.map((metric) =>
    Float64Array.from(questions, (question) => question.reduce((sum, sample) => sum + sample[metric], 0)),
  )
  const found = bootstrapIntervals(sums, counts, bootstrap)
  return Object.fromEntries(METRICS.map((metric, index) => [metric, found[index]!])) as Record<
    Metric,
    [number, number]
  >
}

function meanScores(scores: readonly Scores[]): Scores {
  const means = METRICS.map((metric) => [metric, mean(scores.map((score) => score[metric]))])
  return Object.fromEntries(means) as Scores
}

function groupQuestions(samples: readonly ScoredSample[]): ScoredSample[][] {
  return [...groupBy(samples, (sample) => JSON.stringify([sample.benchmark, sample.questionKey])).values()]
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>()
  for (const item of items) {
    const key = keyOf(item)
    const group = groups.get(key)
    if (group) group.push(item)
    else groups.set(key, [item])
  }
  return groups
}
