import { lossWeights } from '../rollout/mask.ts'
import type { Trajectory } from '../rollout/trajectory.ts'
import type { Config } from './config.ts'

/** One sequence as the learner takes it: T tokens, per-token arrays of T - 1 values. */
export interface LossSequence {
  tokens: Int32Array
  lossMask: Uint8Array
  lossWeights: Float32Array
  advantage: number
  oldLogProbs: Float32Array
  /** Log-probs of the frozen reference, where beta is above 0. */
  referenceLogProbs?: Float32Array
  /** The trajectory that it came from. */
  trajectory: Trajectory
}

/** What one optimizer step learns from. */
export interface StepSequences {
  sequences: LossSequence[]
  /** The loss's denominator over the whole optimizer step: micro-batches don't change it. */
  normalizer: number
  /** Tokens with a weight above 0. */
  activeTokens: number
}

type LossSettings = Pick<
  Config,
  'informationMask' | 'lossType' | 'maskTruncatedCompletions' | 'maxCompletionLength'
>

/**
 * Picks what is learnt from: trajectories with an advantage (a null reward has none) and at least one active token;
 * truncated ones only where they are not masked.
 */
export function prepareSequences(
  trajectories: readonly Trajectory[],
  advantages: readonly (number | null)[],
  settings: LossSettings,
): StepSequences {
  const sequences: LossSequence[] = []
  for (const [index, trajectory] of trajectories.entries()) {
    const advantage = advantages[index] ?? null
    if (advantage === null) continue
    if (settings.maskTruncatedCompletions && trajectory.finishReason === 'length') continue
    const weights = lossWeights(trajectory, settings.informationMask)
    const mask = Uint8Array.from(weights, (weight) => (weight > 0 ? 1 : 0))
    if (!mask.includes(1)) continue
    const { tokens, logProbs } = trajectory
    sequences.push({
      tokens,
      lossMask: mask,
      lossWeights: weights,
      advantage,
      oldLogProbs: logProbs,
      trajectory,
    })
  }
  return { sequences, ...denominators(sequences, settings) }
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
