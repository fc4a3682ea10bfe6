import type { NativeLearnerBatch, NativeLossOptions } from '../native.ts'
import { checkFields, invalid, numberOption } from './arguments.ts'
import { Flattener, readSequences } from './flattener.ts'

/** A micro-batch of B sequences. Per-token arrays of a sequence of T tokens have T - 1 values: index t belongs to token t + 1. */
export interface LearnerBatch {
  /** B sequences of 1 token to the model's context. */
  tokens: Int32Array[]
  /** Which tokens enter the loss: not 0. */
  lossMask: Uint8Array[]
  /** Factors of the tokens' losses, at least 0; 1 without. */
  lossWeights?: Float32Array[]
  /** One a sequence, or one a token. Not looked at for `sft`. */
  advantages?: Float32Array | Float32Array[]
  /** Log-probs under the policy that sampled the tokens; without them the ratio is 1. Not looked at for `sft`. */
  oldLogProbs?: Float32Array[]
  /** Log-probs under the frozen reference, for the KL term; looked at where beta is not 0. */
  referenceLogProbs?: Float32Array[]
  /** Weights of |log p - log p_old| in each token's loss (KL-Cov); needs oldLogProbs. Not looked at for `sft`. */
  driftWeights?: Float32Array[]
  /** What the value of the state before each token should be; the learner needs a value head. */
  returns?: Float32Array[]
  /** The values that `valueClip` counts from. */
  oldValues?: Float32Array[]
}

export type KlEstimator = 'k1' | 'k2' | 'k3'
export type LossType = 'sft' | 'grpo' | 'bnpo' | 'dapo' | 'dr_grpo' | 'value'

/** Whether each token has a ratio of its own, or all tokens of a sequence the exponential of their mean log-ratio. */
export type ImportanceSamplingLevel = 'token' | 'sequence'

/**
 * What is minimised: the sum over active tokens of weight · (loss of the token) / normalizer.
 *
 * The loss of a token is -log p for `sft`. Else it is max(-A·r, -A·clip(r, 1 - epsilon, 1 + epsilonHigh)) with r =
 * p / p_old (PPO, Schulman et al. 2017), for A < 0 at most -A·dualClip (Ye et al. 2020), plus beta · KL, by d =
 * log p_ref - log p: k1 = -d, k2 = d² / 2, k3 = e^d - d - 1 (Schulman 2020). p is that of softmax(logits / temperature).
 * With `importanceSamplingLevel: 'sequence'` r is exp(mean of log p - log p_old over the sequence), tokens weighted as in
 * the loss (GSPO, arXiv 2507.18071, eq. 7).
 *
 * | type | weight of a token | default normalizer |
 * |---|---|---|
 * | `grpo` | its loss weight / sum of the loss weights of its sequence | number of sequences |
 * | `sft`, `bnpo`, `dapo`, `value` | its loss weight | sum of all loss weights (the number of active tokens where they are 1) |
 * | `dr_grpo` | its loss weight | number of sequences · maxCompletionLength |
 *
 * With `returns` R in the batch valueCoefficient · ½ max((v - R)², (clip(v, v_old - c, v_old + c) - R)²) is added, v being
 * the value head's and c `valueClip`; `value` is that alone.
 *
 * A step of several micro-batches passes the normalizer of the whole step; then how it is cut changes nothing.
 */
export interface LossOptions {
  type: LossType
  /** Lower clip, 0.2 by default. */
  epsilon?: number
  /** Upper clip; `epsilon` by default. */
  epsilonHigh?: number
  /** Above 1; none by default. */
  dualClip?: number
  /** Weight of the KL term, 0 by default. */
  beta?: number
  /** Estimate of the KL in it; `'k3'` by default. The gradient of `'k1'` is 0 on average. */
  klEstimator?: KlEstimator
  /** `'token'` by default. */
  importanceSamplingLevel?: ImportanceSamplingLevel
  /** That of the sampling, 1 by default; above 0. */
  temperature?: number
  /** How far a value may move from the old one; any distance by default. */
  valueClip?: number
  /** Weight of the value loss beside the policy's; 1 by default. */
  valueCoefficient?: number
  /** True: the value loss trains the value head alone. */
  detachValue?: boolean
  /** In tokens; `dr_grpo` needs it unless `normalizer` is given. */
  maxCompletionLength?: number
  /** The denominator, above 0; that of this batch alone by default. */
  normalizer?: number
}

