/** Sequences that begin alike go through the learner's layers with the rows of their beginning once. */
import test, { type ExecutionContext } from 'ava'
import { type DType, loadNative, type NativePolicy } from '../../lib/native.ts'
import { computeTypes, initializeNativePolicy, loadNativePolicy } from '../helpers/fixture-policy.ts'
import {
  concat,
  fixtureNames,
  flatten,
  largestDifference,
  largestMagnitude,
  Reference,
} from '../helpers/reference.ts'
import { testWithShared } from '../helpers/shared.ts'

const options = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 }
const loss = {
  type: 'policy-gradient' as const,
  temperature: 0.9,
  epsilon: 0.2,
  epsilonHigh: 0.28,
  dualClip: 3,
  beta: 0.04,
}

/** Tokens of which the first `prompt` are those of all with this `id`, and from where on they are learnt. */
interface Sequence {
  tokens: Int32Array
  learntFrom: number
}

function sequence(id: number, prompt: number, completion: number, learntFrom = prompt): Sequence {
  const tokens = Int32Array.from({ length: prompt + completion }, (_, t) =>
    t < prompt ? (id * 29 + t * 7 + ((t * t) % 5)) % 60 : (completion * 13 + t * 11 + ((t * t) % 3)) % 60,
  )
  return { tokens, learntFrom }
}

const group = (id: number, prompt: number, completions: readonly number[]) =>
  completions.map((completion) => sequence(id, prompt, completion))

/** Value t belongs to token t + 1; what a sequence gets depends on `seeds` alone. */
function makeBatch(sequences: readonly Sequence[], seeds = sequences.map((_, s) => s)) {
  const values = (make: (s: number, t: number) => number) =>
    concat(
      sequences.map(({ tokens }, i) =>
        Float32Array.from({ length: tokens.length - 1 }, (_, t) => make(seeds[i]!, t)),
      ),
    )
  const weights = sequences.map(({ tokens, learntFrom }, i) =>
    Float32Array.from({ length: tokens.length - 1 }, (_, t) =>
      t + 1 < learntFrom || (t + 1 > learntFrom && (seeds[i]! + t) % 7 === 0) ? 0 : 0.01 * (1 + (t % 4)),
    ),
  )
  return {
    ...flatten(sequences.map(({ tokens }) => tokens)),
    weights: concat(weights),
    advantages: values((s) => (s % 2 === 0 ? 1.3 : -0.8)),
    oldLogProbs: values((s, t) => -4.1 + 0.1 * ((s + t) % 7)),
    referenceLogProbs: values((s, t) => -4 + 0.1 * ((s * t) % 5)),
  }
}

const cases: Record<string, Sequence[]> = {
  'prompts of 2, 64, 65 and 66 tokens': [
    ...group(1, 2, [5, 70, 1]),
    ...group(2, 64, [3, 4]),
    ...group(3, 65, [66, 1, 20, 9]),
    ...group(4, 66, [10, 11]),
  ],
  'prompts of 128, 157 and 301 tokens, two to eight members': [
    ...group(1, 128, [40, 41, 7]),
    ...group(2, 157, [20, 21, 30, 2, 50, 64, 65, 9]),
    ...group(3, 301, [33, 34]),
  ],
  'unequal prompts that begin alike': [
    sequence(5, 100, 20),
    sequence(5, 70, 9),
    sequence(5, 140, 30),
    sequence(5, 139, 31),
    sequence(5, 20, 100),
    sequence(5, 110, 3),
  ],
  'sequences that are equal, and one that is the beginning of another': [
    sequence(6, 80, 12),
    sequence(6, 80, 12),
    sequence(6, 75, 0, 70),
    sequence(6, 60, 0, 60),
    sequence(6, 80, 12),
  ],
  'tokens that are learnt inside of what is common': [
    sequence(7, 90, 8),
    sequence(7, 90, 9, 40),
    sequence(7, 90, 10, 1),
    sequence(7, 90, 11, 65),
    sequence(7, 90, 7),
  ],
  'a sequence of which nothing is learnt between two of a group': [
    sequence(8, 70, 6),
    sequence(8, 70, 9, 1000),
    sequence(8, 70, 8),
  ],
}

async function gradientsOf(policy: NativePolicy, parts: ReturnType<typeof makeBatch>[], budget = 2 ** 30) {
  const learner = await loadNative().createLearner(policy, { ...options, activationBudget: budget })
  const statistics = []
  for (const part of parts) statistics.push(await learner.accumulate(part, loss, null))
  const gradients = new Map<string, Float32Array>()
  for (const { name } of policy.parameters()) gradients.set(name, await learner.readGradient(name))
  learner.dispose()
  return {
    logProbs: concat(statistics.map(({ logProbs }) => logProbs)),
    loss: statistics.reduce((sum, part) => sum + part.loss, 0),
    gradients,
  }
}

