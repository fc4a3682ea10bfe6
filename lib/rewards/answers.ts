/**
 * Scores of one predicted answer against its golden answers, to the letter as FlashRAG computes them
 * (metrics em, acc and f1). Each takes the best over the golden answers; without any, the score is 0.
 */
import { normalizeAnswer } from './normalize.ts'
import { splitWords } from './python-text.ts'

/** 1 when the normalised prediction equals a normalised golden answer, else 0. */
export function exactMatchScore(prediction: string, goldenAnswers: readonly string[]): number {
  const normalized = normalizeAnswer(prediction)
  return goldenAnswers.some((golden) => normalizeAnswer(golden) === normalized) ? 1 : 0
}

/** 1 when a normalised golden answer is contained in the normalised prediction, else 0. An empty one is contained in every text. */
export function coverExactMatchScore(prediction: string, goldenAnswers: readonly string[]): number {
  const normalized = normalizeAnswer(prediction)
  return goldenAnswers.some((golden) => normalized.includes(normalizeAnswer(golden))) ? 1 : 0
}

/** Token F1 in [0, 1]: bags of words. When exactly one side is yes, no or noanswer, 0. */
export function f1Score(prediction: string, goldenAnswers: readonly string[]): number {
  const normalized = normalizeAnswer(prediction)
  let best = 0
  for (const golden of goldenAnswers) best = Math.max(best, pairF1(normalized, normalizeAnswer(golden)))
  return best
}

const CLOSED_ANSWERS = new Set(['yes', 'no', 'noanswer'])

function pairF1(prediction: string, golden: string): number {
  if (prediction !== golden && (CLOSED_ANSWERS.has(prediction) || CLOSED_ANSWERS.has(golden))) return 0
  const predicted = splitWords(prediction)
  const expected = splitWords(golden)
  const same = overlap(predicted, expected)
  if (same === 0) return 0
  const precision = same / predicted.length
  const recall = same / expected.length
  return (2 * precision * recall) / (precision + recall)
}

function overlap(left: string[], right: string[]): number {
  const counts = new Map<string, number>()
  for (const word of left) counts.set(word, (counts.get(word) ?? 0) + 1)
  let same = 0
  for (const word of right) {
    const count = counts.get(word) ?? 0
    if (count === 0) continue
    counts.set(word, count - 1)
    same++
  }
  return same
}
