import { SsrlError } from '../errors.ts'
import { mean } from '../mean.ts'
import type { RewardPart } from '../rewards/compose.ts'
import { type ComposedReward, compose } from '../rewards/compose.ts'
import type { RewardFunction } from '../rewards/reward.ts'
import { coverExactMatch, exactMatch, f1, formatReward, majorityVote } from '../rewards/rules.ts'
import { type Trajectory, type TrajectoryRecord, trajectoryRecord } from '../rollout/trajectory.ts'
import type { Config } from './config.ts'

/** One function, or several with weights. */
export type RewardOption = RewardFunction | readonly RewardPart[]

/** The reward of a run: the user's own, or (1 - λ_f)·answer + λ_f·format. Every part gets the run's time-out. */
export function createReward(config: Config, own?: RewardOption): ComposedReward {
  const timeout = config.rewardTimeout * 1000
  if (typeof own === 'function') return compose([{ reward: own, timeout }])
  if (own !== undefined && !Array.isArray(own)) {
    throw new SsrlError(
      'ERR_INVALID_CONFIG',
      `Expected a function or a list of rewards but received ${typeof own}`,
    )
  }
  if (own !== undefined) return compose((own as readonly RewardPart[]).map((part) => ({ timeout, ...part })))
  const answer = { exactMatch, f1, coverExactMatch, majorityVote }[config.answerReward]
  return compose([
    { name: config.answerReward, reward: answer, weight: 1 - config.formatWeight, timeout },
    { name: 'format', reward: formatReward(config.format), weight: config.formatWeight, timeout },
  ])
}

/** A line of trajectories.jsonl. */
export interface TrajectoryLine extends TrajectoryRecord {
  step: number
  reward: number | null
  advantage: number | null
}

/** The lines of one step for trajectories.jsonl; none for steps that are not logged. */
export function trajectoryLines(
  trajectories: readonly Trajectory[],
  scores: { step: number; rewards: readonly (number | null)[]; advantages: readonly (number | null)[] },
  { logTrajectories }: Pick<Config, 'logTrajectories'>,
): TrajectoryLine[] {
  const { step, rewards, advantages } = scores
  if (logTrajectories === 0 || step % logTrajectories !== 0) return []
  return trajectories.map((trajectory, index) => ({
    step,
    ...trajectoryRecord(trajectory),
    reward: rewards[index]!,
    advantage: advantages[index]!,
  }))
}

export const groupsOf = (trajectories: readonly Trajectory[]) => trajectories.map(({ group }) => group)

/** Over trajectories whose question has golden answers; null without any. */
export async function meanExactMatch(trajectories: readonly Trajectory[]): Promise<number | null> {
  const known = trajectories.filter(({ goldenAnswers }) => goldenAnswers.length > 0)
  if (known.length === 0) return null
  return mean((await exactMatch(known, { signal: new AbortController().signal })) as number[])
}