const lossTypes: readonly LossType[] = ['sft', 'grpo', 'bnpo', 'dapo', 'dr_grpo', 'value']
const batchFields = [
  'tokens',
  'lossMask',
  'lossWeights',
  'advantages',
  'oldLogProbs',
  'referenceLogProbs',
  'driftWeights',
  'returns',
  'oldValues',
]
const lossFields = [
  'type',
  'epsilon',
  'epsilonHigh',
  'dualClip',
  'beta',
  'klEstimator',
  'importanceSamplingLevel',
  'valueClip',
  'valueCoefficient',
  'detachValue',
  'temperature',
  'maxCompletionLength',
  'normalizer',
]

/**
 * Checks a batch and its loss, and lays them out for the addon: flat arrays, with masks, weights and the normalizer in one.
 * @throws SsrlError ERR_INVALID_ARG
 */
export function toNative(
  batch: LearnerBatch,
  loss: LossOptions,
): { batch: NativeLearnerBatch; loss: NativeLossOptions } {
  checkFields('the batch', batch, batchFields)
  const nativeLoss = readLoss(loss)
  const { beta } = nativeLoss
  const isPolicy = nativeLoss.type === 'policy-gradient'
  requireFields(batch, nativeLoss)
  const flat = new Flattener(readSequences(batch.tokens))
  const weights = readWeights(flat, batch)
  applyNormalizer(flat, weights, loss)
  const perToken = (name: 'oldLogProbs' | 'referenceLogProbs' | 'driftWeights' | 'returns' | 'oldValues') =>
    batch[name] === undefined ? null : flat.join(name, batch[name], weights)
  return {
    batch: {
      ...flat.tokens(),
      weights,
      advantages: isPolicy ? readAdvantages(flat, batch.advantages) : null,
      oldLogProbs: isPolicy ? perToken('oldLogProbs') : null,
      referenceLogProbs: beta === 0 ? null : perToken('referenceLogProbs'),
      driftWeights: isPolicy ? perToken('driftWeights') : null,
      sequenceRatio: isPolicy && readLevel(loss.importanceSamplingLevel) === 'sequence',
      returns: perToken('returns'),
      oldValues: perToken('oldValues'),
    },
    loss: nativeLoss,
  }
}

/** What a loss needs of its batch. */
function requireFields(batch: LearnerBatch, { type, beta, valueClip }: NativeLossOptions): void {
  if (beta !== 0 && type !== 'policy-gradient') invalid('beta', `0, as ${type} has no KL term,`, beta)
  if (beta !== 0 && batch.referenceLogProbs === undefined) {
    invalid('beta', '0, as the batch has no referenceLogProbs,', beta)
  }
  if (batch.driftWeights !== undefined && batch.oldLogProbs === undefined) {
    invalid('driftWeights', 'no array, as the batch has no oldLogProbs,', batch.driftWeights)
  }
  if (type === 'value' && batch.returns === undefined) invalid('returns', 'what values should be', undefined)
  if (type === 'sft' && batch.returns !== undefined) invalid('returns', 'no array for sft', batch.returns)
  if (valueClip !== 0 && batch.oldValues === undefined) {
    invalid('valueClip', 'none, as the batch has no oldValues,', valueClip)
  }
}

