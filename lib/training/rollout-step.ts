import type { RewardPart } from '../rewards/compose.ts'
import { type ComposedReward, compose } from '../rewards/compose.ts'
import type { RewardFunction } from '../rewards/reward.ts'
import { coverExactMatch, exactMatch, f1, formatReward } from '../rewards/rules.ts'
import { type Trajectory, type TrajectoryRecord, trajectoryRecord } from '../rollout/trajectory.ts'
import type { Config } from './config.ts'

/** One function, or several with weights. */
export type RewardOption = RewardFunction | readonly RewardPart[]

/** The reward of a run: the user's own, or (1 - λ_f)·answer + λ_f·format. Every part gets the run's time-out. */
export function createReward(config: Config, own?: RewardOption): ComposedReward {
  const timeout = config.rewardTimeout * 1000
  if (typeof own === 'function') return compose([{ reward: own, timeout }])
  if (own !== undefined) return compose(own.map((part) => ({ timeout, ...part })))
  const answer = { exactMatch, f1, coverExactMatch }[config.answerReward]
  return compose([
    { name: config.answerReward, reward: answer, weight: 1 - config.formatWeight, timeout },
    { name: 'format', reward: formatReward(config.format), weight: config.formatWeight, timeout },
  ])
}

/** A trajectory as it is written to trajectories.jsonl. */
export function trajectoryLine(
  trajectory: Trajectory,
  { step, reward, advantage }: { step: number; reward: number | null; advantage: number | null },
): TrajectoryRecord & { step: number; reward: number | null; advantage: number | null } {
  return { step, ...trajectoryRecord(trajectory), reward, advantage }
}
