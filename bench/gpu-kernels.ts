/** The kernels one by one, with what a card has at least to move and to multiply for each. */
import { toBfloat16 } from '../lib/bfloat16.ts'
import { loadNative } from '../lib/native.ts'
import { policyGradient } from './ours/kernels.ts'
import { quantile } from './statistics.ts'

export interface GpuKernel {
  /** 'matmul/2048': the kernel, and its size */
  name: string
  kernel: string
  args: () => Record<string, unknown>
  /** read and written at least once */
  bytes: number
  /** of the tensor cores */
  flops: number
}

/** What a card can do: bytes a second, and bf16 operations a second on dense matrices. From NVIDIA's data sheets. */
export interface Card {
  name: RegExp
  bandwidth: number
  flops: number
}

export const cards: Card[] = [
  { name: /H200/, bandwidth: 4.8e12, flops: 989e12 },
  { name: /H100.*(PCIe|NVL)/, bandwidth: 2.0e12, flops: 756e12 },
  { name: /H100/, bandwidth: 3.35e12, flops: 989e12 },
  { name: /A100.*80GB/, bandwidth: 1.935e12, flops: 312e12 },
  { name: /A100/, bandwidth: 1.555e12, flops: 312e12 },
]

export function cardOf(device: string): Card | null {
  return cards.find(({ name }) => name.test(device)) ?? null
}

const floats = (count: number) =>
  Float32Array.from({ length: count }, (_, i) => ((i * 7919) % 1000) / 5000 - 0.1)
const bf16 = (count: number) => toBfloat16(floats(count))

/** Sizes of a layer of a small model; `scale` of 1 is for a card, less for a test on the CPU. */
export function gpuKernels(scale = 1): GpuKernel[] {
  const of = (size: number, unit = 1) => Math.max(1, Math.round((size * scale) / unit)) * unit
  const [rows, hidden, ffn, vocabulary] = [of(8192), of(896, 64), of(4864, 64), of(49152, 8)]
  const [heads, kvHeads, headDim] = [14, 2, 64]
  const shape = { heads, kvHeads, headDim }
  return [
    matmul(rows, hidden, 2 * ffn),
    matmulBackward(rows, hidden, 2 * ffn),
    matmul(of(256), hidden, 2 * ffn),
    matmul(of(32), hidden, 2 * ffn),
    ...attention({ sequences: of(8), length: of(1024), ...shape }),
    paged({ sequences: of(32), length: of(2048, 64), ...shape }),
    policyLoss(of(2048), hidden, vocabulary),
    logProbs(of(2048), hidden, vocabulary),
    sampling(of(256), vocabulary),
    sampling(of(32), vocabulary),
    ...rowWise(rows, hidden, ffn),
    rope(rows, heads + kvHeads, headDim),
    ...embedding(rows, hidden, vocabulary),
    ...optimizer(of(2 ** 24)),
  ]
}

function matmul(rows: number, inputs: number, outputs: number): GpuKernel {
  const args = () => ({
    ...{ x: bf16(rows * inputs), weight: floats(outputs * inputs), inputs, outputType: 'bf16' },
  })
  const bytes = 2 * (rows * inputs + outputs * inputs + rows * outputs)
  return { name: `matmul/${rows}`, kernel: 'matmul', args, bytes, flops: 2 * rows * inputs * outputs }
}

/** By x and by the weight, whose f32 gradient is added to; and the bias's. */
function matmulBackward(rows: number, inputs: number, outputs: number): GpuKernel {
  const args = () => ({
    ...{ dy: bf16(rows * outputs), x: bf16(rows * inputs), weight: floats(outputs * inputs), inputs },
  })
  const bytes = 2 * (3 * rows * outputs + rows * inputs) + 4 * rows * inputs + (2 + 8) * outputs * inputs
  const flops = 4 * rows * inputs * outputs
  return { name: `matmul-backward/${rows}`, kernel: 'matmulBackward', args, bytes, flops }
}

interface AttentionSizes {
  sequences: number
  length: number
  heads: number
  kvHeads: number
  headDim: number
}

