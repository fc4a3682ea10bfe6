/** What a trajectory is worth. */
import { choice, flag, integer, number, optional } from './kinds.ts'
import { ssrl } from './setting.ts'

export const rewardSettings = {
  answerReward: ssrl(
    choice('exactMatch', 'f1', 'coverExactMatch', 'majorityVote'),
    'exactMatch',
    "Score of the answer; majorityVote needs no golden answers: the majority of the group's answers is the label (TTRL)",
  ),
  format: ssrl(
    choice('strict', 'reference'),
    'strict',
    'Format score: the strict grammar, or the table of the SSRL reference with its exploits',
  ),
  formatWeight: ssrl(number({ min: 0, max: 1 }), 0.1, 'λ_f: reward = (1 - λ_f)·answer + λ_f·format'),
  overlongBuffer: ssrl(
    optional(integer({ min: 1 })),
    null,
    'Tokens before maxCompletionLength over which the reward falls by up to 1 (DAPO: 4096 of 20480); null: no penalty',
    { trl: 'a reward function of its own there' },
  ),
  dynamicSampling: ssrl(
    flag(),
    false,
    'Drop questions whose rewards are all equal and sample new ones until promptsPerStep are left (DAPO)',
    { trl: 'no such setting in TRL' },
  ),
  maxGenerationBatches: ssrl(
    integer({ min: 1 }),
    10,
    'Batches that dynamicSampling samples for one step at most; it then learns from what there is',
    { trl: 'no such setting in TRL' },
  ),
  rewardTimeout: ssrl(number({ above: 0 }), 60, "Seconds that a user's reward function may take", {
    free: true,
  }),
} as const
