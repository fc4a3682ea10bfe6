/**
 * KL-Cov (Cui et al. 2025, arXiv 2505.22617, §4.3): entropy falls with the covariance of log-prob and advantage, most of
 * it from few tokens. Of the N tokens of a step the k·N with the largest (log p - mean)·(A - mean) have
 * -A·r + c·|log p - log p_old| for a loss, all others -A·r: nothing is clipped. Where no token has moved it does nothing.
 */
import { mean } from '../mean.ts'
import type { Config } from './config.ts'
import type { LossSequence } from './loss-batch.ts'

type KlCovSettings = Pick<Config, 'klCovCoefficient'> & { klCovRatio: number }

/**
 * Chooses the tokens, at least one, over the whole step and by the log-probs that they were sampled with, and gives
 * every sequence its weights c. Needs advantages.
 */
export function attachDriftWeights(
  sequences: readonly LossSequence[],
  { klCovRatio, klCovCoefficient }: KlCovSettings,
): void {
  const tokens = sequences.flatMap(activeTokens)
  const logProb = mean(tokens.map((token) => token.logProb))
  const advantage = mean(tokens.map((token) => token.advantage))
  const covariance = (token: ActiveToken) => (token.logProb - logProb) * (token.advantage - advantage)
  const count = Math.max(1, Math.floor(klCovRatio * tokens.length))
  for (const sequence of sequences) sequence.driftWeights = new Float32Array(sequence.lossMask.length)
  const chosen = tokens.toSorted((a, b) => covariance(b) - covariance(a)).slice(0, count)
  for (const { sequence, t } of chosen) sequence.driftWeights![t] = klCovCoefficient
}

interface ActiveToken {
  sequence: LossSequence
  t: number
  logProb: number
  advantage: number
}

function activeTokens(sequence: LossSequence): ActiveToken[] {
  const { lossMask, oldLogProbs, advantage } = sequence
  return Array.from(lossMask.keys())
    .filter((t) => lossMask[t] !== 0)
    .map((t) => ({
      sequence,
      t,
      logProb: oldLogProbs[t]!,
      advantage: typeof advantage === 'number' ? advantage : advantage[t]!,
    }))
}
