/**
 * The engine's kernels one by one, on typed arrays. Matrices are row-major; shapes stand in brackets behind each
 * array. `Elements` decide the compute type: Float32Array is f32, Uint16Array holds bf16 patterns (`toBfloat16`).
 * Inputs are copied before the work starts and never changed; outputs are fresh arrays.
 *
 * Every kernel rejects with ERR_INVALID_ARG for a wrong type, length or value, ERR_NO_DEVICE where the device or the
 * dtype is not there, and ERR_OUT_OF_MEMORY.
 */
import os from 'node:os'
import { SsrlError } from './errors.ts'
import type {
  AdamWArguments,
  AttentionArguments,
  AttentionBackwardArguments,
  Elements,
  EmbeddingArguments,
  EmbeddingBackwardArguments,
  KernelOptions,
  LogProbsArguments,
  MatmulArguments,
  MatmulBackwardArguments,
  PagedAttentionArguments,
  PolicyLossArguments,
  PolicyLossResult,
  RmsNormArguments,
  RmsNormBackwardArguments,
  RopeArguments,
  SampleArguments,
  SampleKernelResult,
  SwigluArguments,
  SwigluBackwardArguments,
} from './kernels-types.ts'
import { loadEmulated, loadNative } from './native.ts'
import { runNative } from './native-call.ts'
import { chooseDevice } from './policy/device.ts'

export type * from './kernels-types.ts'

type Arguments = Record<string, unknown>

async function call<T>(name: string, args: object, options: KernelOptions | undefined): Promise<T> {
  const device = options?.device ?? 'cpu'
  if (typeof args !== 'object' || args === null) {
    throw new SsrlError('ERR_INVALID_ARG', `Expected an object of arguments for kernels.${name}`)
  }
  const threads = options?.threads ?? defaultThreads()
  const isEmulated = String(device).startsWith('cuda-emulated')
  const kernel = (isEmulated ? loadEmulated() : loadNative()).kernels[name]!
  const place = { threads, device: isEmulated || device === 'cpu' ? device : chooseDevice(String(device)) }
  return (await runNative(async () => kernel({ ...(args as Arguments), ...place }))) as T
}

function defaultThreads(): number {
  const setting = Number(process.env.SSRL_THREADS)
  return Number.isInteger(setting) && setting > 0 ? setting : os.availableParallelism()
}

const typeOf = (elements: unknown) => (elements instanceof Uint16Array ? 'bf16' : 'f32')

/** The defaults under the caller's own values; an explicit undefined is a default too. */
function withDefaults(defaults: Arguments, args: object | undefined): Arguments {
  const given = Object.entries(args ?? {}).filter(([, value]) => value !== undefined)
  return { ...defaults, ...Object.fromEntries(given) }
}

/** One value for every row, or the caller's own array. */
function perRow<T>(value: unknown, rows: number, make: (value: never, rows: number) => T): unknown {
  return typeof value === 'number' || typeof value === 'bigint' ? make(value as never, rows) : value
}

const floats = (value: number, rows: number) => new Float32Array(rows).fill(value)

function integers(value: number, rows: number): unknown {
  // 2.5 and 2^40 would become other numbers in an Int32Array; native code names what is wrong with them.
  return Number.isInteger(value) && Math.abs(value) < 2 ** 31 ? new Int32Array(rows).fill(value) : value
}

function seedsOf(value: unknown, rows: number): unknown {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) value = BigInt(value)
  if (typeof value !== 'bigint') return value
  return value >= 0n && value < 2n ** 64n ? new BigUint64Array(rows).fill(value) : value
}

/** y[rows, outputs] = x[rows, inputs]·Wᵀ + bias + residual, the rows independent of each other bit for bit. */
function matmul(args: MatmulArguments, options?: KernelOptions): Promise<{ y: Elements }> {
  return call('matmul', withDefaults({ outputType: 'f32' }, args), options)
}

/** Gradients of `matmul`: dx = dy·W, dweight = dyᵀ·x, dbias = column sums of dy, all f32. */
function matmulBackward(
  args: MatmulBackwardArguments,
  options?: KernelOptions,
): Promise<{ dx: Float32Array; dweight: Float32Array; dbias: Float32Array }> {
  return call('matmulBackward', args, options)
}

