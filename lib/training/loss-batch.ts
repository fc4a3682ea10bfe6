import { lossWeights } from '../rollout/mask.ts'
import type { Trajectory } from '../rollout/trajectory.ts'
import type { Config } from './config.ts'
import type { Advantage } from './estimators/index.ts'

/** One sequence as the learner takes it: T tokens, per-token arrays of T - 1 values. */
export interface LossSequence {
  tokens: Int32Array
  lossMask: Uint8Array
  lossWeights: Float32Array
  /** Of the trajectory, or of each token. */
  advantage: NonNullable<Advantage>
  oldLogProbs: Float32Array
  /** Log-probs of the frozen reference, where beta is above 0. */
  referenceLogProbs?: Float32Array | undefined
  /** Weights of |log p - log p_old|, with KL-Cov. */
  driftWeights?: Float32Array
  /** The critic's values of the states that tokens were sampled from, and what they should be. */
  values?: Float32Array
  returns?: Float32Array | undefined
  /** Rewards of single tokens, where there are any. */
  tokenRewards?: Float32Array
  /** The trajectory that it came from, and its index in the step. */
  trajectory: Trajectory
  index: number
}

/** What one optimizer step learns from. */
export interface StepSequences {
  sequences: LossSequence[]
  /** The loss's denominator over the whole optimizer step: micro-batches don't change it. */
  normalizer: number
  /** Tokens with a weight above 0. */
  activeTokens: number
}

export type LossSettings = Pick<
  Config,
  'informationMask' | 'lossType' | 'maskTruncatedCompletions' | 'maxCompletionLength'
>

/**
 * Picks what is learnt from: trajectories with a reward that is not null and at least one active token; truncated ones
 * only where they are not masked. Their advantages are still 0.
 */
export function prepareSequences(
  trajectories: readonly Trajectory[],
  rewards: readonly (number | null)[],
  settings: LossSettings,
): StepSequences {
  const sequences: LossSequence[] = []
  for (const [index, trajectory] of trajectories.entries()) {
    if ((rewards[index] ?? null) === null) continue
    if (settings.maskTruncatedCompletions && trajectory.finishReason === 'length') continue
    const weights = lossWeights(trajectory, settings.informationMask)
    const mask = Uint8Array.from(weights, (weight) => (weight > 0 ? 1 : 0))
    if (!mask.includes(1)) continue
    const { tokens, logProbs } = trajectory
    sequences.push({
      tokens,
      lossMask: mask,
      lossWeights: weights,
      advantage: 0,
      oldLogProbs: logProbs,
      trajectory,
      index,
    })
  }
  return { sequences, ...denominators(sequences, settings) }
}

/**
 * The sequences of each optimizer step, with a denominator of its own: whole questions, in order, as evenly as they go.
 * A step that is left without sequences falls away.
 */
export function miniBatches(
  sequences: readonly LossSequence[],
  settings: LossSettings & Pick<Config, 'numMiniBatches'>,
): StepSequences[] {
  const groups = [...new Set(sequences.map(({ trajectory }) => trajectory.group))]
  const partOf = new Map(
    groups.map((group, place) => [group, Math.floor((place * settings.numMiniBatches) / groups.length)]),
  )
  const parts = Array.from({ length: settings.numMiniBatches }, (_, part) =>
    sequences.filter(({ trajectory }) => partOf.get(trajectory.group) === part),
  )
  return parts
    .filter((part) => part.length > 0)
    .map((part) => ({ sequences: part, ...denominators(part, settings) }))
}

/**
 * `dapo` and `bnpo`: the sum of all weights of the step, so that the loss is a mean over tokens; `grpo`: the number of
 * sequences, each of which is a mean over its own tokens; `dr_grpo`: sequences · maxCompletionLength.
 */
function denominators(sequences: readonly LossSequence[], settings: LossSettings) {
  let weightSum = 0
  let activeTokens = 0
  for (const { lossWeights: weights } of sequences) {
    for (const weight of weights) {
      weightSum += weight
      if (weight > 0) activeTokens += 1
    }
  }
  const normalizer = {
    dapo: weightSum,
    bnpo: weightSum,
    grpo: sequences.length,
    dr_grpo: sequences.length * settings.maxCompletionLength,
  }[settings.lossType]
  return { normalizer: Math.max(normalizer, Number.MIN_VALUE), activeTokens }
}
