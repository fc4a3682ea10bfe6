import test, { type ExecutionContext } from 'ava'
import { type DType, loadNative, type NativeModelConfig } from '../../lib/native.ts'
import {
  computeTypes,
  initializeNativePolicy,
  loadNativePolicy,
  smallConfig,
} from '../helpers/fixture-policy.ts'
import { concat, flatten, largestDifference } from '../helpers/reference.ts'
import { readSafetensors } from '../helpers/safetensors.ts'
import { sharedPath, testWithShared } from '../helpers/shared.ts'

const lengths = [1, 2, 300, 31, 64, 65, 3, 129, 47, 123]
const sequences = lengths.map((length, s) =>
  Int32Array.from({ length }, (_, t) => (s * 37 + t * 19 + ((t * t) % 11)) % smallConfig.vocabSize),
)

async function open(
  t: ExecutionContext,
  config: Partial<NativeModelConfig> = {},
  options: { dtype?: DType; threads?: number } = {},
) {
  const policy = await initializeNativePolicy(config, { ...options, standardDeviation: 0.2 })
  t.teardown(() => policy.dispose())
  return policy
}

const architectures: Record<string, Partial<NativeModelConfig>> = {
  llama: {},
  'llama with all biases': { qkvBias: true, outputBias: true, mlpBias: true, tieWordEmbeddings: false },
  qwen3: { qkNorm: true, headDim: 14, numHeads: 4, numKvHeads: 4 },
  'a single head of size 256': { numHeads: 1, numKvHeads: 1, headDim: 256 },
  'sizes of 2 and 1': { hiddenSize: 2, intermediateSize: 1, numHeads: 1, numKvHeads: 1, headDim: 2 },
}

for (const [name, config] of Object.entries(architectures)) {
  for (const dtype of computeTypes) {
    test(`${name}, ${dtype}: a sequence scores the same bits alone and in a batch, with 1, 2 and 3 threads`, async (t) => {
      const { tokens, offsets } = flatten(sequences)
      const first = await (await open(t, config, { dtype, threads: 1 })).score(tokens, offsets, 0.8, null)
      t.is(first.logProbs.length, tokens.length - sequences.length)
      for (const threads of [2, 3]) {
        const policy = await open(t, config, { dtype, threads })
        t.true(policy.exact)
        t.deepEqual(await policy.score(tokens, offsets, 0.8, null), first)
        const alone = []
        for (const sequence of sequences) {
          alone.push(await policy.score(sequence, Int32Array.of(0, sequence.length), 0.8, null))
        }
        t.deepEqual(concat(alone.map(({ logProbs }) => logProbs)), first.logProbs)
        t.deepEqual(concat(alone.map(({ entropies }) => entropies)), first.entropies)
      }
    })
  }
}

test('scores are those of softmax(logits / temperature), in double precision within 1e-5', async (t) => {
  const policy = await open(t)
  const sequence = sequences[2]!
  const logits = await policy.logits(sequence)
  const size = smallConfig.vocabSize
  t.is(logits.length, sequence.length * size)
  for (const temperature of [0.3, 1, 2.5]) {
    const scores = await policy.score(sequence, Int32Array.of(0, sequence.length), temperature, null)
    for (let row = 0; row + 1 < sequence.length; row++) {
      const scaled = Array.from(logits.subarray(row * size, (row + 1) * size), (value) => value / temperature)
      const most = Math.max(...scaled)
      const total = Math.log(scaled.reduce((sum, value) => sum + Math.exp(value - most), 0)) + most
      const entropy = scaled.reduce((sum, value) => sum - Math.exp(value - total) * (value - total), 0)
      t.true(Math.abs(scores.logProbs[row]! - (scaled[sequence[row + 1]!]! - total)) < 1e-5)
      t.true(Math.abs(scores.entropies[row]! - entropy) < 1e-5)
    }
  }
})

test('what does not fit is ERR_INVALID_ARG, and the policy goes on working', async (t) => {
  const policy = await open(t)
  const refused = (tokens: number[], offsets: number[], temperature = 1) =>
    t.throwsAsync(
      async () => policy.score(Int32Array.from(tokens), Int32Array.from(offsets), temperature, null),
      { code: 'ERR_INVALID_ARG' },
    )
  await refused([1, 2, 131], [0, 3])
  await refused([1, -1, 3], [0, 3])
  await refused([1, 2, 3], [0, 2])
  await refused([1, 2, 3], [1, 3])
  await refused([1, 2, 3], [0, 2, 2, 3])
  await refused([1, 2, 3], [0, 5, 3])
  await refused([1, 2, 3], [])
  await refused(new Array(513).fill(1), [0, 513])
  for (const temperature of [0, -1, Number.NaN, Infinity]) await refused([1, 2, 3], [0, 3], temperature)
  const { logProbs } = await policy.score(Int32Array.of(1, 2, 3), Int32Array.of(0, 3), 1, null)
  t.is(logProbs.length, 2)
  t.is((await policy.score(Int32Array.of(5), Int32Array.of(0, 1), 1, null)).logProbs.length, 0)
})

