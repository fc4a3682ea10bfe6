/**
 * RLOO (Ahmadian et al. 2024, arXiv 2402.14740, eq. 7): the baseline of a trajectory is the mean reward of the others of
 * its group, A_i = R_i - 1/(n - 1) Σ_{j≠i} R_j = n/(n - 1) · (R_i - mean(R)).
 */
import { centred } from './dr-grpo.ts'
import { type Estimator, perGroup, totalReward } from './estimator.ts'

export const rloo: Estimator = (scored) => ({
  advantages: perGroup(
    scored.map(totalReward),
    scored.map(({ group }) => group),
    (group) => centred(group).map((value) => (value * group.length) / (group.length - 1)),
  ),
})
