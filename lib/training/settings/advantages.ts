/** From rewards to advantages, the critic among them. */
import { choice, integer, number, optional } from './kinds.ts'
import { ssrl } from './setting.ts'

export const advantageSettings = {
  estimator: ssrl(
    choice('grpo', 'rloo', 'reinforce_plus_plus', 'reinforce_plus_plus_baseline', 'gae'),
    'grpo',
    'Baseline and scale of advantages: the group (grpo), the others of the group (rloo), the batch (reinforce_plus_plus), group and batch (reinforce_plus_plus_baseline), a learned critic (gae: PPO)',
    { trl: 'TRL has a trainer for each' },
  ),
  scaleRewards: ssrl(
    choice('group', 'batch', 'none'),
    'group',
    'Of grpo: divide advantages by the standard deviation of the group, of the batch, or not at all',
  ),
  advantageEpsilon: ssrl(number({ above: 0 }), 1e-6, 'Added to that standard deviation', {
    trl: 'TRL: 1e-4; SSRL: 1e-6',
  }),

  critic: ssrl(
    choice('copy', 'shared'),
    'copy',
    "Of gae: a value head on a copy of the policy that learns beside it, or on the policy's own trunk",
    { trl: 'its PPO takes a value model' },
  ),
  gamma: ssrl(number({ above: 0, max: 1 }), 1, 'Of gae: discount γ of a later reward, by token'),
  gaeLambda: ssrl(number({ min: 0, max: 1 }), 1, 'Of gae: λ; 1 is the return itself', {
    trl: 'lam of its PPO: 0.95',
  }),
  criticLearningRate: ssrl(
    number({ above: 0 }),
    1e-5,
    'Peak learning rate of the critic (with a shared trunk, of its head); falls as learningRate does',
    { trl: 'no such setting in TRL' },
  ),
  criticWarmupSteps: ssrl(integer({ min: 0 }), 0, 'First steps in which the critic alone learns', {
    trl: 'no such setting in TRL',
  }),
  valueClip: ssrl(
    optional(number({ above: 0 })),
    0.5,
    'How far a value may move from that of sampling before its gradient ends; null: any distance',
    { trl: 'cliprange_value of its PPO: 0.2' },
  ),
  valueCoefficient: ssrl(
    number({ above: 0 }),
    0.1,
    "Weight of the value loss beside the policy's on a shared trunk",
    { trl: 'vf_coef of its PPO' },
  ),
} as const
