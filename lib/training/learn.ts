import {
  type CompletionSettings,
  completeSequences,
  type ScoredTrajectories,
  type Witnesses,
} from './complete-sequences.ts'
import type { Config } from './config.ts'
import { type CriticStatistics, explainedVariance, toValueBatch, valueOptions } from './critic.ts'
import type { Learner, LossOptions, LossStatistics } from './learner.ts'
import { type LossSequence, miniBatches, type StepSequences } from './loss-batch.ts'
import { microBatches } from './micro-batches.ts'
import { type LearningStatistics, summarizePasses } from './step-record.ts'

/** Who takes part in an update. */
export interface LearningModels extends Witnesses {
  learner: Learner
}

/** What came of an update, beside what the record of the step says. */
export interface Learnt {
  /** One per trajectory; where tokens have advantages of their own, the mean over those that are learnt from. */
  advantages: (number | null)[]
  /** What was learnt from. */
  prepared: StepSequences
  statistics: LearningStatistics & { gradNorm: number; critic?: CriticStatistics }
}

export interface LearnRates {
  learningRate: number
  /** Only the critic learns. */
  isWarmUp?: boolean
}

/**
 * From rewards to new weights: picks and completes the sequences, estimates advantages, takes the optimizer steps. A
 * failure in the first of them leaves the weights as they were; with several, those before the failure stay.
 */
export async function learnFrom(
  models: LearningModels,
  scored: ScoredTrajectories,
  settings: LearnSettings,
  rates: LearnRates,
): Promise<Learnt> {
  const { prepared, advantages, kl, inexactness } = await completeSequences(models, scored, settings)
  const { passes, gradNorm, values } = await learn(models, prepared, settings, rates)
  const summary = summarizePasses(passes)
  return {
    advantages,
    prepared,
    statistics: {
      ...summary,
      kl: kl ?? summary.kl,
      mismatch: Math.max(summary.mismatch, inexactness),
      gradNorm,
      ...(models.critic ? { critic: summarizeValues(values, explainedVariance(prepared.sequences)) } : {}),
    },
  }
}

export type LearnSettings = CompletionSettings &
  Pick<
    Config,
    | 'epsilon'
    | 'epsilonHigh'
    | 'dualClip'
    | 'importanceSamplingLevel'
    | 'numIterations'
    | 'numMiniBatches'
    | 'microBatchTokens'
    | 'learningRate'
    | 'criticLearningRate'
    | 'valueClip'
    | 'valueCoefficient'
  >

interface Passes {
  /** Statistics of the policy's optimizer steps, by micro-batch. */
  passes: LossStatistics[][]
  gradNorm: number
  /** The same of the critic's, each with its norm. */
  values: { batches: LossStatistics[]; gradNorm: number }[]
}

/** `numIterations` passes over the sequences, each in `numMiniBatches` optimizer steps. */
async function learn(
  models: LearningModels,
  { sequences }: StepSequences,
  settings: LearnSettings,
  { learningRate, isWarmUp = false }: LearnRates,
): Promise<Passes> {
  const result: Passes = { passes: [], gradNorm: 0, values: [] }
  const criticRate = (settings.criticLearningRate * learningRate) / settings.learningRate
  const takeStep = models.critic?.isShared && !isWarmUp ? stepTogether : stepApart
  const parts = miniBatches(sequences, settings)
  for (let pass = 0; pass < settings.numIterations; pass++) {
    for (const part of parts) {
      await takeStep(models, part, settings, { learningRate, criticRate, isWarmUp, result })
    }
  }
  return result
}

interface StepRates {
  learningRate: number
  criticRate: number
  isWarmUp: boolean
  /** Added to. */
  result: Passes
}

/** Policy and critic have a trunk, a gradient and a step in common. */
async function stepTogether(
  { learner }: LearningModels,
  part: StepSequences,
  settings: LearnSettings,
  { learningRate, criticRate, result }: StepRates,
): Promise<void> {
  const batches = await accumulate(learner, part, settings, true)
  const { gradNorm } = await learner.step({ learningRate, valueHeadLearningRate: criticRate })
  result.gradNorm = gradNorm
  result.passes.push(batches)
  // What the step minimised had the coefficient in it.
  const scale = (batch: LossStatistics) => batch.valueLoss / settings.valueCoefficient
  result.values.push({ batches: batches.map((batch) => ({ ...batch, valueLoss: scale(batch) })), gradNorm })
}

/** All gradients come before the first step, so that what fails leaves both models as they were. */
async function stepApart(
  { learner, critic }: LearningModels,
  part: StepSequences,
  settings: LearnSettings,
  { learningRate, criticRate, isWarmUp, result }: StepRates,
): Promise<void> {
  const values = critic ? await critic.accumulate(part.sequences, settings) : null
  try {
    if (!isWarmUp) {
      const batches = await accumulate(learner, part, settings, false)
      result.gradNorm = (await learner.step({ learningRate })).gradNorm
      result.passes.push(batches)
    }
  } catch (error) {
    await critic?.learner.zeroGradients()
    throw error
  }
  if (critic && values) result.values.push({ batches: values, gradNorm: await critic.step(criticRate) })
}

/**
 * The gradients of one optimizer step. Micro-batches share its denominator, so how they are cut does not change the
 * result. A failure drops all of them.
 */
async function accumulate(
  learner: Learner,
  { sequences, normalizer }: StepSequences,
  settings: LearnSettings,
  withValues: boolean,
): Promise<LossStatistics[]> {
  const loss = { ...lossOptions(settings, normalizer), ...(withValues ? valueOptions(settings) : {}) }
  const statistics: LossStatistics[] = []
  try {
    for (const { start, end } of microBatches(sequences, settings.microBatchTokens)) {
      const part = sequences.slice(start, end)
      const batch = { ...toBatch(part), ...(withValues ? toValueBatch(part) : {}) }
      statistics.push(await learner.accumulate(batch, loss))
    }
    return statistics
  } catch (error) {
    await learner.zeroGradients()
    throw error
  }
}

function summarizeValues(steps: Passes['values'], explained: number): CriticStatistics {
  const batches = steps.flatMap((step) => step.batches)
  const tokens = batches.reduce((sum, batch) => sum + batch.tokens, 0)
  const clipped = batches.reduce((sum, batch) => sum + batch.valueClip * batch.tokens, 0)
  return {
    loss: batches.reduce((sum, batch) => sum + batch.valueLoss, 0) / Math.max(steps.length, 1),
    clip: clipped / Math.max(tokens, 1),
    explainedVariance: explained,
    gradNorm: steps.at(-1)?.gradNorm ?? 0,
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
