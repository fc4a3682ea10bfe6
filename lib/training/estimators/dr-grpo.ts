/**
 * Dr. GRPO (Liu et al. 2025, arXiv 2503.20783, §3.2): A_i = R_i - mean(R of the group), not divided by a standard
 * deviation, which would weigh questions that are nearly solved or nearly hopeless more. Its loss is `lossType: 'dr_grpo'`: a sum over a
 * fixed length, so that long wrong answers are not spared.
 */
import { mean } from '../../mean.ts'

/** R_i - mean(R) of one group. */
export function centred(rewards: readonly number[]): number[] {
  const center = mean(rewards)
  return rewards.map((reward) => reward - center)
}
