/** How far the CUDA kernels, run by the emulation, are from the CPU's and from a double-precision reference. */
import { type Elements, kernels } from '../lib/kernels.ts'
import * as reference from '../test/native/reference.ts'
import { policyGradient } from './ours/kernels.ts'

const { doubles, elements, normal } = reference
type DType = 'f32' | 'bf16'
type Values = ArrayLike<number> & (Float32Array | Uint16Array | Float64Array | Int32Array)

export interface Deviation {
  family: string
  result: string
  dtype: DType
  /** largest difference over the largest magnitude */
  fromCpu: number
  /** NaN where there is no reference in closed form */
  fromReference: number
}

interface Case {
  family: string
  run: (device: 'cpu' | 'cuda-emulated') => Promise<Record<string, unknown>>
  /** By the name of the result. */
  expected?: Record<string, Float64Array>
}

function deviation(got: Values, expected: Float64Array): number {
  const values = got instanceof Float32Array || got instanceof Uint16Array ? doubles(got) : got
  let [largest, magnitude] = [0, 0]
  for (const [i, value] of expected.entries()) {
    largest = Math.max(largest, Math.abs(values[i]! - value))
    magnitude = Math.max(magnitude, Math.abs(value))
  }
  return magnitude === 0 ? largest : largest / magnitude
}

const numbers = (values: unknown): Float64Array | null =>
  values instanceof Float32Array || values instanceof Uint16Array
    ? doubles(values)
    : values instanceof Int32Array
      ? Float64Array.from(values)
      : null

function products(dtype: DType): Case[] {
  const [rows, outputs, inputs] = [70, 136, 576]
  const [x, dy] = [elements(normal(1, rows * inputs), dtype), elements(normal(2, rows * outputs), dtype)]
  const weight = normal(3, outputs * inputs)
  const seen = doubles(elements(weight, dtype))
  const dyT = reference.transpose(doubles(dy), outputs)
  const expected = {
    y: reference.matmul(doubles(x), seen, inputs, new Float64Array(outputs)),
    dx: reference.matmul(doubles(dy), reference.transpose(seen, inputs), outputs),
    dweight: reference.matmul(dyT, reference.transpose(doubles(x), inputs), rows),
    dbias: reference.matmul(dyT, new Float64Array(rows).fill(1), rows),
  }
  return [
    { family: 'matmul', run: (device) => kernels.matmul({ x, weight, inputs }, { device }), expected },
    {
      family: 'matmul backward',
      ...{ run: (device) => kernels.matmulBackward({ dy, x, weight, inputs }, { device }), expected },
    },
  ]
}

function attention(dtype: DType): Case[] {
  const [heads, kvHeads, headDim, lengths] = [6, 2, 64, [150, 31]]
  const rows = 181
  const [q, k, v, dout] = [heads, kvHeads, kvHeads, heads].map((count, i) =>
    elements(normal(i + 1, rows * count * headDim), dtype),
  ) as [Elements, Elements, Elements, Elements]
  const offsets = Int32Array.of(0, lengths[0]!, rows)
  const args = { q, k, v, offsets, heads, kvHeads, headDim, scale: headDim ** -0.5 }
  const expected = { out: reference.attention(doubles(q), doubles(k), doubles(v), args).out }
  return [
    { family: 'attention', run: (device) => kernels.attention(args, { device }) as never, expected },
    {
      family: 'attention backward',
      run: async (device) => {
        const forward = await kernels.attention(args)
        return { ...(await kernels.attentionBackward({ ...args, ...forward, dout }, { device })) }
      },
    },
  ]
}

