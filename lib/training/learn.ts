import { mean } from '../mean.ts'
import type { Policy } from '../policy/policy.ts'
import type { Trajectory } from '../rollout/trajectory.ts'
import type { Config } from './config.ts'
import { type Advantage, estimate } from './estimators/index.ts'
import { klRewards } from './kl.ts'
import { attachDriftWeights } from './kl-cov.ts'
import type { Learner, LossOptions } from './learner.ts'
import { type LossSequence, miniBatches, prepareSequences, type StepSequences } from './loss-batch.ts'
import { microBatches } from './micro-batches.ts'
import { type LearningStatistics, type PassStatistics, summarizePasses } from './step-record.ts'

/** Who takes part in an update: the policy that sampled, the frozen reference (where beta is above 0), the learner. */
export interface LearningModels {
  policy: Policy
  reference: Policy | null
  learner: Learner
}

/** The trajectories of one step with their rewards; null takes one out of everything. */
export interface ScoredTrajectories {
  trajectories: readonly Trajectory[]
  rewards: readonly (number | null)[]
}

/** What came of an update, beside what the record of the step says. */
export interface Learnt {
  /** One per trajectory; where tokens have advantages of their own, the mean over those that are learnt from. */
  advantages: (number | null)[]
  /** What was learnt from. */
  prepared: StepSequences
  statistics: LearningStatistics & { gradNorm: number }
}

/**
 * From rewards to new weights: picks and completes the sequences, estimates advantages, takes the optimizer steps. A
 * failure in the first of them leaves the weights as they were; with several, those before the failure stay.
 */
export async function learnFrom(
  { policy, reference, learner }: LearningModels,
  { trajectories, rewards }: ScoredTrajectories,
  settings: LearnSettings,
  learningRate: number,
): Promise<Learnt> {
  const prepared = prepareSequences(trajectories, rewards, settings)
  const inexactness = await attachOldLogProbs(policy, prepared.sequences, settings.temperature)
  if (reference) await attachReferenceLogProbs(reference, prepared.sequences, settings.temperature)
  const isReward = settings.beta > 0 && settings.klPlacement === 'reward'
  const kl = isReward ? moveKlToRewards(prepared, settings) : null
  const advantages = attachAdvantages({ trajectories, rewards }, prepared, settings)
  if (settings.klCovRatio !== null)
    attachDriftWeights(prepared.sequences, { ...settings, klCovRatio: settings.klCovRatio })
  const { passes, gradNorm } = await learn(learner, prepared, settings, learningRate)
  const summary = summarizePasses(passes)
  return {
    advantages,
    prepared,
    statistics: {
      ...summary,
      kl: kl ?? summary.kl,
      mismatch: Math.max(summary.mismatch, inexactness),
      gradNorm,
    },
  }
}

/** Makes KL a reward of tokens instead of a term of the loss; returns its mean over active tokens. */
function moveKlToRewards({ sequences, activeTokens }: StepSequences, settings: LearnSettings): number {
  let sum = 0
  for (const sequence of sequences) {
    sequence.tokenRewards = klRewards(sequence, settings)
    sequence.referenceLogProbs = undefined
    sum -= sequence.tokenRewards.reduce((total, reward) => total + reward, 0) / settings.beta
  }
  return sum / Math.max(activeTokens, 1)
}

const nothing = new Uint8Array(0)

/** Gives sequences their advantages, and returns one number a trajectory. */
function attachAdvantages(
  { trajectories, rewards }: ScoredTrajectories,
  { sequences }: StepSequences,
  settings: LearnSettings,
): (number | null)[] {
  const learntFrom = new Map(sequences.map((sequence) => [sequence.index, sequence]))
  const scored = trajectories.map(({ group }, index) => ({
    group,
    reward: rewards[index]!,
    mask: learntFrom.get(index)?.lossMask ?? nothing,
    tokenRewards: learntFrom.get(index)?.tokenRewards,
  }))
  const { advantages } = estimate(scored, settings)
  for (const sequence of sequences) sequence.advantage = advantages[sequence.index]!
  return advantages.map((advantage, index) => meanAdvantage(advantage, scored[index]!.mask))
}

