/** Published algorithms as settings of the one trainer. Sources and deviations: the table in docs/method.md. */
import type { PartialConfig } from './config-parse.ts'

/**
 * Spread one into the options of `SSRLTrainer`, or name it with `ssrl train --algorithm`; what is given beside it wins.
 * Each sets what its source says beyond the defaults, which are SSRL's: GRPO with a token mean, a small KL and a
 * dual clip.
 */
export const algorithms = {
  ssrl: {},
  grpo: { dualClip: null, estimator: 'grpo', lossType: 'grpo' },
  dr_grpo: { dualClip: null, estimator: 'grpo', scaleRewards: 'none', lossType: 'dr_grpo', beta: 0 },
  bnpo: { dualClip: null, estimator: 'grpo', lossType: 'bnpo' },
  rloo: { dualClip: null, estimator: 'rloo', klPlacement: 'reward', klEstimator: 'k1' },
  reinforce_plus_plus: {
    dualClip: null,
    estimator: 'reinforce_plus_plus',
    klPlacement: 'reward',
    klEstimator: 'k1',
  },
  reinforce_plus_plus_baseline: {
    dualClip: null,
    estimator: 'reinforce_plus_plus_baseline',
    klEstimator: 'k2',
  },
  dapo: {
    dualClip: null,
    estimator: 'grpo',
    lossType: 'dapo',
    epsilonHigh: 0.28,
    dynamicSampling: true,
    beta: 0,
  },
  kl_cov: { estimator: 'grpo', lossType: 'dapo', klCovRatio: 2e-4, numMiniBatches: 8, beta: 0 },
  gspo: {
    estimator: 'grpo',
    lossType: 'grpo',
    importanceSamplingLevel: 'sequence',
    dualClip: null,
    epsilon: 3e-4,
    epsilonHigh: 4e-4,
    numMiniBatches: 4,
    beta: 0,
  },
  ppo: {
    dualClip: null,
    estimator: 'gae',
    critic: 'copy',
    numMiniBatches: 4,
    klPlacement: 'reward',
    klEstimator: 'k1',
  },
  ttrl: { estimator: 'grpo', answerReward: 'majorityVote' },
} as const satisfies Record<string, PartialConfig>

export type Algorithm = keyof typeof algorithms
