/**
 * GRPO (Shao et al. 2024, arXiv 2402.03300, §4.1.2): A_i = (R_i - mean(R of the group)) / (std(R of the group) + ε), the
 * standard deviation with n - 1 below. `scaleRewards: 'batch'` divides by that of all rewards of the step; `'none'` does
 * not divide, which is Dr. GRPO's estimator.
 */
import { centred } from './dr-grpo.ts'
import { type Estimator, perGroup, totalReward } from './estimator.ts'
import { standardDeviation } from './whiten.ts'

export const grpo: Estimator = (scored, { scaleRewards, advantageEpsilon }) => {
  const rewards = scored.map(totalReward)
  const groups = scored.map(({ group }) => group)
  const ofBatch = standardDeviation(rewards.filter((reward) => reward !== null))
  const scaleOf = {
    group: (group: readonly number[]) => standardDeviation(group) + advantageEpsilon,
    batch: () => ofBatch + advantageEpsilon,
    none: () => 1,
  }[scaleRewards]
  const advantages = perGroup(rewards, groups, (group) => {
    const scale = scaleOf(group)
    return centred(group).map((value) => value / scale)
  })
  return { advantages }
}