function meanAdvantage(advantage: Advantage, mask: Uint8Array): number | null {
  if (advantage === null || typeof advantage === 'number') return advantage
  return mean(Array.from(advantage).filter((_, t) => mask[t] !== 0))
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
  | 'estimator'
  | 'scaleRewards'
  | 'advantageEpsilon'
  | 'lossType'
  | 'epsilon'
  | 'epsilonHigh'
  | 'dualClip'
  | 'importanceSamplingLevel'
  | 'klCovRatio'
  | 'klCovCoefficient'
  | 'beta'
  | 'klEstimator'
  | 'klPlacement'
  | 'temperature'
  | 'maxCompletionLength'
  | 'informationMask'
  | 'maskTruncatedCompletions'
  | 'numIterations'
  | 'numMiniBatches'
  | 'microBatchTokens'
>

/** `numIterations` passes over the sequences, each in `numMiniBatches` optimizer steps: their statistics, in order. */
async function learn(
  learner: Learner,
  { sequences }: StepSequences,
  settings: LearnSettings,
  learningRate: number,
): Promise<{ passes: PassStatistics[][]; gradNorm: number }> {
  const passes: PassStatistics[][] = []
  let gradNorm = 0
  const parts = miniBatches(sequences, settings)
  for (let pass = 0; pass < settings.numIterations; pass++) {
    for (const part of parts) {
      passes.push(await accumulate(learner, part, settings))
      gradNorm = (await learner.step({ learningRate })).gradNorm
    }
  }
  return { passes, gradNorm }
}

/**
 * The gradients of one optimizer step. Micro-batches share its denominator, so how they are cut does not change the
 * result. A failure drops all of them.
 */
async function accumulate(
  learner: Learner,
  { sequences, normalizer }: StepSequences,
  settings: LearnSettings,
): Promise<PassStatistics[]> {
  const loss = lossOptions(settings, normalizer)
  const statistics: PassStatistics[] = []
  try {
    for (const { start, end } of microBatches(sequences, settings.microBatchTokens)) {
      statistics.push(await learner.accumulate(toBatch(sequences.slice(start, end)), loss))
    }
    return statistics
  } catch (error) {
    await learner.zeroGradients()
    throw error
  }
}

function lossOptions(settings: LearnSettings, normalizer: number): LossOptions {
  return {
    type: settings.lossType,
    ...clipOptions(settings),
    importanceSamplingLevel: settings.importanceSamplingLevel,
    beta: settings.klPlacement === 'loss' ? settings.beta : 0,
    klEstimator: settings.klEstimator,
    temperature: settings.temperature,
    maxCompletionLength: settings.maxCompletionLength,
    normalizer,
  }
}

function clipOptions({ epsilon, epsilonHigh, dualClip, klCovRatio }: LearnSettings) {
  // KL-Cov does not clip: no ratio is below 0 or above this.
  if (klCovRatio !== null) return { epsilon: 1, epsilonHigh: 1e30 }
  return { epsilon, epsilonHigh: epsilonHigh ?? epsilon, ...(dualClip === null ? {} : { dualClip }) }
}

function toBatch(sequences: readonly LossSequence[]) {
  const hasDrift = sequences.every(({ driftWeights }) => driftWeights !== undefined)
  const hasReference = sequences.every(({ referenceLogProbs }) => referenceLogProbs !== undefined)
  return {
    tokens: sequences.map(({ tokens }) => tokens),
    lossMask: sequences.map(({ lossMask }) => lossMask),
    lossWeights: sequences.map(({ lossWeights }) => lossWeights),
    advantages: sequences.map(perToken),
    oldLogProbs: sequences.map(({ oldLogProbs }) => oldLogProbs),
    ...(hasDrift ? { driftWeights: sequences.map((sequence) => sequence.driftWeights!) } : {}),
    ...(hasReference ? { referenceLogProbs: sequences.map((sequence) => sequence.referenceLogProbs!) } : {}),
  }
}

const perToken = ({ advantage, lossMask }: LossSequence) =>
  typeof advantage === 'number' ? new Float32Array(lossMask.length).fill(advantage) : advantage
