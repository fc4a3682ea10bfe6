import { normalizeAnswer } from '../rewards/normalize.ts'
import type { Question } from './questions.ts'

/**
 * Questions of `evaluation` that also occur in `training`, compared as normalised text (case, punctuation, articles and
 * white space aside).
 */
export function sharedQuestions(training: readonly Question[], evaluation: readonly Question[]): Question[] {
  const seen = new Set(training.map(({ question }) => normalizeAnswer(question)))
  return evaluation.filter(({ question }) => seen.has(normalizeAnswer(question)))
}
