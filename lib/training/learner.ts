import { SsrlError } from '../errors.ts'
import { loadNative, type NativeLearner, type NativeLossStatistics, type NativePolicy } from '../native.ts'
import { runNative } from '../native-call.ts'
import { nativePolicyOf } from '../policy/native-handle.ts'
import type { Policy } from '../policy/policy.ts'
import { checkFields, invalid, numberOption } from './arguments.ts'
import { flatTokens, type LearnerBatch, type LossOptions, toNative } from './learner-batch.ts'

export type { LearnerBatch, LossOptions, LossType } from './learner-batch.ts'

export interface LearnerOptions {
  /** Of the next steps; at least 0. */
  learningRate: number
  /** AdamW's β₁ and β₂, [0.9, 0.999] by default. */
  betas?: [number, number]
  /** AdamW's ε, 1e-8 by default. */
  epsilon?: number
  /** Decoupled decay of every parameter: w -= learningRate · weightDecay · w; 0.01 by default. */
  weightDecay?: number
  /** Gradients are scaled down to this norm over all parameters; 1 by default, Infinity for none. */
  maxGradNorm?: number
  /**
   * Bytes of activations to keep for the backward pass, 2 GiB by default. What does not fit is computed again from each
   * layer's input; the result is the same bit for bit.
   */
  activationBudget?: number
  /**
   * A linear head on the final hidden states that says what a state is worth, for `returns` in a batch. It is the
   * learner's, saved with its state, and not part of the policy. All its weights begin as 0. False by default.
   */
  valueHead?: boolean
}

/** Over the batch's active tokens (those with a weight above 0). */
export interface LossStatistics {
  /** What was added to the step's loss: normalized as LossOptions says. */
  loss: number
  /** The same without the KL term. */
  policyLoss: number
  /** Mean of k3 = e^d - d - 1, d = log p_ref - log p; 0 without a reference. */
  kl: number
  /** Mean entropy of the full softmax at the temperature, in nats. */
  entropy: number
  /** Share of tokens whose ratio the lower clip holds back (advantage below 0, ratio below 1 - epsilon). */
  clipLow: number
  /** Share of tokens whose ratio the upper clip holds back (advantage above 0, ratio above 1 + epsilonHigh). */
  clipHigh: number
  ratioMean: number
  ratioMax: number
  /** max |log p - log p_old|; 0 without oldLogProbs. */
  mismatch: number
  /** The value loss, part of `loss`; 0 without returns. */
  valueLoss: number
  /** Mean value. */
  value: number
  /** Share of tokens whose value the clip holds back. */
  valueClip: number
  /** Number of active tokens. */
  tokens: number
  /** Number of sequences. */
  sequences: number
  /** Share of the layers whose forward pass was computed a second time, as activationBudget did not hold them. */
  recomputed: number
}

/** What the addon calls the value head beside the policy's parameters. */
const valueHeadName = 'value_head.weight'

const optionFields = [
  'learningRate',
  'betas',
  'epsilon',
  'weightDecay',
  'maxGradNorm',
  'activationBudget',
  'valueHead',
] as const

/**
 * Trains a policy in place: `accumulate` micro-batches, then `step`. Holds f32 gradients and two f32 moments for each
 * parameter, 12 bytes, from the first call on. Clones of the policy keep the weights that they were made with.
 *
 * Sequences of one prompt belong side by side: what neighbours have in common before the first token that is learnt from
 * is computed once.
 *
 * Errors: ERR_INVALID_ARG for what does not fit; ERR_OUT_OF_MEMORY; ERR_DISPOSED; ERR_NON_FINITE when a loss or a gradient
 * is no finite number: the weights are then as before, and all gradients since the last step cleared.
 */
export class Learner {
  /** Of the next steps. */
  learningRate: number
  readonly #policy: Policy
  readonly #options: Required<LearnerOptions>
  #native: Promise<NativeLearner> | null = null
  #isDisposed = false

  /** @throws SsrlError ERR_INVALID_ARG naming the option */
  constructor(policy: Policy, options: LearnerOptions) {
    nativePolicyOf(policy)
    this.#policy = policy
    this.#options = readOptions(options)
    this.learningRate = this.#options.learningRate
  }

  /**
   * Forward and backward pass; adds the gradients of the batch's loss to those since the last step. An abort clears them
   * all, as an error in the middle of the work does.
   */
  async accumulate(
    batch: LearnerBatch,
    loss: LossOptions,
    options: { signal?: AbortSignal } = {},
  ): Promise<LossStatistics> {
    checkFields('the options of accumulate', options, ['signal'])
    const native = toNative(batch, loss)
    const learner = await this.#learner()
    const run = (abort: Parameters<NativeLearner['accumulate']>[2]) =>
      learner.accumulate(native.batch, native.loss, abort)
    return toStatistics(await runNative(run, options.signal), batch.tokens.length)
  }