test('a score that is aborted rejects, and the next one works', async (t) => {
  const policy = await open(t)
  const { tokens, offsets } = flatten(sequences)
  const token = loadNative().createAbortToken()
  const stopped = policy.score(tokens, offsets, 1, token)
  token.abort()
  await t.throwsAsync(stopped, { code: 'ABORTED' })
  t.true((await policy.score(tokens, offsets, 1, null)).logProbs.length > 0)
})

test('initial weights depend on the seed alone, and have the deviation that was asked for', async (t) => {
  const name = 'model.layers.0.mlp.up_proj.weight'
  const read = async (threads: number, seed: number) => {
    const policy = await initializeNativePolicy(
      { hiddenSize: 200 },
      { threads, seed, standardDeviation: 0.03 },
    )
    t.teardown(() => policy.dispose())
    return policy.readParameter(name)
  }
  const weights = await read(1, 5)
  t.deepEqual(await read(3, 5), weights)
  t.notDeepEqual(await read(1, 6), weights)
  const variance = weights.reduce((sum, value) => sum + value * value, 0) / weights.length
  t.true(Math.abs(Math.sqrt(variance) / 0.03 - 1) < 0.03)
})

test.serial('weights that memory does not hold are ERR_OUT_OF_MEMORY with what was asked for', async (t) => {
  const before = process.env.SSRL_MEMORY
  t.teardown(() => {
    if (before === undefined) delete process.env.SSRL_MEMORY
    else process.env.SSRL_MEMORY = before
  })
  const held = loadNative().environment().memoryHeld
  process.env.SSRL_MEMORY = '1MB'
  const error = await t.throwsAsync(initializeNativePolicy({ vocabSize: 50_000 }), {
    code: 'ERR_OUT_OF_MEMORY',
  })
  t.regex(error!.message, /weights of the model/i)
  await t.throwsAsync(initializeNativePolicy({ vocabSize: 2 ** 26, hiddenSize: 2 ** 20 }), {
    code: 'ERR_OUT_OF_MEMORY',
  })
  process.env.SSRL_MEMORY = '100MB'
  const policy = await initializeNativePolicy()
  process.env.SSRL_MEMORY = String(loadNative().environment().memoryHeld + 50_000)
  const options = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, activationBudget: 0 }
  const { tokens, offsets } = flatten(sequences)
  await t.throwsAsync(loadNative().createLearner(policy, options), { code: 'ERR_OUT_OF_MEMORY' })
  await t.throwsAsync(policy.score(tokens, offsets, 1, null), { code: 'ERR_OUT_OF_MEMORY' })
  process.env.SSRL_MEMORY = '100MB'
  t.true((await policy.score(tokens, offsets, 1, null)).logProbs.length > 0)
  await policy.dispose()
  t.true(loadNative().environment().memoryHeld <= held + 1024)
})

const smollm2 = sharedPath('models', 'smollm2-135m-instruct')

// Seen: f32 at most 8e-5 apart; bf16 at most 0.36, 0.034 (log-probs) and 0.029 (entropies) in the root mean square.
for (const [dtype, bounds] of [
  ['f32', { most: 2e-3, rootMeanSquare: 2e-4 }],
  ['bf16', { most: 0.6, rootMeanSquare: 0.045 }],
] as const) {
  if (!computeTypes.includes(dtype)) continue
  testWithShared(`SmolLM2 in ${dtype} gives the log-probs and entropies of transformers`, async (t) => {
    const policy = await loadNativePolicy(smollm2, { dtype, file: 'model-q4_1.gguf' })
    t.teardown(() => policy.dispose())
    t.true(policy.exact)
    const reference = readSafetensors(sharedPath('fixtures', 'smollm2', 'reference.safetensors'))
    const cases = Array.from(
      { length: 8 },
      (_, i) => (name: string) => reference.get(`case.${i}.${name}`)!.data,
    )
    const { tokens, offsets } = flatten(cases.map((get) => get('ids') as Int32Array))
    const { logProbs, entropies } = await policy.score(tokens, offsets, 1, null)
    for (const [name, values] of Object.entries({ logprobs: logProbs, entropies })) {
      const expected = concat(cases.map((get) => get(name) as Float32Array))
      const most = largestDifference(values, expected)
      const squares = values.reduce((sum, value, i) => sum + (value - expected[i]!) ** 2, 0)
      const rootMeanSquare = Math.sqrt(squares / values.length)
      t.log(`${name}: at most ${most}, root mean square ${rootMeanSquare}`)
      t.true(most < bounds.most)
      t.true(rootMeanSquare < bounds.rootMeanSquare)
    }
  })
}
