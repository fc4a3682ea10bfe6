/** Estimators over the samples of an evaluation. */
import { SsrlError } from '../errors.ts'
import { Random } from '../random.ts'
import { exactMatchScore } from '../rewards/answers.ts'
import { majorityAnswer } from '../rewards/majority.ts'

/**
 * The chance that at least one of k samples is right, from a pool of n of which c are: 1 − C(n−c, k)/C(n, k), without
 * bias (Chen et al. 2021, eq. 1). Throws `ERR_INVALID_ARG` unless 0 ≤ c ≤ n and 1 ≤ k ≤ n.
 */
export function passAtK(n: number, c: number, k: number): number {
  if (
    !(
      Number.isInteger(n) &&
      Number.isInteger(c) &&
      Number.isInteger(k) &&
      c >= 0 &&
      c <= n &&
      k >= 1 &&
      k <= n
    )
  ) {
    throw new SsrlError(
      'ERR_INVALID_ARG',
      `Expected whole numbers with 0 ≤ c ≤ n and 1 ≤ k ≤ n but received n ${n}, c ${c}, k ${k}`,
    )
  }
  if (n - c < k) return 1
  let miss = 1
  for (let i = n - c + 1; i <= n; i++) miss *= 1 - k / i
  return 1 - miss
}

/**
 * Exact match of the majority answer of k samples: the mean over the consecutive, disjoint blocks of k in the pool (a
 * rest of fewer than k is not used). Blank answers do not vote; a block without votes is wrong.
 */
export function majorityAtK(
  predictions: readonly string[],
  goldenAnswers: readonly string[],
  k: number,
): number {
  const blocks = Math.floor(predictions.length / k)
  if (!(Number.isInteger(k) && k >= 1 && blocks >= 1)) {
    throw new SsrlError('ERR_INVALID_ARG', `Expected k from 1 to ${predictions.length} but received ${k}`)
  }
  let right = 0
  for (let block = 0; block < blocks; block++) {
    const winner = majorityAnswer(predictions.slice(block * k, (block + 1) * k))
    if (winner !== null) right += exactMatchScore(winner, goldenAnswers)
  }
  return right / blocks
}

/** 1, 2, 4, … up to n, and n itself. */
export function sampleSizes(n: number): number[] {
  const sizes: number[] = []
  for (let k = 1; k < n; k *= 2) sizes.push(k)
  return [...sizes, n]
}

export interface BootstrapOptions {
  /** Resamples; default 2,000. */
  resamples?: number
  seed?: number
  /** Share of the resamples inside the interval; default 0.95. */
  level?: number
}

export const DEFAULT_RESAMPLES = 2000

/**
 * Percentile bootstrap intervals of the means of several metrics over the same questions, which are what is drawn:
 * the samples of one question stay together. `sums[m][q]` is the sum of metric m over the samples of question q and
 * `counts[q]` their number. The same draws serve every metric. Returns `[low, high]` per metric; `[0, 0]` without questions.
 */
export function bootstrapIntervals(
  sums: readonly Float64Array[],
  counts: Float64Array,
  options: BootstrapOptions = {},
): [number, number][] {
  const { resamples = DEFAULT_RESAMPLES, seed = 0, level = 0.95 } = options
  const questions = counts.length
  if (questions === 0) return sums.map(() => [0, 0])
  const random = new Random(seed)
  const means = sums.map(() => new Float64Array(resamples))
  const totals = new Float64Array(sums.length)
  for (let resample = 0; resample < resamples; resample++) {
    totals.fill(0)
    let samples = 0
    for (let draw = 0; draw < questions; draw++) {
      const question = random.integer(questions)
      samples += counts[question]!
      for (let metric = 0; metric < sums.length; metric++)
        totals[metric] = totals[metric]! + sums[metric]![question]!
    }
    for (let metric = 0; metric < sums.length; metric++) means[metric]![resample] = totals[metric]! / samples
  }
  const tail = (1 - level) / 2
  return means.map((values) => {
    values.sort()
    return [quantile(values, tail), quantile(values, 1 - tail)]
  })
}

/** The q-quantile of sorted values, between neighbours by linear interpolation. */
export function quantile(sorted: ArrayLike<number>, q: number): number {
  const place = q * (sorted.length - 1)
  const below = Math.floor(place)
  const low = sorted[below] ?? Number.NaN
  const high = sorted[Math.min(below + 1, sorted.length - 1)] ?? low
  return low + (high - low) * (place - below)
}
