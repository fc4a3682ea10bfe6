import type { Policy } from '../policy/policy.ts'
import type { Config } from './config.ts'
import type { Learner, LossOptions } from './learner.ts'
import type { LossSequence, StepSequences } from './loss-batch.ts'
import { microBatches } from './micro-batches.ts'
import { type PassStatistics, summarizePasses } from './step-record.ts'

/** Who takes part in an update: the policy that sampled, the frozen reference (where beta is above 0), the learner. */
export interface LearningModels {
  policy: Policy
  reference: Policy | null
  learner: Learner
}

/**
 * Completes the sequences with old and reference log-probs, learns from them and sums up. A failure in the first pass
 * leaves the weights as they were; with several passes, those before the failure stay.
 */
export async function learnFrom(
  { policy, reference, learner }: LearningModels,
  prepared: StepSequences,
  settings: LearnSettings,
  learningRate: number,
) {
  const inexactness = await attachOldLogProbs(policy, prepared.sequences, settings.temperature)
  if (reference) await attachReferenceLogProbs(reference, prepared.sequences, settings.temperature)
  const { passes, gradNorm } = await learn(learner, prepared, settings, learningRate)
  const summary = summarizePasses(passes)
  return { ...summary, mismatch: Math.max(summary.mismatch, inexactness), gradNorm }
}

/**
 * Gives sequences the old log-probs that the ratio needs. Where the machine is exact they are the sampler's; else a
 * second forward pass computes them, and the largest difference from the sampler's is returned.
 */
async function attachOldLogProbs(
  policy: Policy,
  sequences: LossSequence[],
  temperature: number,
): Promise<number> {
  if (policy.exact || sequences.length === 0) return 0
  const scores = await policy.score(
    sequences.map(({ tokens }) => tokens),
    { temperature },
  )
  let mismatch = 0
  for (const [index, sequence] of sequences.entries()) {
    const scored = scores[index]!.logProbs
    for (const [position, active] of sequence.lossMask.entries()) {
      if (active) mismatch = Math.max(mismatch, Math.abs(scored[position]! - sequence.oldLogProbs[position]!))
    }
    sequence.oldLogProbs = scored
  }
  return mismatch
}

/** Gives sequences the log-probs of the frozen reference, for the KL term. */
async function attachReferenceLogProbs(
  reference: Policy,
  sequences: LossSequence[],
  temperature: number,
): Promise<void> {
  if (sequences.length === 0) return
  const scores = await reference.score(
    sequences.map(({ tokens }) => tokens),
    { temperature },
  )
  for (const [index, sequence] of sequences.entries()) sequence.referenceLogProbs = scores[index]!.logProbs
}

export type LearnSettings = Pick<
  Config,
  | 'lossType'
  | 'epsilon'
  | 'epsilonHigh'
  | 'dualClip'
  | 'beta'
  | 'temperature'
  | 'maxCompletionLength'
  | 'numIterations'
  | 'microBatchTokens'
>

/**
 * `numIterations` passes over the sequences, one optimizer step each. Micro-batches share the step's denominator, so
 * how they are cut does not change the result. A pass that fails updates nothing; its gradients are dropped.
 */
async function learn(
  learner: Learner,
  { sequences, normalizer }: StepSequences,
  settings: LearnSettings,
  learningRate: number,
): Promise<{ passes: PassStatistics[][]; gradNorm: number }> {
  const passes: PassStatistics[][] = []
  let gradNorm = 0
  if (sequences.length === 0) return { passes, gradNorm }
  const loss = lossOptions(settings, normalizer)
  const batches = microBatches(sequences, settings.microBatchTokens)
  for (let pass = 0; pass < settings.numIterations; pass++) {
    try {
      const statistics: PassStatistics[] = []
      for (const { start, end } of batches) {
        statistics.push(await learner.accumulate(toBatch(sequences.slice(start, end)), loss))
      }
      gradNorm = (await learner.step({ learningRate })).gradNorm
      passes.push(statistics)
    } catch (error) {
      await learner.zeroGradients()
      throw error
    }
  }
  return { passes, gradNorm }
}

function lossOptions(settings: LearnSettings, normalizer: number): LossOptions {
  return {
    type: settings.lossType,
    epsilon: settings.epsilon,
    epsilonHigh: settings.epsilonHigh ?? settings.epsilon,
    ...(settings.dualClip === null ? {} : { dualClip: settings.dualClip }),
    beta: settings.beta,
    temperature: settings.temperature,
    maxCompletionLength: settings.maxCompletionLength,
    normalizer,
  }
}

function toBatch(sequences: readonly LossSequence[]) {
  const hasReference = sequences.every(({ referenceLogProbs }) => referenceLogProbs !== undefined)
  return {
    tokens: sequences.map(({ tokens }) => tokens),
    lossMask: sequences.map(({ lossMask }) => lossMask),
    lossWeights: sequences.map(({ lossWeights }) => lossWeights),
    advantages: Float32Array.from(sequences, ({ advantage }) => advantage),
    oldLogProbs: sequences.map(({ oldLogProbs }) => oldLogProbs),
    ...(hasReference ? { referenceLogProbs: sequences.map((sequence) => sequence.referenceLogProbs!) } : {}),
  }
}
