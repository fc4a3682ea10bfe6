/** The rewards that come with the package: each is one `RewardFunction`. */
import { type FormatMode, formatScore } from '../rollout/format.ts'
import type { Trajectory } from '../rollout/trajectory.ts'
import { coverExactMatchScore, exactMatchScore, f1Score } from './answers.ts'
import { majorityAnswer } from './majority.ts'
import { normalizeAnswer } from './normalize.ts'
import type { RewardFunction } from './reward.ts'

type AnswerScore = (prediction: string, goldenAnswers: readonly string[]) => number

// A published metric gives points where both sides normalise to nothing; a policy must not be paid for silence.
function answerReward(trajectory: Trajectory, score: AnswerScore): number {
  const prediction = trajectory.prediction ?? ''
  if (normalizeAnswer(prediction) === '') return 0
  return score(
    prediction,
    trajectory.goldenAnswers.filter((golden) => normalizeAnswer(golden) !== ''),
  )
}

/** 1 when the answer equals a golden one after normalisation, else 0. An empty or missing answer scores 0. */
export const exactMatch: RewardFunction = (trajectories) =>
  trajectories.map((trajectory) => answerReward(trajectory, exactMatchScore))

/** Token F1 of the answer in [0, 1]. An empty or missing answer scores 0. */
export const f1: RewardFunction = (trajectories) =>
  trajectories.map((trajectory) => answerReward(trajectory, f1Score))

/** 1 when the answer contains a golden one after normalisation, else 0. An empty or missing answer scores 0. */
export const coverExactMatch: RewardFunction = (trajectories) =>
  trajectories.map((trajectory) => answerReward(trajectory, coverExactMatchScore))

/** The strict format score in [0, 1]. */
export const format: RewardFunction = (trajectories) =>
  trajectories.map((trajectory) => formatScore(trajectory.text, 'strict'))

/** The format score by the rule of `mode`, in [0, 1]. */
export function formatReward(mode: FormatMode): RewardFunction {
  const reward: RewardFunction = (trajectories) =>
    trajectories.map((trajectory) => formatScore(trajectory.text, mode))
  return reward
}

/**
 * Test-time RL without labels: the majority of a group's normalised answers is taken as the label; 1 for trajectories
 * that gave it, else 0. A group without any answer scores 0 throughout.
 */
export const majorityVote: RewardFunction = (trajectories) => {
  const groups = new Map<number, Trajectory[]>()
  for (const trajectory of trajectories) {
    const group = groups.get(trajectory.group)
    if (group) group.push(trajectory)
    else groups.set(trajectory.group, [trajectory])
  }
  const labels = new Map<number, string | null>()
  for (const [group, members] of groups) {
    labels.set(group, majorityAnswer(members.map((member) => member.prediction ?? '')))
  }
  return trajectories.map((trajectory) => {
    const label = labels.get(trajectory.group) ?? null
    return label !== null && normalizeAnswer(trajectory.prediction ?? '') === label ? 1 : 0
  })
}
