/** Double-precision references of the kernels, written for reading, and the tools that compare with them. */
import type { ExecutionContext } from 'ava'
import { fromBfloat16, toBfloat16 } from '../../lib/bfloat16.ts'
import type { Elements } from '../../lib/kernels.ts'
import { loadNative } from '../../lib/native.ts'
import { Random } from '../../lib/random.ts'

export type DTypeName = 'f32' | 'bf16'
/** What this machine computes: bf16 needs AVX-512 (`SSRL_CPU=avx2` shows how it is without). */
export const dtypes: DTypeName[] = loadNative().environment().bf16 ? ['f32', 'bf16'] : ['f32']

/** Values of a normal distribution, from a seed. */
export function normal(seed: number, count: number, deviation = 1): Float32Array {
  const random = new Random(seed)
  const values = new Float32Array(count)
  for (let i = 0; i < count; i++) {
    values[i] =
      deviation * Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next())
  }
  return values
}

export const elements = (values: Float32Array, dtype: DTypeName): Elements =>
  dtype === 'f32' ? values : toBfloat16(values)

/** What a kernel sees of an array, as doubles. */
export const doubles = (values: Elements): Float64Array =>
  Float64Array.from(values instanceof Uint16Array ? fromBfloat16(values) : values)

export interface Tolerance {
  absolute: number
  relative: number
}

/** Fails unless |actual − expected| ≤ absolute + relative · |expected| everywhere; logs the share that was used. */
export function close(
  t: ExecutionContext,
  name: string,
  actual: Elements,
  expected: ArrayLike<number>,
  { absolute, relative }: Tolerance,
): void {
  t.is(actual.length, expected.length, `${name}: length`)
  const values = doubles(actual)
  let worst = 0
  let at = 0
  for (let i = 0; i < expected.length; i++) {
    const used = Math.abs(values[i]! - expected[i]!) / (absolute + relative * Math.abs(expected[i]!))
    if (!(used <= worst)) {
      worst = used
      at = i
    }
  }
  if (!(worst <= 1)) t.fail(`${name}[${at}]: expected ${expected[at]}, got ${values[at]}`)
  else t.pass(`${name}: ${(100 * worst).toFixed(0)} % of the tolerance`)
}

/** y[rows, outputs] = x·Wᵀ + bias */
export function matmul(
  x: Float64Array,
  weight: Float64Array,
  inputs: number,
  bias?: Float64Array,
): Float64Array {
  const rows = x.length / inputs
  const outputs = weight.length / inputs
  const y = new Float64Array(rows * outputs)
  for (let r = 0; r < rows; r++) {
    for (let o = 0; o < outputs; o++) {
      let sum = bias ? bias[o]! : 0
      for (let i = 0; i < inputs; i++) sum += x[r * inputs + i]! * weight[o * inputs + i]!
      y[r * outputs + o] = sum
    }
  }
  return y
}

export function transpose(matrix: Float64Array, columns: number): Float64Array {
  const rows = matrix.length / columns
  return Float64Array.from(matrix, (_, i) => matrix[(i % rows) * columns + Math.floor(i / rows)]!)
}

export function rmsNorm(x: Float64Array, weight: Float64Array, epsilon: number): Float64Array {
  const width = weight.length
  const y = new Float64Array(x.length)
  for (let base = 0; base < x.length; base += width) {
    let sum = 0
    for (let j = 0; j < width; j++) sum += x[base + j]! ** 2
    const inverse = 1 / Math.sqrt(sum / width + epsilon)
    for (let j = 0; j < width; j++) y[base + j] = x[base + j]! * inverse * weight[j]!
  }
  return y
}

export interface RopeReference {
  positions: Int32Array
  cosines: Float32Array
  sines: Float32Array
  heads: number
  headDim: number
}

export function rope(x: Float64Array, { positions, cosines, sines, heads, headDim }: RopeReference) {
  const half = headDim / 2
  return Float64Array.from(x, (value, index) => {
    const i = index % headDim
    const pair = i % half
    const at = positions[Math.floor(index / (heads * headDim))]! * half + pair
    return i < half
      ? value * cosines[at]! - x[index + half]! * sines[at]!
      : value * cosines[at]! + x[index - half]! * sines[at]!
  })
}

