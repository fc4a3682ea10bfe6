/**
 * REINFORCE++ with a group baseline (Hu et al. 2025, arXiv 2501.03262, §3.3): the mean reward of the group is subtracted,
 * not divided by its deviation, and the result is whitened over all tokens of the step.
 */
import { centred } from './dr-grpo.ts'
import { type Estimator, perGroup, totalReward } from './estimator.ts'
import { whitened } from './whiten.ts'

export const reinforcePlusPlusBaseline: Estimator = (scored, { advantageEpsilon }) => {
  const groups = scored.map(({ group }) => group)
  const differences = perGroup(scored.map(totalReward), groups, centred)
  return {
    advantages: whitened(
      differences,
      scored.map(({ mask }) => mask),
      advantageEpsilon,
    ),
  }
}
