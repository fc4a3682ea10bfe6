import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { type DType, loadNative, type NativeLearner, type NativePolicy } from '../../lib/native.ts'
import { computeTypes, initializeNativePolicy, smallConfig } from '../helpers/fixture-policy.ts'
import { flatten, largestDifference, largestMagnitude } from '../helpers/reference.ts'

const options = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.01, activationBudget: 2 ** 30 }
const loss = {
  type: 'policy-gradient' as const,
  temperature: 0.9,
  epsilon: 0.2,
  epsilonHigh: 0.28,
  dualClip: 3,
  beta: 0.04,
}
const lengths = [3, 70, 1, 129, 31, 2, 64, 65]
const sequences = lengths.map((length, s) =>
  Int32Array.from({ length }, (_, t) => (s * 31 + t * 17 + ((t * t) % 13)) % smallConfig.vocabSize),
)

/** A batch with some tokens of weight 0, at the ends too. */
function makeBatch(chosen: readonly Int32Array[], first = 0) {
  const values = (make: (s: number, t: number) => number) =>
    Float32Array.from(
      chosen.flatMap((tokens, s) => Array.from({ length: tokens.length - 1 }, (_, t) => make(first + s, t))),
    )
  return {
    ...flatten(chosen),
    weights: values((s, t) => ((s + t) % 3 === 0 ? 0 : 0.01 * (1 + (t % 4)))),
    advantages: values((s) => (s % 2 === 0 ? 1.3 : -0.8)),
    oldLogProbs: values((s, t) => -4.9 + 0.1 * ((s + t) % 7)),
    referenceLogProbs: values((s, t) => -4.8 + 0.1 * ((s * t) % 5)),
  }
}

async function allGradients(policy: NativePolicy, learner: NativeLearner) {
  const gradients = new Map<string, Float32Array>()
  for (const { name } of policy.parameters()) gradients.set(name, await learner.readGradient(name))
  return gradients
}

async function open(t: ExecutionContext, dtype: DType = 'f32', budget = 2 ** 30, threads = 2) {
  const policy = await initializeNativePolicy({ qkvBias: true, qkNorm: true }, { dtype, threads, seed: 3 })
  const learner = await loadNative().createLearner(policy, { ...options, activationBudget: budget })
  t.teardown(() => {
    learner.dispose()
    return policy.dispose()
  })
  return { policy, learner }
}

/** Rounded to bf16, to the nearest and then even one. */
function toBf16(values: Float32Array): Float32Array {
  const bits = new Uint32Array(values.slice().buffer).map((u) => (u + 0x7fff + ((u >>> 16) & 1)) & 0xffff0000)
  return new Float32Array(bits.buffer)
}

async function temporaryFolder(t: ExecutionContext) {
  const folder = await mkdtemp(path.join(tmpdir(), 'ssrl-'))
  t.teardown(() => rm(folder, { recursive: true }))
  return folder
}

for (const dtype of computeTypes) {
  test(`${dtype}: recomputed layers give the same bits as kept ones`, async (t) => {
    const kept = await open(t, dtype)
    // Room for one of the three layers, then for none.
    for (const [budget, share] of [
      [dtype === 'f32' ? 900_000 : 500_000, 2 / 3],
      [0, 1],
    ] as const) {
      const recomputed = await open(t, dtype, budget)
      const expected = await kept.learner.accumulate(makeBatch(sequences), loss, null)
      t.is(expected.recomputed, 0)
      const again = await recomputed.learner.accumulate(makeBatch(sequences), loss, null)
      t.true(Math.abs(again.recomputed - share) < 1e-9, String(again.recomputed))
      t.deepEqual({ ...again, recomputed: 0 }, expected)
      t.deepEqual(
        await allGradients(recomputed.policy, recomputed.learner),
        await allGradients(kept.policy, kept.learner),
      )
      await kept.learner.zeroGradients()
    }
  })

  test(`${dtype}: log-probs have the bits of score, whatever the batch and the threads`, async (t) => {
    for (const threads of [1, 2, 3]) {
      const { policy, learner } = await open(t, dtype, 2 ** 30, threads)
      for (const chosen of [sequences, [sequences[1]!], [sequences[3]!, sequences[1]!]]) {
        const batch = makeBatch(chosen)
        const { logProbs } = await learner.accumulate(batch, loss, null)
        const scores = await policy.score(batch.tokens, batch.offsets, loss.temperature, null)
        t.deepEqual(
          logProbs,
          scores.logProbs.map((value, i) => (batch.weights[i] === 0 ? 0 : value)),
        )
      }
    }
  })
}