export function swiglu(gateUp: Float64Array, width: number): Float64Array {
  return Float64Array.from({ length: gateUp.length / 2 }, (_, index) => {
    const base = Math.floor(index / width) * 2 * width + (index % width)
    const gate = gateUp[base]!
    return (gate / (1 + Math.exp(-gate))) * gateUp[base + width]!
  })
}

export interface AttentionReference {
  heads: number
  kvHeads: number
  headDim: number
  scale: number
  offsets: Int32Array
  positions?: Int32Array
}

/** The rows whose keys each sequence has: the first ones of the sequence before, then its own. */
export function keyRows({
  offsets,
  positions,
}: Pick<AttentionReference, 'offsets' | 'positions'>): number[][] {
  const paths: number[][] = []
  for (let s = 0; s + 1 < offsets.length; s++) {
    const own = Array.from({ length: offsets[s + 1]! - offsets[s]! }, (_, i) => offsets[s]! + i)
    paths.push([...(paths[s - 1] ?? []).slice(0, positions?.[s] ?? 0), ...own])
  }
  return paths
}

/** Causal attention over packed sequences. */
export function attention(q: Float64Array, k: Float64Array, v: Float64Array, shape: AttentionReference) {
  const { heads, kvHeads, headDim, scale, offsets } = shape
  const out = new Float64Array(q.length)
  const logSumExp = new Float64Array(q.length / headDim)
  for (const [s, keys] of keyRows(shape).entries()) {
    for (let row = offsets[s]!; row < offsets[s + 1]!; row++) {
      const seen = keys.slice(0, keys.indexOf(row) + 1)
      for (let head = 0; head < heads; head++) {
        const kv = Math.floor(head / (heads / kvHeads))
        const query = (row * heads + head) * headDim
        const scores = seen.map((key) => {
          let dot = 0
          for (let j = 0; j < headDim; j++) dot += q[query + j]! * k[(key * kvHeads + kv) * headDim + j]!
          return dot * scale
        })
        const maximum = Math.max(...scores)
        const total = scores.reduce((sum, score) => sum + Math.exp(score - maximum), 0)
        logSumExp[row * heads + head] = maximum + Math.log(total)
        for (const [index, key] of seen.entries()) {
          const weight = Math.exp(scores[index]! - maximum) / total
          for (let j = 0; j < headDim; j++) {
            out[query + j]! += weight * v[(key * kvHeads + kv) * headDim + j]!
          }
        }
      }
    }
  }
  return { out, logSumExp }
}

/** Log-probs of softmax(logits · inverse temperature) and its entropy, for one row. */
export function logSoftmax(logits: ArrayLike<number>, temperature: number) {
  const scaled = Float64Array.from(logits, (logit) => logit / temperature)
  const maximum = scaled.reduce((best, value) => Math.max(best, value), -Infinity)
  const logSum = Math.log(scaled.reduce((sum, value) => sum + Math.exp(value - maximum), 0))
  const logProbs = scaled.map((value) => value - maximum - logSum)
  const entropy = -logProbs.reduce((sum, lp) => (lp === -Infinity ? sum : sum + Math.exp(lp) * lp), 0)
  return { logProbs, entropy }
}

/** Central differences of `f` at the chosen indices of `x`. */
export function differences(
  f: (x: Float64Array) => number,
  x: Float64Array,
  indices: number[],
  step = 1e-5,
): Float64Array {
  return Float64Array.from(indices, (index) => {
    const shifted = Float64Array.from(x)
    shifted[index] = x[index]! + step
    const up = f(shifted)
    shifted[index] = x[index]! - step
    return (up - f(shifted)) / (2 * step)
  })
}

export const dot = (a: Float64Array, b: Float64Array): number =>
  a.reduce((sum, value, i) => sum + value * b[i]!, 0)

/** About `count` indices spread over [0, length). */
export function spread(length: number, count: number): number[] {
  const step = Math.max(1, Math.floor(length / count))
  return Array.from({ length: Math.ceil(length / step) }, (_, i) => i * step)
}

export const pick = (values: Elements, indices: number[]): Float32Array => {
  const wide = values instanceof Uint16Array ? fromBfloat16(values) : values
  return Float32Array.from(indices, (index) => wide[index]!)
}

/** The bytes of an array, for comparisons bit for bit. */
export const bytes = (values: ArrayBufferView): Buffer =>
  Buffer.from(values.buffer, values.byteOffset, values.byteLength)