function readLoss(loss: LossOptions): NativeLossOptions {
  checkFields('the loss options', loss, lossFields)
  if (!lossTypes.includes(loss.type)) invalid('type', `one of ${lossTypes.join(', ')}`, loss.type)
  const epsilon = numberOption('epsilon', loss.epsilon, { fallback: 0.2, least: 0 })
  return {
    type: loss.type === 'sft' || loss.type === 'value' ? loss.type : 'policy-gradient',
    temperature: numberOption('temperature', loss.temperature, { fallback: 1, above: 0 }),
    epsilon,
    epsilonHigh: numberOption('epsilonHigh', loss.epsilonHigh, { fallback: epsilon, least: 0 }),
    dualClip: numberOption('dualClip', loss.dualClip, { fallback: 0, above: 1 }),
    beta: numberOption('beta', loss.beta, { fallback: 0, least: 0 }),
    klEstimator: readKlEstimator(loss.klEstimator),
    valueClip: numberOption('valueClip', loss.valueClip, { fallback: 0, above: 0 }),
    valueCoefficient: numberOption('valueCoefficient', loss.valueCoefficient, { fallback: 1, above: 0 }),
    detachValue: loss.detachValue === true,
  }
}

function readKlEstimator(kind: unknown = 'k3'): KlEstimator {
  if (kind === 'k1' || kind === 'k2' || kind === 'k3') return kind
  return invalid('klEstimator', 'one of k1, k2, k3', kind)
}

function readLevel(level: unknown = 'token'): ImportanceSamplingLevel {
  if (level === 'token' || level === 'sequence') return level
  return invalid('importanceSamplingLevel', 'token or sequence', level)
}

/** Sequences one after another, and where each begins. */
export function flatTokens(sequences: unknown): { tokens: Int32Array; offsets: Int32Array } {
  return new Flattener(readSequences(sequences)).tokens()
}

/** The loss weights where the mask is set, 0 elsewhere. */
function readWeights(flat: Flattener, { lossMask, lossWeights }: LearnerBatch): Float32Array {
  flat.checkCount('lossMask', lossMask)
  const given = lossWeights === undefined ? null : flat.join('lossWeights', lossWeights)
  const weights = new Float32Array(flat.count)
  flat.visit((index, start, end) => {
    const mask: unknown = lossMask[index]
    if (!(mask instanceof Uint8Array) || mask.length !== end - start) {
      return invalid(
        `lossMask[${index}]`,
        `a Uint8Array of ${end - start} values, one less than tokens,`,
        mask,
      )
    }
    for (let t = start; t < end; t++) {
      if (mask[t - start] === 0) continue
      const weight = given === null ? 1 : given[t]!
      if (weight < 0) invalid(`lossWeights[${index}][${t - start}]`, 'a number of at least 0', weight)
      weights[t] = weight
    }
  })
  return weights
}

/** Turns loss weights into weights of the sum, in place. */
function applyNormalizer(flat: Flattener, weights: Float32Array, loss: LossOptions) {
  const normalizer =
    loss.normalizer === undefined
      ? batchNormalizer(flat, weights, loss)
      : numberOption('normalizer', loss.normalizer, { above: 0 })
  flat.visit((_, start, end) => {
    const divisor = loss.type === 'grpo' ? normalizer * sum(weights, start, end) : normalizer
    for (let t = start; t < end; t++) if (weights[t] !== 0) weights[t] = weights[t]! / divisor
  })
}

function batchNormalizer(flat: Flattener, weights: Float32Array, loss: LossOptions): number {
  const sequences = flat.sequences.length
  if (loss.type === 'grpo') return sequences
  if (loss.type !== 'dr_grpo') return sum(weights, 0, weights.length)
  return sequences * numberOption('maxCompletionLength', loss.maxCompletionLength, { above: 0 })
}

function sum(values: Float32Array, start: number, end: number): number {
  let total = 0
  for (let i = start; i < end; i++) total += values[i]!
  return total
}

function readAdvantages(flat: Flattener, advantages: unknown): Float32Array {
  if (Array.isArray(advantages)) return flat.join('advantages', advantages)
  const count = flat.sequences.length
  if (!(advantages instanceof Float32Array) || advantages.length !== count) {
    return invalid(
      'advantages',
      `a Float32Array of ${count} values, or an array of Float32Array,`,
      advantages,
    )
  }
  const spread = new Float32Array(flat.count)
  flat.visit((index, start, end) => {
    const advantage = advantages[index]!
    if (!Number.isFinite(advantage)) invalid(`advantages[${index}]`, 'a finite number', advantage)
    spread.fill(advantage, start, end)
  })
  return spread
}
