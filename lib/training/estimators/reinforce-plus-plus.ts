/**
 * REINFORCE++ (Hu et al. 2025, arXiv 2501.03262, §3): no group and no critic. The return of token t is
 * G_t = Σ_{u ≥ t} r_u with the trajectory's reward at its last token and, where KL is part of the reward, -β·KL at each;
 * A_t = (G_t - mean(G)) / (std(G) + ε) over all tokens of the step.
 */
import { type Advantage, type Estimator, type Scored, totalReward } from './estimator.ts'
import { whitened } from './whiten.ts'

export const reinforcePlusPlus: Estimator = (scored, { advantageEpsilon }) => ({
  advantages: whitened(
    scored.map(returnOf),
    scored.map(({ mask }) => mask),
    advantageEpsilon,
  ),
})

/** Without rewards of single tokens it is the same at all of them. */
function returnOf(scored: Scored): Advantage {
  const { reward, tokenRewards, mask } = scored
  if (reward === null || tokenRewards === undefined) return totalReward(scored)
  const returns = new Float32Array(mask.length)
  let sum = reward
  for (let t = mask.length - 1; t >= 0; t--) {
    if (mask[t] === 0) continue
    sum += tokenRewards[t]!
    returns[t] = sum
  }
  return returns
}
