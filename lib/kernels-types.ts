/** Arguments and results of `kernels.*`; shapes stand in brackets. */
import type { DType } from './native.ts'
import type { DeviceChoice } from './policy/device.ts'

/** Float32Array: f32. Uint16Array: bf16 patterns. Arrays of one call agree unless it says otherwise. */
export type Elements = Float32Array | Uint16Array

export interface KernelOptions {
  /** As for policies. 'cuda-emulated' is in test builds only. Default: 'cpu'. */
  device?: DeviceChoice
  /** Default: SSRL_THREADS, else as many as the process may use. */
  threads?: number
}

export interface MatmulArguments {
  /** [rows, inputs] */
  x: Elements
  /** [outputs, inputs], rounded to x's type */
  weight: Float32Array
  inputs: number
  /** [outputs] */
  bias?: Float32Array
  /** [rows, outputs], added to the product in f32, as of the outputType */
  residual?: Float32Array
  /** Default: 'f32'. 'bf16' needs a bf16 x. */
  outputType?: DType
}

export interface MatmulBackwardArguments {
  /** [rows, outputs] */
  dy: Elements
  /** [rows, inputs] */
  x: Elements
  /** [outputs, inputs] */
  weight: Float32Array
  inputs: number
}

export interface RmsNormArguments {
  /** [tokens, groups, width] */
  x: Elements
  /** [width] */
  weight: Float32Array
  /** 1 for a hidden row; the number of heads for per-head norms. Default: 1. */
  groups?: number
  epsilon: number
  /** Default: x's type. */
  outputType?: DType
}

export interface RmsNormBackwardArguments {
  /** [tokens, groups, width], of either type */
  dy: Elements
  /** [tokens, groups, width], of either type */
  x: Elements
  /** [width] */
  weight: Float32Array
  /** [tokens, groups], what the forward returned */
  inverseRms: Float32Array
  groups?: number
  /** Type of dx. Default: x's. */
  outputType?: DType
}

export interface RopeArguments {
  /** [tokens, heads, headDim] */
  x: Elements
  /** [tokens] */
  positions: Int32Array
  /** [positions, headDim / 2] */
  cosines: Float32Array
  /** [positions, headDim / 2] */
  sines: Float32Array
  heads: number
  headDim: number
}

export interface SwigluArguments {
  /** [tokens, 2 · width]: gate, then up */
  gateUp: Elements
  width: number
}

export interface SwigluBackwardArguments extends SwigluArguments {
  /** [tokens, width] */
  dy: Elements
}

export interface EmbeddingArguments {
  /** [tokens] */
  ids: Int32Array
  /** [vocabulary, width] */
  table: Float32Array
  width: number
  dtype?: DType
}

export interface EmbeddingBackwardArguments {
  /** [tokens] */
  ids: Int32Array
  /** [tokens, width] */
  dx: Float32Array
  width: number
  vocabulary: number
}

export interface AttentionShape {
  heads: number
  /** Divides heads. */
  kvHeads: number
  /** Even, at most 256. */
  headDim: number
  /** Of q·k. Default: 1 / √headDim. */
  scale?: number
}

export interface AttentionArguments extends AttentionShape {
  /** [rows, heads, headDim] */
  q: Elements
  /** [rows, kvHeads, headDim] */
  k: Elements
  /** [rows, kvHeads, headDim] */
  v: Elements
  /** [sequences + 1]: sequence s is the rows offsets[s] .. offsets[s + 1] */
  offsets: Int32Array
  /**
   * [sequences]: position of the first row. The keys before it are the first ones of the sequence before, which may
   * share them itself. Default: 0, no key is shared.
   */
  positions?: Int32Array
}

export interface AttentionBackwardArguments extends AttentionArguments {
  /** [rows, heads, headDim] */
  out: Elements
  /** [rows, heads, headDim] */
  dout: Elements
  /** [rows, heads] */
  logSumExp: Float32Array
}

export interface PagedAttentionArguments extends AttentionShape {
  /** [rows, heads, headDim] */
  q: Elements
  /** [pages, 64, kvHeads, headDim] */
  keys: Elements
  /** [pages, 64, kvHeads, headDim] */
  values: Elements
  /** Page indices of all sequences, one after another */
  pages: Int32Array
  /** [sequences + 1] into pages */
  pageOffsets: Int32Array
  /** [sequences + 1] into the rows of q */
  queryOffsets: Int32Array
  /** [sequences]: position of the first query row; row i sees the keys 0 .. position + i */
  positions: Int32Array
}