function attention({ sequences, length, heads, kvHeads, headDim }: AttentionSizes): GpuKernel[] {
  const rows = sequences * length
  const [queries, keys] = [rows * heads * headDim, rows * kvHeads * headDim]
  const forward = () => {
    const k = bf16(keys)
    const shape = { heads, kvHeads, headDim, scale: headDim ** -0.5 }
    const offsets = Int32Array.from({ length: sequences + 1 }, (_, i) => i * length)
    return { ...shape, offsets, positions: new Int32Array(sequences), q: bf16(queries), k, v: k }
  }
  const backward = () => {
    const args = forward()
    return { ...args, out: args.q, dout: args.q, logSumExp: new Float32Array(rows * heads).fill(3) }
  }
  // Half of the scores, twice multiplied; five products in the backward pass.
  const flops = 2 * sequences * length * length * heads * headDim
  const bytes = 2 * (2 * queries + 2 * keys)
  const name = `${sequences}x${length}`
  return [
    { name: `attention/${name}`, kernel: 'attention', args: forward, bytes, flops },
    {
      name: `attention-backward/${name}`,
      kernel: 'attentionBackward',
      args: backward,
      bytes: 2 * bytes,
      flops: 2.5 * flops,
    },
  ]
}

/** One new token each. */
function paged({ sequences, length, heads, kvHeads, headDim }: AttentionSizes): GpuKernel {
  const pages = (sequences * length) / 64
  const elements = sequences * length * kvHeads * headDim
  const args = () => {
    const keys = bf16(elements)
    return {
      ...{ heads, kvHeads, headDim, scale: headDim ** -0.5, keys, values: keys },
      q: bf16(sequences * heads * headDim),
      pages: Int32Array.from({ length: pages }, (_, i) => i),
      pageOffsets: Int32Array.from({ length: sequences + 1 }, (_, i) => (i * length) / 64),
      queryOffsets: Int32Array.from({ length: sequences + 1 }, (_, i) => i),
      positions: new Int32Array(sequences).fill(length - 1),
    }
  }
  const flops = 4 * sequences * length * heads * headDim
  return {
    name: `paged-attention/${sequences}x${length}`,
    ...{ kernel: 'pagedAttention', args, bytes: 4 * elements, flops },
  }
}

/** Rows of the vocabulary that exist at a time, as in native/ops/cuda/loss.cu. */
const chunkOf = (vocabulary: number) =>
  Math.min(1024, Math.max(32, Math.floor(2 ** 28 / (4 * vocabulary) / 32) * 32))

/** Per chunk: the weight twice, and its f32 gradient, which is added to; per row, logits in f32 and bf16. */
function policyLoss(rows: number, inputs: number, vocabulary: number): GpuKernel {
  const args = () => ({
    hidden: bf16(rows * inputs),
    weight: floats(vocabulary * inputs),
    inputs,
    ...policyGradient(rows, vocabulary),
  })
  const bytes =
    Math.ceil(rows / chunkOf(vocabulary)) * 12 * vocabulary * inputs + rows * (18 * vocabulary + 8 * inputs)
  const flops = 6 * rows * inputs * vocabulary
  return { name: `policy-loss/${rows}`, kernel: 'policyLoss', args, bytes, flops }
}

function logProbs(rows: number, inputs: number, vocabulary: number): GpuKernel {
  const args = () => ({
    ...{ hidden: bf16(rows * inputs), weight: floats(vocabulary * inputs), inputs, temperature: 1 },
    targets: Int32Array.from({ length: rows }, (_, i) => i % vocabulary),
  })
  const bytes = Math.ceil(rows / chunkOf(vocabulary)) * 2 * vocabulary * inputs + rows * 8 * vocabulary
  return {
    name: `log-probs/${rows}`,
    ...{ kernel: 'logProbs', args, bytes, flops: 2 * rows * inputs * vocabulary },
  }
}

function sampling(rows: number, vocabulary: number): GpuKernel {
  const args = () => ({
    ...{ logits: floats(rows * vocabulary), vocabulary, seeds: new BigUint64Array(rows) },
    ...{
      temperatures: new Float32Array(rows).fill(1),
      topPs: new Float32Array(rows).fill(1),
      minPs: new Float32Array(rows),
    },
    ...{ topKs: new Int32Array(rows), samples: new Int32Array(rows), positions: new Int32Array(rows) },
  })
  return { name: `sample/${rows}`, kernel: 'sample', args, bytes: 4 * rows * vocabulary, flops: 0 }
}

