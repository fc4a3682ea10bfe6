import { mean } from '../mean.ts'

/** How advantages are scaled: by the group's standard deviation, by the batch's, or not. */
export interface AdvantageOptions {
  scaleRewards: 'group' | 'batch' | 'none'
  /** ε: added to the standard deviation. */
  advantageEpsilon: number
}

export interface Advantages {
  /** One per trajectory; null where the reward is null. */
  values: (number | null)[]
  /** Groups whose rewards are all equal: they teach nothing. */
  zeroVarianceGroups: number
}

/**
 * GRPO's group-relative advantages (arXiv 2402.03300, §4.1.2): (R - mean of the group) / (sample standard deviation + ε).
 * `'none'` is Dr. GRPO's (arXiv 2503.20783); `'batch'` divides by the deviation over the whole batch. Null rewards take
 * no part in any statistics. A group whose largest and smallest reward are equal gets exactly 0.
 *
 * @param groups index of each trajectory's group
 */
export function groupAdvantages(
  rewards: readonly (number | null)[],
  groups: readonly number[],
  { scaleRewards, advantageEpsilon }: AdvantageOptions,
): Advantages {
  const members = new Map<number, number[]>()
  for (const [index, group] of groups.entries()) {
    if (rewards[index] === null) continue
    members.set(group, [...(members.get(group) ?? []), index])
  }
  const batchScale = standardDeviation(rewards.filter((reward) => reward !== null))
  const values: (number | null)[] = rewards.map((reward) => (reward === null ? null : 0))
  let zeroVarianceGroups = 0
  for (const indices of members.values()) {
    const group = indices.map((index) => rewards[index]!)
    // Not by subtraction: eight rewards of 0.9 have a mean that is not 0.9, and a difference of rounding over a
    // standard deviation of rounding is an advantage.
    if (Math.max(...group) === Math.min(...group)) {
      zeroVarianceGroups += 1
      continue
    }
    const center = mean(group)
    const scale = {
      group: standardDeviation(group) + advantageEpsilon,
      batch: batchScale + advantageEpsilon,
      none: 1,
    }[scaleRewards]
    for (const index of indices) values[index] = (rewards[index]! - center) / scale
  }
  return { values, zeroVarianceGroups }
}

/** With n - 1 below, as in PyTorch; 0 for fewer than two values. */
export function standardDeviation(values: readonly number[]): number {
  if (values.length < 2) return 0
  const center = mean(values)
  return Math.sqrt(values.reduce((sum, value) => sum + (value - center) ** 2, 0) / (values.length - 1))
}