export interface SampleArguments {
  /** [rows, vocabulary] */
  logits: Float32Array
  vocabulary: number
  /** One for all, or [rows]. 0 is greedy. Default: 1. */
  temperature?: number | Float32Array
  /** One for all, or [rows]. 0 is off. */
  topK?: number | Int32Array
  /** One for all, or [rows]. 1 is off. */
  topP?: number | Float32Array
  /** One for all, or [rows]. 0 is off. */
  minP?: number | Float32Array
  /** One for all, or [rows]. Default: 0. */
  seed?: number | bigint | BigUint64Array
  /** [rows], the second part of the key. Default: 0. */
  samples?: Int32Array
  /** [rows]. Default: 0. */
  positions?: Int32Array
}

export interface SampleKernelResult {
  /** [rows] */
  tokens: Int32Array
  /** [rows], of the full softmax at the temperature */
  logProbs: Float32Array
  /** [rows], in nats */
  entropies: Float32Array
  /** [rows], of the truncated distribution; equals logProbs where nothing was truncated */
  sampledLogProbs: Float32Array
}

export interface LogProbsArguments {
  /** [rows, inputs], final-normed hidden states */
  hidden: Elements
  /** [vocabulary, inputs], rounded to hidden's type */
  weight: Float32Array
  inputs: number
  /** [rows] the next token */
  targets: Int32Array
  /** Default: 1. */
  temperature?: number
}

export interface PolicyLossArguments extends LogProbsArguments {
  type: 'sft' | 'policy-gradient'
  /** [rows]; 0 takes no part. Default: 1. */
  weights?: Float32Array
  /** [rows]; needed for 'policy-gradient' */
  advantages?: Float32Array
  /** [rows]. Default: the log-probs of this pass, so that the ratio is 1. */
  oldLogProbs?: Float32Array
  /** [rows]; needed when beta is not 0 */
  referenceLogProbs?: Float32Array
  /** Default: 0.2. */
  epsilon?: number
  /** Default: 0.2. */
  epsilonHigh?: number
  /** 0 is off, else above 1. */
  dualClip?: number
  /** Default: 0. */
  beta?: number
  /** Default: 'k3'. */
  klEstimator?: 'k1' | 'k2' | 'k3'
  /** [rows]: log r. Default: lp − old. */
  logRatios?: Float32Array
  /** [rows]: weights of |lp − old|; needs oldLogProbs. Default: 0. */
  driftWeights?: Float32Array
  /** false: no gradients. Default: true. */
  backward?: boolean
}

export interface PolicyLossResult {
  /** [rows]; 0 for rows of weight 0 */
  logProbs: Float32Array
  /** [rows]; 0 for rows of weight 0 */
  entropies: Float32Array
  /** [rows, inputs] */
  dhidden?: Float32Array
  /** [vocabulary, inputs] */
  dweight?: Float32Array
  statistics: PolicyLossStatistics
}

/** Over the rows with a weight. */
export interface PolicyLossStatistics {
  /** Σ weight · (p + beta · KL) */
  loss: number
  /** Σ weight · p */
  policyLoss: number
  /** Σ KL */
  klSum: number
  entropySum: number
  ratioSum: number
  ratioMax: number
  /** max |lp − old| */
  mismatch: number
  /** Rows with A < 0 and r < 1 − epsilon */
  clipLow: number
  /** Rows with A > 0 and r > 1 + epsilonHigh */
  clipHigh: number
  rows: number
}

export interface AdamWArguments {
  weight: Float32Array
  gradient: Float32Array
  firstMoment: Float32Array
  secondMoment: Float32Array
  learningRate: number
  /** Default: 0.9. */
  beta1?: number
  /** Default: 0.999. */
  beta2?: number
  /** Default: 1e-8. */
  epsilon?: number
  /** Default: 0. */
  weightDecay?: number
  /** 1 for the first */
  step: number
  /** Multiplied into the gradient: the clip factor. Default: 1. */
  gradientScale?: number
}
