/** The kernels one by one, with what a card has at least to move and to multiply for each. */
import { toBfloat16 } from '../lib/bfloat16.ts'
import { loadNative } from '../lib/native.ts'
import { policyGradient } from './ours/kernels.ts'
import { quantile } from './statistics.ts'

export interface GpuKernel {
  /** 'matmul/2048': the kernel, and its size */
  name: string
  kernel: string
  args: Record<string, unknown>
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

const cards: Card[] = [
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
  return [
    matmul(rows, hidden, 2 * ffn),
    matmul(of(32), hidden, 2 * ffn),
    ...attention({ sequences: of(8), length: of(1024), heads, kvHeads, headDim }),
    paged({ sequences: of(32), length: of(2048, 64), heads, kvHeads, headDim }),
    policyLoss(of(2048), hidden, vocabulary),
    sampling(of(256), vocabulary),
    ...rowWise(rows, hidden, ffn),
    adamw(of(2 ** 24)),
  ]
}

function matmul(rows: number, inputs: number, outputs: number): GpuKernel {
  const args = { x: bf16(rows * inputs), weight: floats(outputs * inputs), inputs, outputType: 'bf16' }
  const bytes = 2 * (rows * inputs + outputs * inputs + rows * outputs)
  return { name: `matmul/${rows}`, kernel: 'matmul', args, bytes, flops: 2 * rows * inputs * outputs }
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
  const q = bf16(rows * heads * headDim)
  const k = bf16(rows * kvHeads * headDim)
  const offsets = Int32Array.from({ length: sequences + 1 }, (_, i) => i * length)
  const shape = {
    heads,
    kvHeads,
    headDim,
    scale: headDim ** -0.5,
    offsets,
    positions: new Int32Array(sequences),
  }
  const forward = { ...shape, q, k, v: k }
  const backward = { ...forward, out: q, dout: q, logSumExp: new Float32Array(rows * heads).fill(3) }
  // Half of the scores, twice multiplied; five products in the backward pass.
  const flops = 2 * sequences * length * length * heads * headDim
  const bytes = 2 * (2 * q.length + 2 * k.length)
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
  const keys = bf16(sequences * length * kvHeads * headDim)
  const args = {
    ...{ heads, kvHeads, headDim, scale: headDim ** -0.5, keys, values: keys },
    q: bf16(sequences * heads * headDim),
    pages: Int32Array.from({ length: pages }, (_, i) => i),
    pageOffsets: Int32Array.from({ length: sequences + 1 }, (_, i) => (i * length) / 64),
    queryOffsets: Int32Array.from({ length: sequences + 1 }, (_, i) => i),
    positions: new Int32Array(sequences).fill(length - 1),
  }
  return {
    name: `paged-attention/${sequences}x${length}`,
    kernel: 'pagedAttention',
    args,
    bytes: 4 * keys.length,
    flops: 0,
  }
}

function policyLoss(rows: number, inputs: number, vocabulary: number): GpuKernel {
  const args = {
    hidden: bf16(rows * inputs),
    weight: floats(vocabulary * inputs),
    inputs,
    ...policyGradient(rows, vocabulary),
  }
  return {
    name: `policy-loss/${rows}`,
    kernel: 'policyLoss',
    args,
    bytes: 0,
    flops: 6 * rows * inputs * vocabulary,
  }
}

function sampling(rows: number, vocabulary: number): GpuKernel {
  const args = {
    ...{ logits: floats(rows * vocabulary), vocabulary, seeds: new BigUint64Array(rows) },
    ...{
      temperatures: new Float32Array(rows).fill(1),
      topPs: new Float32Array(rows).fill(1),
      minPs: new Float32Array(rows),
    },
    ...{ topKs: new Int32Array(rows), samples: new Int32Array(rows), positions: new Int32Array(rows) },
  }
  return { name: `sample/${rows}`, kernel: 'sample', args, bytes: 4 * rows * vocabulary, flops: 0 }
}

function rowWise(rows: number, hidden: number, ffn: number): GpuKernel[] {
  const norm = {
    x: floats(rows * hidden),
    weight: floats(hidden),
    groups: 1,
    epsilon: 1e-5,
    outputType: 'bf16',
  }
  const gateUp = bf16(rows * 2 * ffn)
  return [
    { name: `rms-norm/${rows}`, kernel: 'rmsNorm', args: norm, bytes: 6 * rows * hidden, flops: 0 },
    {
      name: `swiglu/${rows}`,
      kernel: 'swiglu',
      args: { gateUp, width: ffn },
      bytes: 6 * rows * ffn,
      flops: 0,
    },
  ]
}

function adamw(count: number): GpuKernel {
  const args = {
    ...{ weight: floats(count), gradient: floats(count), firstMoment: floats(count) },
    secondMoment: new Float32Array(count).fill(1),
    ...{
      learningRate: 1e-9,
      beta1: 0.9,
      beta2: 0.999,
      epsilon: 1e-8,
      weightDecay: 0,
      step: 1,
      gradientScale: 1,
    },
  }
  return { name: `adamw/${count}`, kernel: 'adamw', args, bytes: 28 * count, flops: 0 }
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
  const { seconds } = await loadNative().kernels[work.kernel]!({ ...work.args, device, repeat })
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
