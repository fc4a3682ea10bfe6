/** What the CUDA backend launches, written down by the emulation without being run: grids and shared memory at real sizes. */
import { kernels } from '../lib/kernels.ts'
import { loadEmulated } from '../lib/native.ts'
import { policyGradient } from './ours/kernels.ts'

export interface Launch {
  kernel: string
  blocks: number
  threads: number
  sharedBytes: number
}

const device = 'cuda-emulated'

/** The launches of `work` on a card with so many multiprocessors. Its results say nothing. */
export async function launchesOf(work: () => Promise<unknown>, multiprocessors: number): Promise<Launch[]> {
  const { emulation } = loadEmulated()
  emulation.takeLaunches()
  emulation.setMultiprocessors(multiprocessors)
  emulation.recordLaunches(true)
  try {
    await work()
  } finally {
    emulation.recordLaunches(false)
    emulation.setMultiprocessors(0)
  }
  return emulation.takeLaunches()
}

type DType = 'f32' | 'bf16'
const elements = (count: number, dtype: DType) =>
  dtype === 'f32' ? new Float32Array(count) : new Uint16Array(count)

interface Product {
  rows: number
  inputs: number
  outputs: number
  dtype?: DType
}

export const product = ({ rows, inputs, outputs, dtype = 'bf16' }: Product) =>
  kernels.matmul(
    {
      x: elements(rows * inputs, dtype),
      weight: new Float32Array(outputs * inputs),
      inputs,
      outputType: dtype,
    },
    { device },
  )

export const productBackward = ({ rows, inputs, outputs, dtype = 'bf16' }: Product) =>
  kernels.matmulBackward(
    {
      dy: elements(rows * outputs, dtype),
      x: elements(rows * inputs, dtype),
      weight: new Float32Array(outputs * inputs),
      inputs,
    },
    { device },
  )

interface Sequences {
  lengths: number[]
  heads: number
  kvHeads: number
  headDim: number
  dtype?: DType
  /** of each, that it shares with the one before */
  shared?: number[]
}

/** Whole sequences, or those that go on behind what they share. */
function attentionArguments({ lengths, heads, kvHeads, headDim, dtype = 'bf16', shared }: Sequences) {
  const offsets = Int32Array.from([0, ...lengths])
  for (let i = 1; i < offsets.length; i++) offsets[i]! += offsets[i - 1]!
  const rows = offsets.at(-1)!
  return {
    q: elements(rows * heads * headDim, dtype),
    k: elements(rows * kvHeads * headDim, dtype),
    v: elements(rows * kvHeads * headDim, dtype),
    ...{ offsets, heads, kvHeads, headDim },
    ...(shared ? { positions: Int32Array.from(shared) } : {}),
  }
}

export const attention = (sequences: Sequences) =>
  kernels.attention(attentionArguments(sequences), { device })

export function attentionBackward(sequences: Sequences) {
  const args = attentionArguments(sequences)
  const { q, heads, headDim } = args
  const logSumExp = new Float32Array(q.length / headDim).fill(0)
  return kernels.attentionBackward({ ...args, heads, out: q, dout: q, logSumExp }, { device })
}

/** One new token each behind `length` keys. */
export function decode({
  rows,
  length,
  ...shape
}: { rows: number; length: number } & Omit<Sequences, 'lengths'>) {
  const { heads, kvHeads, headDim, dtype = 'bf16' } = shape
  const perRow = Math.ceil(length / 64)
  // All rows read the same pages: what is launched does not depend on it.
  const cache = elements(perRow * 64 * kvHeads * headDim, dtype)
  const args = {
    q: elements(rows * heads * headDim, dtype),
    ...{ keys: cache, values: cache, heads, kvHeads, headDim },
    pages: Int32Array.from({ length: rows * perRow }, (_, i) => i % perRow),
    pageOffsets: Int32Array.from({ length: rows + 1 }, (_, i) => i * perRow),
    queryOffsets: Int32Array.from({ length: rows + 1 }, (_, i) => i),
    positions: new Int32Array(rows).fill(length - 1),
  }
  return kernels.pagedAttention(args, { device })
}

export const sampling = (rows: number, vocabulary: number) =>
  kernels.sample({ logits: new Float32Array(rows * vocabulary), vocabulary }, { device })

interface Head {
  rows: number
  inputs: number
  vocabulary: number
  dtype?: DType
}

export function logProbs({ rows, inputs, vocabulary, dtype = 'bf16' }: Head) {
  const hidden = elements(rows * inputs, dtype)
  const weight = new Float32Array(vocabulary * inputs)
  return kernels.logProbs({ hidden, weight, inputs, targets: new Int32Array(rows) }, { device })
}

export function policyLoss({ rows, inputs, vocabulary, dtype = 'bf16' }: Head) {
  const loss = policyGradient(rows, vocabulary)
  const args = {
    hidden: elements(rows * inputs, dtype),
    weight: new Float32Array(vocabulary * inputs),
    inputs,
  }
  return kernels.policyLoss({ ...args, ...(loss as object), targets: loss.targets } as never, { device })
}

export async function rowWise(rows: number, width: number, dtype: DType = 'bf16') {
  const x = elements(rows * width, dtype)
  const weight = new Float32Array(width)
  const inverseRms = new Float32Array(rows)
  for (const outputType of ['f32', 'bf16'] as const) {
    await kernels.rmsNorm({ x, weight, epsilon: 1e-5, outputType }, { device })
    await kernels.rmsNormBackward({ dy: x, x, weight, inverseRms, outputType }, { device })
  }
  await kernels.swiglu({ gateUp: elements(2 * rows * width, dtype), width }, { device })
  await kernels.swigluBackward({ gateUp: elements(2 * rows * width, dtype), dy: x, width }, { device })
  const half = new Float32Array(32)
  const tables = { positions: new Int32Array(rows), cosines: half, sines: half, headDim: 64 }
  await kernels.rope({ x, heads: width / 64, ...tables }, { device })
}

export async function embedding(rows: number, width: number) {
  const ids = new Int32Array(rows)
  for (const dtype of ['f32', 'bf16'] as const) {
    await kernels.embedding({ ids, table: new Float32Array(width), width, dtype }, { device })
  }
  await kernels.embeddingBackward(
    { ids, dx: new Float32Array(rows * width), width, vocabulary: 1 },
    { device },
  )
}

export async function optimizer(count: number) {
  const weight = new Float32Array(count)
  const moments = { gradient: weight, firstMoment: weight, secondMoment: weight }
  await kernels.adamw({ weight, ...moments, learningRate: 1e-3, step: 1 }, { device })
  await kernels.globalNorm({ gradients: [weight] } as never, { device })
}