  /** The gradients so far: a copy of each parameter's, by Hugging Face name, row-major. */
  async gradients(): Promise<Map<string, Float32Array>> {
    const learner = await this.#learner()
    const gradients = new Map<string, Float32Array>()
    for (const { name } of nativePolicyOf(this.#policy).parameters()) {
      gradients.set(name, await runNative(() => learner.readGradient(name)))
    }
    if (this.#options.valueHead) {
      gradients.set(valueHeadName, await runNative(() => learner.readGradient(valueHeadName)))
    }
    return gradients
  }

  /** The values of the states that tokens were sampled from: T - 1 for T tokens, index t belongs to token t + 1. */
  async values(sequences: Int32Array[], options: { signal?: AbortSignal } = {}): Promise<Float32Array[]> {
    checkFields('the options of values', options, ['signal'])
    const { tokens, offsets } = flatTokens(sequences)
    const learner = await this.#learner()
    const values = await runNative((abort) => learner.values(tokens, offsets, abort), options.signal)
    return sequences.map((sequence, index) => {
      const start = offsets[index]! - index
      return values.slice(start, start + sequence.length - 1)
    })
  }

  /** Forgets the gradients since the last step. */
  async zeroGradients(): Promise<void> {
    const learner = await this.#learner()
    await runNative(() => learner.zeroGradients())
  }

  /**
   * Clips the gradients, updates the weights by AdamW (Loshchilov & Hutter 2019) and clears the gradients. The
   * value head has the same rate, or its own; with `valueHeadOnly` the policy stays as it is.
   * @returns the norm before clipping, and the rate that was used
   */
  async step(
    options: { learningRate?: number; valueHeadLearningRate?: number; valueHeadOnly?: boolean } = {},
  ): Promise<{ gradNorm: number; learningRate: number }> {
    checkFields('the options of step', options, ['learningRate', 'valueHeadLearningRate', 'valueHeadOnly'])
    const { valueHeadOnly = false } = options
    const learningRate = numberOption('learningRate', options.learningRate ?? this.learningRate, { least: 0 })
    const valueHeadLearningRate = numberOption(
      'valueHeadLearningRate',
      options.valueHeadLearningRate ?? learningRate,
      { least: 0 },
    )
    const { maxGradNorm } = this.#options
    const learner = await this.#learner()
    const { gradNorm } = await runNative(() =>
      learner.step({ learningRate, maxGradNorm, valueHeadLearningRate, valueHeadOnly }),
    )
    return { gradNorm, learningRate }
  }

  /** Writes moments and step count as one safetensors file. */
  async saveState(path: string): Promise<void> {
    const learner = await this.#learner()
    await runNative(() => learner.saveState(path))
  }

  /** @throws SsrlError ERR_MODEL_FORMAT for a file of another model; the state is then as before */
  async loadState(path: string): Promise<void> {
    const learner = await this.#learner()
    await runNative(() => learner.loadState(path))
  }

  /** Gives the memory back; work that is under way ends first. */
  dispose(): void {
    this.#isDisposed = true
    this.#native?.then(
      (native) => native.dispose(),
      () => {},
    )
    this.#native = null
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  async #learner(): Promise<NativeLearner> {
    if (this.#isDisposed) throw new SsrlError('ERR_DISPOSED', 'The learner has been disposed of')
    const policy = nativePolicyOf(this.#policy)
    this.#native ??= this.#create(policy)
    return this.#native
  }

  async #create(policy: NativePolicy): Promise<NativeLearner> {
    const { betas, epsilon, weightDecay, activationBudget, valueHead } = this.#options
    const options = { beta1: betas[0], beta2: betas[1], epsilon, weightDecay, activationBudget, valueHead }
    try {
      return await runNative(() => loadNative().createLearner(policy, options))
    } catch (error) {
      // What failed for want of memory may be tried again.
      this.#native = null
      throw error
    }
  }
}

function readOptions(options: LearnerOptions): Required<LearnerOptions> {
  checkFields('the options of Learner', options, optionFields)
  const { betas = [0.9, 0.999], maxGradNorm } = options
  if (!Array.isArray(betas) || betas.length !== 2) invalid('betas', 'two numbers', betas)
  return {
    learningRate: numberOption('learningRate', options.learningRate, { least: 0 }),
    betas: [
      numberOption('betas[0]', betas[0], { least: 0, below: 1 }),
      numberOption('betas[1]', betas[1], { least: 0, below: 1 }),
    ],
    epsilon: numberOption('epsilon', options.epsilon, { fallback: 1e-8, above: 0 }),
    weightDecay: numberOption('weightDecay', options.weightDecay, { fallback: 0.01, least: 0 }),
    maxGradNorm:
      maxGradNorm === Infinity
        ? Infinity
        : numberOption('maxGradNorm', maxGradNorm, { fallback: 1, above: 0 }),
    activationBudget: numberOption('activationBudget', options.activationBudget, {
      fallback: 2 ** 31,
      least: 0,
    }),
    valueHead: options.valueHead === true,
  }
}

function toStatistics(native: NativeLossStatistics, sequences: number): LossStatistics {
  // Without an active token every mean is 0.
  const tokens = Math.max(native.rows, 1)
  return {
    loss: native.loss + native.valueLoss,
    policyLoss: native.policyLoss,
    kl: native.klSum / tokens,
    entropy: native.entropySum / tokens,
    clipLow: native.clipLow / tokens,
    clipHigh: native.clipHigh / tokens,
    ratioMean: native.ratioSum / tokens,
    ratioMax: native.ratioMax,
    mismatch: native.mismatch,
    valueLoss: native.valueLoss,
    value: native.valueSum / tokens,
    valueClip: native.valueClipped / tokens,
    tokens: native.rows,
    sequences,
    recomputed: native.recomputed,
  }
}
