/** Estimates of KL(policy, reference) from one sampled token (Schulman 2020, "Approximating KL divergence"). */
import type { Config } from './config.ts'
import type { LossSequence } from './loss-batch.ts'

/** With d = log p_ref - log p: k1 = -d, k2 = d² / 2, k3 = e^d - d - 1. */
export function klEstimate(kind: Config['klEstimator'], d: number): number {
  if (kind === 'k1') return -d
  return kind === 'k2' ? (d * d) / 2 : Math.expm1(d) - d
}

/**
 * KL as part of the reward (Ouyang et al. 2022, arXiv 2203.02155, eq. 2, by token): `[T - 1]` of -β·KL at the tokens that
 * are learnt from, under the log-probs that they were sampled with. Needs the reference's log-probs.
 */
export function klRewards(
  { lossMask, oldLogProbs, referenceLogProbs }: LossSequence,
  { beta, klEstimator }: Pick<Config, 'beta' | 'klEstimator'>,
): Float32Array {
  return oldLogProbs.map((logProb, t) =>
    lossMask[t] === 0 ? 0 : -beta * klEstimate(klEstimator, referenceLogProbs![t]! - logProb),
  )
}
