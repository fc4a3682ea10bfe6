/** What an advantage estimator is: rewards of a step in, one advantage per trajectory (or per token) out. */
import type { Config } from '../config.ts'

/** A trajectory of T tokens as an estimator sees it. Per-token arrays have T - 1 values, that of token t + 1 at t. */
export interface Scored {
  /** Trajectories of one question share it. */
  group: number
  /** null: the trajectory takes no part in anything. */
  reward: number | null
  /** Not 0 where a token is learnt from; what is masked has no part in any statistics. */
  mask: Uint8Array
  /** Rewards of single tokens beside it, such as -β·KL. */
  tokenRewards?: Float32Array | undefined
  /** The critic's value of the state that each token was sampled from; `gae` needs it. */
  values?: Float32Array | undefined
}

/** A number holds for all tokens of a trajectory; null where the reward is null. */
export type Advantage = number | Float32Array | null

export interface Estimate {
  /** One per trajectory. */
  advantages: Advantage[]
  /** What the critic should have said, `[T - 1]` each: `gae` only. */
  returns?: (Float32Array | null)[]
}

export type EstimatorSettings = Pick<Config, 'scaleRewards' | 'advantageEpsilon' | 'gamma' | 'gaeLambda'>

export type Estimator = (scored: readonly Scored[], settings: EstimatorSettings) => Estimate

/** The reward of a whole trajectory: what it got, and what its tokens got. Without a reward, null. */
export function totalReward({ reward, mask, tokenRewards }: Scored): number | null {
  if (reward === null || tokenRewards === undefined) return reward
  return tokenRewards.reduce((sum, value, t) => (mask[t] === 0 ? sum : sum + value), reward)
}

/**
 * Hands each group's rewards to `transform`, which gives as many values back. Null rewards are left out and stay null. A
 * group whose largest and smallest reward are equal gets exactly 0, and not by subtraction: eight rewards of 0.9 have a
 * mean that is not 0.9, and a difference of rounding over a standard deviation of rounding is an advantage.
 */
export function perGroup(
  rewards: readonly (number | null)[],
  groups: readonly number[],
  transform: (rewards: readonly number[]) => readonly number[],
): (number | null)[] {
  const values: (number | null)[] = rewards.map((reward) => (reward === null ? null : 0))
  for (const indices of membersOf(rewards, groups).values()) {
    const group = indices.map((index) => rewards[index]!)
    if (isConstant(group)) continue
    for (const [place, value] of transform(group).entries()) values[indices[place]!] = value
  }
  return values
}

/** Indices of each group's rewards that are not null. */
export function membersOf(
  rewards: readonly (number | null)[],
  groups: readonly number[],
): Map<number, number[]> {
  const members = new Map<number, number[]>()
  for (const [index, group] of groups.entries()) {
    if (rewards[index] === null) continue
    const indices = members.get(group)
    if (indices) indices.push(index)
    else members.set(group, [index])
  }
  return members
}

/** True for no values and for one. */
export function isConstant(values: readonly number[]): boolean {
  return values.every((value) => value === values[0])
}