/** y = x / sqrt(mean(x²) + epsilon) · weight over each group of `width` values (Zhang & Sennrich, arXiv:1910.07467). */
function rmsNorm(
  args: RmsNormArguments,
  options?: KernelOptions,
): Promise<{ y: Elements; inverseRms: Float32Array }> {
  return call('rmsNorm', withDefaults({ groups: 1, outputType: typeOf(args?.x) }, args), options)
}

/** Gradients of `rmsNorm` by x and weight. */
function rmsNormBackward(
  args: RmsNormBackwardArguments,
  options?: KernelOptions,
): Promise<{ dx: Elements; dweight: Float32Array }> {
  return call('rmsNormBackward', withDefaults({ groups: 1, outputType: typeOf(args?.x) }, args), options)
}

/** Rotary position embedding (Su et al., arXiv:2104.09864) of pairs (i, i + headDim / 2), as Hugging Face lays them out. */
function rope(args: RopeArguments, options?: KernelOptions): Promise<{ y: Elements }> {
  return call('rope', args, options)
}

/** Gradient of `rope`: the rotation by the opposite angle; `x` is the gradient of its result. */
function ropeBackward(args: RopeArguments, options?: KernelOptions): Promise<{ dx: Elements }> {
  return call('ropeBackward', args, options)
}

/** y = silu(gate) · up (Shazeer, arXiv:2002.05202). */
function swiglu(args: SwigluArguments, options?: KernelOptions): Promise<{ y: Elements }> {
  return call('swiglu', args, options)
}

/** Gradient of `swiglu` by gate and up, and once more its y, with the same bits: training does not keep it. */
function swigluBackward(
  args: SwigluBackwardArguments,
  options?: KernelOptions,
): Promise<{ dgateUp: Elements; y: Elements }> {
  return call('swigluBackward', args, options)
}

/** x[t] = table[ids[t]], rounded to bf16 with `dtype: 'bf16'`. */
function embedding(args: EmbeddingArguments, options?: KernelOptions): Promise<{ x: Float32Array }> {
  return call('embedding', withDefaults({ dtype: 'f32' }, args), options)
}

/** dtable[id] = the sum of dx[t] over the tokens with that id, in their order. */
function embeddingBackward(
  args: EmbeddingBackwardArguments,
  options?: KernelOptions,
): Promise<{ dtable: Float32Array }> {
  return call('embeddingBackward', args, options)
}

const withScale = (args: { headDim: number; scale?: number }) => ({
  ...args,
  scale: args?.scale ?? 1 / Math.sqrt(args?.headDim),
})

const packedSequences = (args: AttentionArguments) => ({
  ...withScale(args),
  positions: args?.positions ?? new Int32Array(Math.max(0, (args?.offsets?.length ?? 1) - 1)),
})

/**
 * Causal attention over packed sequences; with kvHeads < heads, each key head serves heads / kvHeads query heads. A row
 * has the same bits whether its sequence has all its keys itself or shares the first of them.
 */
function attention(
  args: AttentionArguments,
  options?: KernelOptions,
): Promise<{ out: Elements; logSumExp: Float32Array }> {
  return call('attention', packedSequences(args), options)
}

/** Gradients of `attention`, from what it returned (Dao et al., arXiv:2205.14135, algorithm 4). */
function attentionBackward(
  args: AttentionBackwardArguments,
  options?: KernelOptions,
): Promise<{ dq: Elements; dk: Elements; dv: Elements }> {
  return call('attentionBackward', packedSequences(args), options)
}

/**
 * `attention` of the last rows of sequences whose keys and values lie in pages of 64 tokens, as a decode step or a
 * chunk of a prompt needs it. A row equals that of `attention` over the whole sequence bit for bit.
 */
function pagedAttention(
  args: PagedAttentionArguments,
  options?: KernelOptions,
): Promise<{ out: Elements; logSumExp: Float32Array }> {
  return call('pagedAttention', withScale(args), options)
}

/**
 * One token per row: argmax of logit / temperature + Gumbel noise over the kept tokens, which draws from the softmax.
 * Kept are the topK largest, of these the fewest whose mass reaches topP, of these those with minP of the largest
 * probability; ties keep the lower index. The noise of index i is Philox with key (seed, sample) and counter
 * (position, i), so that a draw depends on nothing else. Temperature 0 takes the largest logit, the lowest index on a
 * tie. Log-prob and entropy are those of the full softmax at the temperature (1 when greedy).
 */