test('one micro-batch of eight equals eight micro-batches of one within 1e-6', async (t) => {
  const whole = await open(t)
  const { loss: expected } = await whole.learner.accumulate(makeBatch(sequences), loss, null)
  const parts = await open(t)
  let sum = 0
  for (const [s, tokens] of sequences.entries()) {
    sum += (await parts.learner.accumulate(makeBatch([tokens], s), loss, null)).loss
  }
  t.true(Math.abs(sum - expected) < 1e-6)
  const expectedGradients = await allGradients(whole.policy, whole.learner)
  for (const [name, gradient] of await allGradients(parts.policy, parts.learner)) {
    const reference = expectedGradients.get(name)!
    t.true(largestDifference(gradient, reference) <= 1e-6 * Math.max(1, largestMagnitude(reference)), name)
  }
  const norms = [await whole.learner.step(step), await parts.learner.step(step)]
  t.true(Math.abs(norms[0]!.gradNorm - norms[1]!.gradNorm) < 1e-6 * norms[0]!.gradNorm)
})

const step = { learningRate: 1e-3, maxGradNorm: 1 }

test('rows of weight 0 cost nothing: a batch without any other gives no gradient and no loss', async (t) => {
  const { policy, learner } = await open(t)
  const batch = makeBatch(sequences)
  batch.weights.fill(0)
  const statistics = await learner.accumulate(batch, loss, null)
  t.is(statistics.rows, 0)
  t.is(statistics.loss, 0)
  for (const gradient of (await allGradients(policy, learner)).values()) t.is(largestMagnitude(gradient), 0)
})

test('a loss that is no number is ERR_NON_FINITE, clears the gradients and leaves the weights', async (t) => {
  const { policy, learner } = await open(t)
  const before = await policy.readParameter('model.norm.weight')
  await learner.accumulate(makeBatch(sequences), loss, null)
  const bad = makeBatch(sequences)
  bad.advantages[1] = Number.NaN
  await t.throwsAsync(learner.accumulate(bad, loss, null), { code: 'ERR_NON_FINITE' })
  for (const gradient of (await allGradients(policy, learner)).values()) t.is(largestMagnitude(gradient), 0)
  t.deepEqual(await policy.readParameter('model.norm.weight'), before)
})

test('a gradient that overflows is ERR_NON_FINITE, and the step is left undone', async (t) => {
  const { policy, learner } = await open(t)
  const names = policy.parameters().map(({ name }) => name)
  const weights = await Promise.all(names.map((name) => policy.readParameter(name)))
  const huge = makeBatch(sequences)
  huge.weights.fill(1e37)
  huge.advantages.fill(-1e3)
  await t.throwsAsync(
    async () => {
      await learner.accumulate(huge, { ...loss, dualClip: 0, beta: 0 }, null)
      await learner.step(step)
    },
    { code: 'ERR_NON_FINITE' },
  )
  t.deepEqual(await Promise.all(names.map((name) => policy.readParameter(name))), weights)
  t.is(learner.steps, 0)
  t.true((await learner.accumulate(makeBatch(sequences), loss, null)).rows > 0)
  t.true((await learner.step(step)).gradNorm > 0)
  t.is(learner.steps, 1)
})

// Serial, as it watches the memory that the whole process holds.
test.serial('a clone keeps its weights, and shares their memory until the other is trained', async (t) => {
  const { policy, learner } = await open(t)
  const held = () => loadNative().environment().memoryHeld
  const { tokens, offsets } = flatten(sequences)
  const before = await policy.score(tokens, offsets, 1, null)
  await learner.accumulate(makeBatch(sequences), loss, null)
  const alone = held()
  const clone = await policy.clone(false)
  t.teardown(() => clone.dispose())
  t.deepEqual(await clone.readParameter('model.norm.weight'), await policy.readParameter('model.norm.weight'))
  const weightBytes = policy
    .parameters()
    .reduce((sum, { shape }) => sum + 4 * shape.reduce((a, b) => a * b, 1), 0)
  t.true(held() - alone < weightBytes / 2)
  await learner.step(step)
  t.true(held() - alone >= weightBytes)
  t.deepEqual(await clone.score(tokens, offsets, 1, null), before)
  t.notDeepEqual(await policy.score(tokens, offsets, 1, null), before)
})

test.serial(
  'a frozen clone keeps its weights with the same bits, in the memory of the packed ones',
  async (t) => {
    for (const dtype of computeTypes) {
      const { policy, learner } = await open(t, dtype)
      const held = () => loadNative().environment().memoryHeld
      const { tokens, offsets } = flatten(sequences)
      const before = await policy.score(tokens, offsets, 1, null)
      const parameters = policy.parameters()
      const names = parameters.map(({ name }) => name)
      const weights = await Promise.all(names.map((name) => policy.readParameter(name)))
      await learner.accumulate(makeBatch(sequences), loss, null)
      await policy.clone(false).then((plain) => plain.dispose())
      const alone = held()
      const frozen = await policy.clone(true)
      t.teardown(() => frozen.dispose())
      await learner.step(step)
      const count = weights.reduce((sum, { length }) => sum + length, 0)
      t.true(
        held() - alone < (dtype === 'f32' ? 6 : 3.5) * count,
        `${(held() - alone) / count} bytes a parameter`,
      )
      t.deepEqual(await frozen.score(tokens, offsets, 1, null), before)
      t.notDeepEqual(await policy.score(tokens, offsets, 1, null), before)
      for (const [i, name] of names.entries()) {
        const values = await frozen.readParameter(name)
        const isRounded = dtype === 'bf16' && parameters[i]!.shape.length === 2
        t.deepEqual(values, isRounded ? toBf16(weights[i]!) : weights[i]!, name)
      }
      await t.throwsAsync(loadNative().createLearner(frozen, options), { code: 'ERR_INVALID_ARG' })
      await t.throwsAsync(frozen.writeParameter(names[0]!, weights[0]!), { code: 'ERR_INVALID_ARG' })
      const again = await frozen.clone(true)
      t.deepEqual(await again.score(tokens, offsets, 1, null), before)
      await again.dispose()
    }
  },
)