function rowWise(rows: number, hidden: number, ffn: number): GpuKernel[] {
  const norm = () => ({
    ...{ x: floats(rows * hidden), weight: floats(hidden), groups: 1, epsilon: 1e-5, outputType: 'bf16' },
  })
  const normBackward = () => ({
    ...{ dy: bf16(rows * hidden), x: floats(rows * hidden), weight: floats(hidden), groups: 1 },
    ...{ inverseRms: new Float32Array(rows).fill(1), outputType: 'f32' },
  })
  const swiglu = () => ({ gateUp: bf16(rows * 2 * ffn), width: ffn })
  const swigluBackward = () => ({ ...swiglu(), dy: bf16(rows * ffn) })
  const of = (name: string, kernel: string, args: GpuKernel['args'], bytes: number) => ({
    ...{ name: `${name}/${rows}`, kernel, args, bytes, flops: 0 },
  })
  return [
    of('rms-norm', 'rmsNorm', norm, 6 * rows * hidden),
    of('rms-norm-backward', 'rmsNormBackward', normBackward, 10 * rows * hidden),
    of('swiglu', 'swiglu', swiglu, 6 * rows * ffn),
    of('swiglu-backward', 'swigluBackward', swigluBackward, 12 * rows * ffn),
  ]
}

function rope(rows: number, heads: number, headDim: number): GpuKernel {
  const args = () => ({
    ...{ x: bf16(rows * heads * headDim), positions: Int32Array.from({ length: rows }, (_, i) => i) },
    ...{ cosines: floats((rows * headDim) / 2), sines: floats((rows * headDim) / 2), heads, headDim },
  })
  return { name: `rope/${rows}`, kernel: 'rope', args, bytes: 4 * rows * heads * headDim, flops: 0 }
}

function embedding(rows: number, width: number, vocabulary: number): GpuKernel[] {
  const ids = () => Int32Array.from({ length: rows }, (_, i) => (i * 7919) % vocabulary)
  const forward = () => ({ ids: ids(), table: floats(vocabulary * width), width, dtype: 'bf16' })
  const backward = () => ({ ids: ids(), dx: floats(rows * width), width, vocabulary })
  return [
    { name: `embedding/${rows}`, kernel: 'embedding', args: forward, bytes: 8 * rows * width, flops: 0 },
    {
      name: `embedding-backward/${rows}`,
      ...{ kernel: 'embeddingBackward', args: backward, bytes: 12 * rows * width, flops: 0 },
    },
  ]
}

function optimizer(count: number): GpuKernel[] {
  const step = { learningRate: 1e-9, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, step: 1 }
  const adamw = () => ({
    ...{ weight: floats(count), gradient: floats(count), firstMoment: floats(count) },
    ...{ secondMoment: new Float32Array(count).fill(1), ...step, gradientScale: 1 },
  })
  const norm = () => ({ gradients: [floats(count)] })
  return [
    { name: `adamw/${count}`, kernel: 'adamw', args: adamw, bytes: 28 * count, flops: 0 },
    { name: `global-norm/${count}`, kernel: 'globalNorm', args: norm, bytes: 4 * count, flops: 0 },
  ]
}

export interface KernelFigure {
  /** milliseconds of a call, the wait for its end included */
  median: number
  p20: number
  p80: number
  /** percent of what the card allows; NaN where it is not known */
  share: number
}

export async function measureKernel(
  work: GpuKernel,
  device: string,
  card: Card | null,
  repeat = 20,
): Promise<KernelFigure> {
  const { seconds } = await loadNative().kernels[work.kernel]!({ ...work.args(), device, repeat })
  const times = [...(seconds as Float64Array)]
  const [p20, median, p80] = [0.2, 0.5, 0.8].map((at) => 1000 * quantile(times, at)) as [
    number,
    number,
    number,
  ]
  const least =
    card === null ? Number.NaN : 1000 * Math.max(work.bytes / card.bandwidth, work.flops / card.flops)
  return { median, p20, p80, share: (100 * least) / median }
}
