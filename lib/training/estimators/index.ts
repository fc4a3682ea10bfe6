import type { Config } from '../config.ts'
import { type Estimate, type EstimatorSettings, isConstant, membersOf, type Scored } from './estimator.ts'
import { gae } from './gae.ts'
import { grpo } from './grpo.ts'
import { reinforcePlusPlus } from './reinforce-plus-plus.ts'
import { reinforcePlusPlusBaseline } from './reinforce-plus-plus-baseline.ts'
import { rloo } from './rloo.ts'

export type { Advantage, Estimate, EstimatorSettings, Scored } from './estimator.ts'

const estimators = {
  grpo,
  rloo,
  reinforce_plus_plus: reinforcePlusPlus,
  reinforce_plus_plus_baseline: reinforcePlusPlusBaseline,
  gae,
}

/** Advantages by the estimator of the settings. */
export function estimate(
  scored: readonly Scored[],
  settings: EstimatorSettings & Pick<Config, 'estimator'>,
): Estimate {
  return estimators[settings.estimator](scored, settings)
}

/** Groups whose rewards are all equal: to an estimator that compares within groups they teach nothing. */
export function countConstantGroups(rewards: readonly (number | null)[], groups: readonly number[]): number {
  const members = [...membersOf(rewards, groups).values()]
  return members.filter((indices) => isConstant(indices.map((index) => rewards[index]!))).length
}
