import { normalizeAnswer } from './normalize.ts'

/**
 * The normalised answer given most often; of several, the one that came first. Answers that normalise to nothing do
 * not vote; null when none is left.
 */
export function majorityAnswer(answers: readonly string[]): string | null {
  const votes = new Map<string, number>()
  for (const answer of answers) {
    const normalized = normalizeAnswer(answer)
    if (normalized !== '') votes.set(normalized, (votes.get(normalized) ?? 0) + 1)
  }
  let winner: string | null = null
  let most = 0
  for (const [answer, count] of votes) {
    if (count <= most) continue
    winner = answer
    most = count
  }
  return winner
}