/** All in one batch, where rows are shared, against each sequence alone, where none is. */
async function compare(t: ExecutionContext, policy: NativePolicy, sequences: Sequence[], bound: number) {
  const alone = await gradientsOf(
    policy,
    sequences.map((one, s) => makeBatch([one], [s])),
  )
  const batch = makeBatch(sequences)
  const together = await gradientsOf(policy, [batch])
  t.deepEqual(together.logProbs, alone.logProbs)
  t.true(Math.abs(together.loss - alone.loss) < 1e-12 * Math.max(1, Math.abs(alone.loss)))
  for (const [name, gradient] of together.gradients) {
    const expected = alone.gradients.get(name)!
    const error = largestDifference(gradient, expected) / largestMagnitude(expected)
    t.true(error <= bound, `${name}: ${error}`)
  }
  t.deepEqual(await gradientsOf(policy, [batch], 0), together)
  const scores = await policy.score(batch.tokens, batch.offsets, loss.temperature, null)
  t.deepEqual(
    together.logProbs,
    scores.logProbs.map((value, i) => (batch.weights[i] === 0 ? 0 : value)),
  )
}

for (const dtype of computeTypes) {
  for (const [title, sequences] of Object.entries(cases)) {
    test(`${dtype}, ${title}: log-probs have the same bits, gradients the same values, kept or recomputed`, async (t) => {
      for (const threads of [1, 2, 3]) {
        const config = { qkvBias: true, qkNorm: true }
        const policy = await initializeNativePolicy(config, { dtype, threads, standardDeviation: 0.1 })
        t.teardown(() => policy.dispose())
        await compare(t, policy, sequences, bounds[dtype])
      }
    })

    test(`${dtype}, ${title}: scores have the bits of sequences alone`, async (t) => {
      const policy = await initializeNativePolicy({}, { dtype })
      t.teardown(() => policy.dispose())
      const score = (tokens: Int32Array[]) => {
        const flat = flatten(tokens)
        return policy.score(flat.tokens, flat.offsets, 0.8, null)
      }
      const alone = []
      for (const { tokens } of sequences) alone.push(await score([tokens]))
      const together = await score(sequences.map(({ tokens }) => tokens))
      t.deepEqual(together.logProbs, concat(alone.map(({ logProbs }) => logProbs)))
      t.deepEqual(together.entropies, concat(alone.map(({ entropies }) => entropies)))
    })
  }

  for (const name of fixtureNames) {
    testWithShared(`${name}, ${dtype}: a group gives what its sequences give alone`, async (t) => {
      const policy = await loadNativePolicy(new Reference(name).folder, { dtype })
      t.teardown(() => policy.dispose())
      await compare(t, policy, cases['prompts of 2, 64, 65 and 66 tokens']!, bounds[dtype])
    })
  }
}

// Serial, as it watches the memory that the whole process holds.
test.serial('the rows of a shared prompt take the memory of one', async (t) => {
  const policy = await initializeNativePolicy()
  t.teardown(() => policy.dispose())
  const held = () => loadNative().environment().memoryHeld
  const needed = async (sequences: Sequence[]) => {
    const learner = await loadNative().createLearner(policy, { ...options, activationBudget: 2 ** 30 })
    const before = held()
    await learner.accumulate(makeBatch(sequences), loss, null)
    const bytes = held() - before
    learner.dispose()
    return bytes
  }
  const completions = [16, 17, 18, 19, 20, 21, 22, 23]
  // The weights are packed for the backward direction.
  await needed(group(1, 8, [1]))
  const one = await needed([sequence(1, 300, 156)])
  const shared = await needed(group(1, 300, completions))
  const apart = await needed(completions.map((completion, id) => sequence(id, 300, completion)))
  t.true(shared < 1.2 * one, `${shared} bytes, ${one} for as many rows in one sequence`)
  t.true(apart > 4 * shared, `${apart} bytes without a common prompt`)
})

test.serial(
  'where memory is short a group is learnt from with fewer layers kept, and the same bits',
  async (t) => {
    const before = process.env.SSRL_MEMORY
    t.teardown(() => {
      if (before === undefined) delete process.env.SSRL_MEMORY
      else process.env.SSRL_MEMORY = before
    })
    const policy = await initializeNativePolicy()
    t.teardown(() => policy.dispose())
    const batch = makeBatch(group(1, 300, [16, 17, 18, 19]))
    const held = () => loadNative().environment().memoryHeld
    const attempt = async (room: number | null) => {
      delete process.env.SSRL_MEMORY
      const learner = await loadNative().createLearner(policy, { ...options, activationBudget: 2 ** 30 })
      const start = held()
      if (room !== null) process.env.SSRL_MEMORY = String(start + room)
      try {
        const { logProbs } = await learner.accumulate(batch, loss, null)
        const gradient = await learner.readGradient('model.layers.0.self_attn.v_proj.weight')
        return { logProbs, gradient, bytes: held() - start }
      } finally {
        learner.dispose()
      }
    }
    // The first one packs the weights for the backward direction.
    await attempt(null)
    const { bytes: most, ...expected } = await attempt(null)
    const sizes = new Set<number>()
    let room = most
    for (; room > 0; room -= 20_000) {
      try {
        const { bytes, ...result } = await attempt(room)
        t.true(bytes <= room)
        t.deepEqual(result, expected)
        sizes.add(bytes)
      } catch (error) {
        t.is((error as { code: string }).code, 'ERR_OUT_OF_MEMORY')
        break
      }
    }
    // All three layers kept, one, none; it fails only where that does not fit.
    t.is(sizes.size, 3)
    t.true(room > Math.min(...sizes) - 20_000)
  },
)

/**
 * Of a tensor's largest value. f32: the order of a sum alone, micro-batches without a shared row, shows up to 2e-6
 * here. bf16: the gradient of a shared row is rounded once, not once a sequence.
 */
const bounds: Record<DType, number> = { f32: 3e-6, bf16: 2 ** -6 }