function rowWise(dtype: DType): Case[] {
  const [rows, width] = [47, 320]
  const [x, dy] = [elements(normal(1, rows * width), dtype), elements(normal(2, rows * width), dtype)]
  const weight = normal(3, width)
  const epsilon = 1e-5
  const gateUp = elements(normal(4, 2 * rows * width), dtype)
  const angles = Float32Array.from(
    { length: rows * 32 },
    (_, i) => Math.floor(i / 32) * 100 ** (-(i % 32) / 32),
  )
  const turn = {
    ...{ positions: Int32Array.from({ length: rows }, (_, i) => i), heads: width / 64, headDim: 64 },
    ...{ cosines: angles.map(Math.cos), sines: angles.map(Math.sin) },
  }
  return [
    {
      family: 'rms-norm',
      run: (device) => kernels.rmsNorm({ x, weight, epsilon }, { device }),
      expected: { y: reference.rmsNorm(doubles(x), doubles(weight), epsilon) },
    },
    {
      family: 'rms-norm backward',
      run: async (device) => {
        const { inverseRms } = await kernels.rmsNorm({ x, weight, epsilon })
        return { ...(await kernels.rmsNormBackward({ dy, x, weight, inverseRms }, { device })) }
      },
    },
    {
      family: 'swiglu',
      run: (device) => kernels.swiglu({ gateUp, width }, { device }),
      expected: { y: reference.swiglu(doubles(gateUp), width) },
    },
    { family: 'swiglu backward', run: (device) => kernels.swigluBackward({ gateUp, dy, width }, { device }) },
    {
      family: 'rope',
      run: (device) => kernels.rope({ x, ...turn }, { device }),
      expected: { y: reference.rope(doubles(x), turn) },
    },
  ]
}

function vocabulary(dtype: DType): Case[] {
  const [rows, inputs, size] = [21, 96, 1500]
  const hidden = elements(normal(1, rows * inputs), dtype)
  const weight = normal(2, size * inputs, 0.1)
  const targets = Int32Array.from({ length: rows }, (_, i) => (i * 7919) % size)
  const logits = reference.matmul(
    doubles(hidden),
    doubles(elements(weight, dtype)),
    inputs,
    new Float64Array(size),
  )
  const softmax = Array.from(targets, (_, i) =>
    reference.logSoftmax(logits.subarray(i * size, (i + 1) * size), 1),
  )
  const logProbs = Float64Array.from(softmax, (row, i) => row.logProbs[targets[i]!]!)
  const rounded = Float32Array.from(logits)
  const loss = { ...policyGradient(rows, size), hidden, weight, inputs }
  return [
    {
      family: 'log-probs',
      run: (device) => kernels.logProbs({ hidden, weight, inputs, targets }, { device }) as never,
      expected: { logProbs },
    },
    { family: 'policy loss', run: (device) => kernels.policyLoss(loss as never, { device }) as never },
    {
      family: 'sampling',
      run: (device) => kernels.sample({ logits: rounded, vocabulary: size, topP: 0.9 }, { device }) as never,
    },
  ]
}

function optimizer(): Case[] {
  const [weight, gradient, firstMoment] = [1, 2, 3].map((seed) => normal(seed, 999)) as Float32Array[]
  const secondMoment = gradient!.map((value) => value * value)
  const args = { weight, gradient, firstMoment, secondMoment, learningRate: 1e-3, step: 3 }
  return [{ family: 'AdamW', run: (device) => kernels.adamw(args as never, { device }) as never }]
}

export async function deviations(): Promise<Deviation[]> {
  const found: Deviation[] = []
  for (const dtype of ['f32', 'bf16'] as const) {
    const cases = [products, attention, rowWise, vocabulary].flatMap((make) => make(dtype))
    if (dtype === 'f32') cases.push(...optimizer())
    for (const { family, run, expected } of cases) {
      const [cpu, device] = [await run('cpu'), await run('cuda-emulated')]
      for (const [result, values] of Object.entries(device)) {
        const onCpu = numbers(cpu[result])
        if (onCpu === null) continue
        const known = expected?.[result]
        const fromReference = known ? deviation(values as Values, known) : Number.NaN
        found.push({ family, result, dtype, fromCpu: deviation(values as Values, onCpu), fromReference })
      }
    }
  }
  return found
}
