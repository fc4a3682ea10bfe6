/** The policy loss and which tokens are in it. */
import { choice, flag, informationMask, integer, number, optional } from './kinds.ts'
import { ssrl } from './setting.ts'

export const lossSettings = {
  lossType: ssrl(
    choice('dapo', 'bnpo', 'grpo', 'dr_grpo'),
    'dapo',
    "dapo: mean over all active tokens of the step (SSRL's token mean; bnpo is an alias, since the mean is global here); grpo: per sequence, then over sequences; dr_grpo: sum / (sequences · maxCompletionLength)",
  ),
  beta: ssrl(
    number({ min: 0 }),
    0.001,
    'Weight of the KL against the frozen reference; 0 makes no reference',
    { trl: 'TRL: 0; SSRL: 0.001' },
  ),
  klEstimator: ssrl(
    choice('k1', 'k2', 'k3'),
    'k3',
    'Estimate of that KL from one token, d = log p_ref - log p: k1 = -d, k2 = d²/2, k3 = e^d - d - 1',
    { trl: 'kl_estimator of its PPO' },
  ),
  klPlacement: ssrl(
    choice('loss', 'reward'),
    'loss',
    'Where the KL goes: a term of the loss, or -beta·KL as a reward of each token',
    { trl: 'a trainer decides' },
  ),
  epsilon: ssrl(number({ above: 0, below: 1 }), 0.2, 'Clip range below 1'),
  epsilonHigh: ssrl(
    optional(number({ above: 0 })),
    null,
    'Clip range above 1; null: the same as epsilon (DAPO: 0.28)',
  ),
  dualClip: ssrl(
    optional(number({ above: 1 })),
    3,
    'Bound c of the ratio for negative advantages; null: none',
    { trl: 'TRL: none (delta); SSRL: 3' },
  ),
  importanceSamplingLevel: ssrl(
    choice('token', 'sequence'),
    'token',
    'A ratio for each token, or one for all tokens of a trajectory: the exponential of their mean log-ratio (GSPO, with epsilon 3e-4 and epsilonHigh 4e-4)',
  ),
  klCovRatio: ssrl(
    optional(number({ above: 0, max: 1 })),
    null,
    'KL-Cov instead of clipping: the share of tokens, those of the largest covariance of log-prob and advantage, that are held near where they were (2e-4); null: clipping',
    { trl: 'no such setting in TRL' },
  ),
  klCovCoefficient: ssrl(number({ above: 0 }), 1, 'Weight of |log p - log p_old| at those tokens', {
    trl: 'no such setting in TRL',
  }),
  numIterations: ssrl(
    integer({ min: 1 }),
    1,
    'Passes over each batch of trajectories (μ); at 1, with one mini-batch, the ratio is exactly 1 and clipping never acts',
  ),
  numMiniBatches: ssrl(
    integer({ min: 1 }),
    1,
    'Optimizer steps per pass, each on a share of the questions; from the second on the ratio leaves 1',
    { trl: 'num_mini_batches of its PPO' },
  ),
  informationMask: ssrl(
    informationMask(),
    'information',
    'Which tokens stay out of the loss: information blocks that answer a search, all of them, none; or the weight they get',
    {
      trl: 'no such setting in TRL',
    },
  ),
  maskTruncatedCompletions: ssrl(flag(), false, 'Keep completions that hit the length limit out of the loss'),
} as const
