import { normalizeAnswer } from './normalize.ts'

/** What a group's answers elect. */
export interface Vote {
  /** The normalised answer given most often; of several, the one that came first. */
  answer: string
  /** How many gave it. */
  count: number
  /** Another answer was given as often. */
  tied: boolean
}

/**
 * A vote over normalised answers. Answers that normalise to nothing do not vote; null when none is left.
 */
export function majority(answers: readonly string[]): Vote | null {
  const votes = new Map<string, number>()
  for (const answer of answers) {
    const normalized = normalizeAnswer(answer)
    if (normalized !== '') votes.set(normalized, (votes.get(normalized) ?? 0) + 1)
  }
  let winner: Vote | null = null
  for (const [answer, count] of votes) {
    if (winner === null || count > winner.count) winner = { answer, count, tied: false }
    else if (count === winner.count) winner.tied = true
  }
  return winner
}

/** The answer that `majority` elects, or null. */
export function majorityAnswer(answers: readonly string[]): string | null {
  return majority(answers)?.answer ?? null
}