async function sample(args: SampleArguments, options?: KernelOptions): Promise<SampleKernelResult> {
  const rows = args?.logits instanceof Float32Array ? args.logits.length / args.vocabulary : 0
  const count = Number.isSafeInteger(rows) ? rows : 0
  const result = await call<{ tokens: Float64Array } & Omit<SampleKernelResult, 'tokens'>>(
    'sample',
    {
      logits: args?.logits,
      vocabulary: args?.vocabulary,
      temperatures: perRow(args?.temperature ?? 1, count, floats),
      topKs: perRow(args?.topK ?? 0, count, integers),
      topPs: perRow(args?.topP ?? 1, count, floats),
      minPs: perRow(args?.minP ?? 0, count, floats),
      seeds: seedsOf(args?.seed ?? 0, count),
      samples: args?.samples ?? new Int32Array(count),
      positions: args?.positions ?? new Int32Array(count),
    },
    options,
  )
  return { ...result, tokens: Int32Array.from(result.tokens) }
}

/**
 * Output projection, log-softmax and loss in one, chunk by chunk, so that nothing of size rows × vocabulary exists.
 * 'sft': −weight · lp. 'policy-gradient': weight · (p + beta · KL), with r = exp(lp − old),
 * p = max(−A r, −A clip(r, 1 − epsilon, 1 + epsilonHigh)) (Schulman et al., arXiv:1707.06347, eq. 7), for A < 0 at most
 * −A · dualClip (Ye et al., arXiv:1912.09729), plus driftWeight · |lp − old|. By d = ref − lp the KL is k1 = −d,
 * k2 = d² / 2 or k3 = exp(d) − d − 1. Without oldLogProbs r is 1; logRatios say what log r is instead, while its
 * derivative by lp stays r (the ratio of a sequence, of which each token has its weight's share).
 * Rows of weight 0 cost nothing and count nowhere.
 */
async function policyLoss(args: PolicyLossArguments, options?: KernelOptions): Promise<PolicyLossResult> {
  const defaults = {
    temperature: 1,
    epsilon: 0.2,
    epsilonHigh: 0.2,
    dualClip: 0,
    beta: 0,
    klEstimator: 'k3',
    backward: true,
  }
  const weights = args?.weights ?? new Float32Array(args?.targets?.length ?? 0).fill(1)
  const { statistics: s, ...arrays } = await call<
    { statistics: Float64Array } & Omit<PolicyLossResult, 'statistics'>
  >('policyLoss', { ...withDefaults(defaults, args), weights }, options)
  const statistics = {
    loss: s[0]!,
    policyLoss: s[1]!,
    klSum: s[2]!,
    entropySum: s[3]!,
    ratioSum: s[4]!,
    ratioMax: s[5]!,
    mismatch: s[6]!,
    clipLow: s[7]!,
    clipHigh: s[8]!,
    rows: s[9]!,
  }
  return { ...arrays, statistics }
}

/** Log-probs of the targets and entropies of softmax(hidden·Wᵀ / temperature), as `policyLoss` and `sample` give them. */
function logProbs(
  args: LogProbsArguments,
  options?: KernelOptions,
): Promise<{ logProbs: Float32Array; entropies: Float32Array }> {
  return call('logProbs', withDefaults({ temperature: 1 }, args), options)
}

/** One AdamW step with decoupled decay (Loshchilov & Hutter, arXiv:1711.05101), in PyTorch's order of operations. */
function adamw(
  args: AdamWArguments,
  options?: KernelOptions,
): Promise<{ weight: Float32Array; firstMoment: Float32Array; secondMoment: Float32Array }> {
  const defaults = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, gradientScale: 1 }
  return call('adamw', withDefaults(defaults, args), options)
}

/** Square root of the sum of all squares, summed in double in an order that depends on the lengths only. */
async function globalNorm(args: { gradients: Float32Array[] }, options?: KernelOptions): Promise<number> {
  const { norm } = await call<{ norm: Float64Array }>('globalNorm', args, options)
  return norm[0]!
}

export const kernels = {
  matmul,
  matmulBackward,
  rmsNorm,
  rmsNormBackward,
  rope,
  ropeBackward,
  swiglu,
  swigluBackward,
  embedding,
  embeddingBackward,
  attention,
  attentionBackward,
  pagedAttention,
  sample,
  policyLoss,
  logProbs,
  adamw,
  globalNorm,
}