test.serial(
  'where memory is short fewer layers are kept, with the same bits, until it is ERR_OUT_OF_MEMORY',
  async (t) => {
    const before = process.env.SSRL_MEMORY
    t.teardown(() => {
      if (before === undefined) delete process.env.SSRL_MEMORY
      else process.env.SSRL_MEMORY = before
    })
    const held = () => loadNative().environment().memoryHeld
    const policy = await initializeNativePolicy()
    const results = []
    const sizes = new Set<number>()
    for (let room = 6_000_000; results.at(-1) !== 'ERR_OUT_OF_MEMORY' && room > 0; room -= 100_000) {
      delete process.env.SSRL_MEMORY
      const learner = await loadNative().createLearner(policy, options)
      const start = held()
      process.env.SSRL_MEMORY = String(start + room)
      try {
        results.push((await learner.accumulate(makeBatch(sequences), loss, null)).logProbs)
        results.push(await learner.readGradient('model.layers.0.self_attn.q_proj.weight'))
        sizes.add(held() - start)
      } catch (error) {
        results.push((error as { code: string }).code)
      }
      learner.dispose()
    }
    await policy.dispose()
    t.is(results.pop(), 'ERR_OUT_OF_MEMORY')
    // All three layers kept, one, none.
    t.is(sizes.size, 3)
    for (const [i, result] of results.entries()) t.deepEqual(result, results[i % 2])
  },
)

test('weights that are written are learnt from, and only by the policy that was written', async (t) => {
  const { policy } = await open(t)
  const clone = await policy.clone(false)
  t.teardown(() => clone.dispose())
  const { tokens, offsets } = flatten([sequences[1]!])
  const before = await policy.score(tokens, offsets, 1, null)
  const name = 'model.layers.1.self_attn.k_proj.weight'
  const weights = await policy.readParameter(name)
  await policy.writeParameter(
    name,
    weights.map((value) => value * 1.5),
  )
  t.notDeepEqual(await policy.score(tokens, offsets, 1, null), before)
  t.deepEqual(await clone.score(tokens, offsets, 1, null), before)
})

test('an abort stops the work and clears the gradients', async (t) => {
  const { policy, learner } = await open(t)
  await learner.accumulate(makeBatch(sequences), loss, null)
  const token = loadNative().createAbortToken()
  const stopped = learner.accumulate(makeBatch(sequences), loss, token)
  token.abort()
  await t.throwsAsync(stopped, { code: 'ABORTED' })
  await learner.zeroGradients()
  for (const gradient of (await allGradients(policy, learner)).values()) t.is(largestMagnitude(gradient), 0)
})

test('a learner that goes on from saved state makes the steps of one that was not interrupted', async (t) => {
  const file = path.join(await temporaryFolder(t), 'optimizer.safetensors')
  const first = await open(t)
  await first.learner.accumulate(makeBatch(sequences), loss, null)
  await first.learner.step(step)
  await first.learner.saveState(file)
  const second = await open(t)
  for (const { name } of first.policy.parameters()) {
    await second.policy.writeParameter(name, await first.policy.readParameter(name))
  }
  await second.learner.loadState(file)
  t.is(second.learner.steps, 1)
  for (const { policy, learner } of [first, second]) {
    await learner.accumulate(makeBatch(sequences.slice(2)), loss, null)
    await learner.step(step)
    t.is(learner.steps, 2)
    t.deepEqual(
      await policy.readParameter('model.embed_tokens.weight'),
      await first.policy.readParameter('model.embed_tokens.weight'),
    )
  }
})

test('optimizer state of another model, a damaged one and none are refused', async (t) => {
  const file = path.join(await temporaryFolder(t), 'optimizer.safetensors')
  const { learner } = await open(t)
  await t.throwsAsync(learner.loadState(file), { code: 'ERR_IO' })
  const other = await initializeNativePolicy({ hiddenSize: 40 })
  const otherLearner = await loadNative().createLearner(other, options)
  t.teardown(() => {
    otherLearner.dispose()
    return other.dispose()
  })
  await otherLearner.saveState(file)
  await t.throwsAsync(learner.loadState(file), { code: 'ERR_MODEL_FORMAT' })
  await truncate(file, 100)
  await t.throwsAsync(otherLearner.loadState(file), { code: 'ERR_MODEL_FORMAT' })
  await writeFile(file, Buffer.concat([await readFile(file), Buffer.alloc(8)]))
  await t.throwsAsync(otherLearner.loadState(file), { code: 'ERR_MODEL_FORMAT' })
})
