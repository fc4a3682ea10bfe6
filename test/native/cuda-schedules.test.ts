/** Orders of warps and lanes on the emulated CUDA device, on which no result may depend. */
import test from 'ava'
import { loadEmulated } from '../../lib/native.ts'
import { emulated, hasEmulated } from './devices.ts'
import { bytes, elements, normal } from './reference.ts'

const { kernels } = emulated
const run = hasEmulated ? test.serial : test.skip
const seeds = [1, 2, 3, 4, 5, 6]

type Results = Record<string, unknown>
type Family = (dtype: 'f32' | 'bf16') => Promise<Results>

const [heads, kvHeads, headDim, rows, width] = [6, 2, 64, 75, 128]
const vocabulary = 700

const shape = (dtype: 'f32' | 'bf16') => ({
  q: elements(normal(1, rows * heads * headDim), dtype),
  k: elements(normal(2, rows * kvHeads * headDim), dtype),
  v: elements(normal(3, rows * kvHeads * headDim), dtype),
  offsets: Int32Array.of(0, 68, rows),
  ...{ heads, kvHeads, headDim },
})

const head = (dtype: 'f32' | 'bf16') => ({
  hidden: elements(normal(1, 9 * 40), dtype),
  weight: normal(2, vocabulary * 40, 0.3),
  inputs: 40,
  targets: Int32Array.from({ length: 9 }, (_, i) => (i * 131) % vocabulary),
})

const families: Record<string, Family> = {
  attention: async (dtype) => {
    const args = shape(dtype)
    const forward = await kernels.attention(args)
    const dout = elements(normal(4, args.q.length), dtype)
    return { ...forward, ...(await kernels.attentionBackward({ ...args, ...forward, dout })) }
  },
  'attention over pages': (dtype) =>
    kernels.pagedAttention({
      ...{ heads, kvHeads, headDim },
      q: elements(normal(1, 5 * heads * headDim), dtype),
      keys: elements(normal(2, 3 * 64 * kvHeads * headDim), dtype),
      values: elements(normal(3, 3 * 64 * kvHeads * headDim), dtype),
      pages: Int32Array.of(2, 0, 1, 2),
      pageOffsets: Int32Array.of(0, 3, 4),
      queryOffsets: Int32Array.of(0, 4, 5),
      positions: Int32Array.of(150, 12),
    }) as Promise<Results>,
  'rms-norm': async (dtype) => {
    const x = elements(normal(1, rows * width), dtype)
    const weight = normal(2, width)
    const forward = await kernels.rmsNorm({ x, weight, epsilon: 1e-5 })
    const dy = elements(normal(3, x.length), dtype)
    const { inverseRms } = forward
    return { ...forward, ...(await kernels.rmsNormBackward({ dy, x, weight, inverseRms })) }
  },
  'swiglu and rope': async (dtype) => {
    const gateUp = elements(normal(1, 2 * rows * width), dtype)
    const dy = elements(normal(2, rows * width), dtype)
    const tables = { cosines: normal(3, rows * 32), sines: normal(4, rows * 32) }
    const positions = Int32Array.from({ length: rows }, (_, i) => rows - 1 - i)
    return {
      ...(await kernels.swiglu({ gateUp, width })),
      ...(await kernels.swigluBackward({ gateUp, dy, width })),
      turned: (await kernels.rope({ x: dy, positions, ...tables, heads: 2, headDim: 64 })).y,
    }
  },
  embedding: async (dtype) => {
    const ids = Int32Array.from({ length: rows }, (_, i) => (i * i) % 30)
    const dx = normal(1, rows * width)
    return {
      ...(await kernels.embedding({ ids, table: normal(2, 30 * width), width, dtype })),
      ...(await kernels.embeddingBackward({ ids, dx, width, vocabulary: 30 })),
    }
  },
  'log-probs and the clipped loss': async (dtype) => {
    const args = head(dtype)
    const loss = await kernels.policyLoss({
      ...{ ...args, type: 'policy-gradient', advantages: normal(5, 9), beta: 0.1 },
      oldLogProbs: normal(6, 9).map((value) => value - 6),
      referenceLogProbs: normal(7, 9).map((value) => value - 6),
    })
    const { statistics, ...arrays } = loss
    return {
      ...(await kernels.logProbs(args)),
      ...arrays,
      sums: Float64Array.from(Object.values(statistics)),
    }
  },
  sampling: async () => {
    const logits = normal(1, 6 * vocabulary, 3)
    const settings = {
      temperature: Float32Array.of(1, 0, 0.7, 1.3, 1, 1),
      topK: Int32Array.of(0, 0, 20, 0, 0, 50),
      topP: Float32Array.of(1, 1, 1, 0.8, 1, 0.9),
      minP: Float32Array.of(0, 0, 0, 0, 0.05, 0.01),
    }
    return { ...(await kernels.sample({ logits, vocabulary, ...settings, seed: 9 })) }
  },
  'AdamW and the global norm': async () => {
    const [weight, gradient, firstMoment] = [1, 2, 3].map((seed) => normal(seed, 5000)) as Float32Array[]
    const moments = { firstMoment: firstMoment!, secondMoment: gradient!.map((value) => value * value) }
    const step = { weight: weight!, gradient: gradient!, ...moments, learningRate: 1e-2, step: 3 }
    const norm = await kernels.globalNorm({ gradients: [gradient!, weight!] })
    return { ...(await kernels.adamw(step)), norm: Float64Array.of(norm) }
  },
}

for (const [name, family] of Object.entries(families)) {
  run(
    `emulated CUDA: ${name}: ${seeds.length} random orders of warps and lanes give the bits of the fixed one`,
    async (t) => {
      const { emulation } = loadEmulated()
      t.teardown(() => emulation.setSeed(0))
      for (const dtype of ['f32', 'bf16'] as const) {
        emulation.setSeed(0)
        const expected = Object.entries(await family(dtype))
        t.true(expected.length > 0)
        for (const seed of seeds) {
          emulation.setSeed(seed)
          const got = await family(dtype)
          for (const [result, values] of expected) {
            t.deepEqual(
              bytes(got[result] as ArrayBufferView),
              bytes(values as ArrayBufferView),
              `${dtype} ${result}`,
            )
          }
        }
      }
    },
  )
}
