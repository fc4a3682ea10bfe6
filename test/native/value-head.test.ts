import { mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import {
  loadNative,
  type NativeLearner,
  type NativeLossOptions,
  type NativePolicy,
} from '../../lib/native.ts'
import { initializeNativePolicy } from '../helpers/fixture-policy.ts'
import { flatten } from '../helpers/reference.ts'

const sequences = [1, 5, 70, 33, 2].map((length, s) =>
  Int32Array.from({ length }, (_, t) => (s * 41 + t * 23 + ((t * t) % 7)) % 61),
)
const { tokens, offsets } = flatten(sequences)
const count = tokens.length - sequences.length
const values = (make: (i: number) => number) => Float32Array.from({ length: count }, (_, i) => make(i))
const batch = {
  tokens,
  offsets,
  weights: values((i) => (i % 5 === 2 ? 0 : (1 + (i % 3)) / 40)),
  advantages: values((i) => 0.9 - 0.5 * (i % 4)),
  oldLogProbs: null,
  referenceLogProbs: null,
  returns: values((i) => Math.sin(i)),
}
const value: NativeLossOptions = {
  type: 'value',
  temperature: 1,
  epsilon: 10,
  epsilonHigh: 10,
  dualClip: 0,
  beta: 0,
  valueClip: 0,
  valueCoefficient: 1,
}
const hidden = 30

async function open(t: ExecutionContext, dtype: 'f32' | 'bf16' = 'f32') {
  const shape = { hiddenSize: hidden, intermediateSize: 47, numLayers: 2, vocabSize: 61 }
  const policy = await initializeNativePolicy(shape, { standardDeviation: 0.3, seed: 11, dtype })
  const learner = await loadNative().createLearner(policy, {
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weightDecay: 0,
    activationBudget: 2 ** 30,
    valueHead: true,
  })
  await learner.writeValueHead(Float32Array.from({ length: hidden }, (_, i) => 0.3 * Math.cos(3 * i)))
  t.teardown(() => {
    learner.dispose()
    policy.dispose()
  })
  return { policy, learner }
}

/** The value loss of a batch in double precision, from values. */
function expectedLoss(v: Float32Array, { clip = 0, old = v, coefficient = 1 } = {}) {
  let loss = 0
  let clipped = 0
  for (const [i, weight] of batch.weights.entries()) {
    if (weight === 0) continue
    const target = batch.returns[i]!
    const bound = Math.min(Math.max(v[i]!, old[i]! - clip), old[i]! + clip)
    const free = (v[i]! - target) ** 2
    const held = clip > 0 && (bound - target) ** 2 > free
    clipped += Number(held)
    loss += (coefficient * weight * (held ? (bound - target) ** 2 : free)) / 2
  }
  return { loss, clipped }
}

for (const dtype of ['f32', 'bf16'] as const) {
  test(`loss, clip and values are those of the formulas (${dtype})`, async (t) => {
    const { learner } = await open(t, dtype)
    const v = await learner.values(tokens, offsets, null)
    t.is(v.length, count)
    t.true(v.some((one) => Math.abs(one) > 0.1))
    const free = await learner.accumulate(batch, value, null)
    t.true(Math.abs(free.valueLoss - expectedLoss(v).loss) < 1e-6)
    t.is(free.loss, 0)
    t.is(free.rows, batch.weights.filter((weight) => weight !== 0).length)
    t.true(
      Math.abs(free.valueSum - v.reduce((sum, one, i) => (batch.weights[i] ? sum + one : sum), 0)) < 1e-4,
    )
    const old = v.map((one, i) => one + 0.4 * Math.cos(5 * i))
    const options = { ...value, valueClip: 0.2, valueCoefficient: 0.7 }
    const clipped = await learner.accumulate({ ...batch, oldValues: old }, options, null)
    const expected = expectedLoss(v, { clip: 0.2, old, coefficient: 0.7 })
    t.true(expected.clipped > 5)
    t.is(clipped.valueClipped, expected.clipped)
    t.true(Math.abs(clipped.valueLoss - expected.loss) < 1e-6)
  })

  test(`a value does not depend on the sequences beside it (${dtype})`, async (t) => {
    const { learner } = await open(t, dtype)
    const all = await learner.values(tokens, offsets, null)
    for (const [s, sequence] of sequences.entries()) {
      const alone = await learner.values(sequence, Int32Array.of(0, sequence.length), null)
      t.deepEqual(alone, all.slice(offsets[s]! - s, offsets[s + 1]! - s - 1))
    }
  })
}

/** The derivative of the loss along a gradient, by central differences of fourth order. */
async function slope(
  weights: Float32Array,
  gradient: Float32Array,
  write: (values: Float32Array) => Promise<void>,
  lossAt: () => Promise<number>,
) {
  const norm = Math.hypot(...gradient)
  const step = 1e-3 * Math.sqrt(weights.reduce((sum, one) => sum + one * one, 1e-2))
  const losses = []
  for (const steps of [2, 1, -1, -2]) {
    await write(weights.map((one, i) => one + (steps * step * gradient[i]!) / norm))
    losses.push(await lossAt())
  }
  await write(weights)
  const [twoUp, up, down, twoDown] = losses as [number, number, number, number]
  return { norm, expected: (8 * (up - down) - (twoUp - twoDown)) / (12 * step) }
}

async function checkGradients(
  t: ExecutionContext,
  { policy, learner }: { policy: NativePolicy; learner: NativeLearner },
  lossAt: () => Promise<number>,
) {
  await learner.zeroGradients()
  await lossAt()
  const names = policy.parameters().map(({ name }) => name)
  const gradients = new Map<string, Float32Array>()
  for (const name of [...names, 'value_head.weight']) gradients.set(name, await learner.readGradient(name))
  for (const [name, gradient] of gradients) {
    const head = name === 'value_head.weight'
    const weights = head ? await learner.readValueHead() : await policy.readParameter(name)
    const write = (to: Float32Array) => (head ? learner.writeValueHead(to) : policy.writeParameter(name, to))
    const { norm, expected } = await slope(weights, gradient, write, lossAt)
    if (norm === 0) {
      t.is(name, 'lm_head.weight')
      continue
    }
    t.true(Math.abs(expected / norm - 1) < 1e-2, `${name}: ${norm} against ${expected}`)
  }
}

test('the gradient of the value loss agrees with finite differences within 1 %', async (t) => {
  const opened = await open(t)
  await checkGradients(t, opened, async () => (await opened.learner.accumulate(batch, value, null)).valueLoss)
})

test('policy and values on one trunk: the gradient of the sum agrees with finite differences within 1 %', async (t) => {
  const opened = await open(t)
  const { logProbs } = await opened.policy.score(tokens, offsets, 1, null)
  const both = { ...batch, oldLogProbs: logProbs.map((one, i) => one - 0.2 + 0.1 * (i % 5)) }
  const loss = { ...value, type: 'policy-gradient' as const, valueCoefficient: 0.5 }
  await checkGradients(t, opened, async () => {
    const { loss: ofPolicy, valueLoss } = await opened.learner.accumulate(both, loss, null)
    return ofPolicy + valueLoss
  })
})

test('detached, the head alone has a gradient, and a step of it alone leaves the model as it is', async (t) => {
  const { policy, learner } = await open(t)
  await learner.accumulate(batch, { ...value, detachValue: true }, null)
  for (const { name } of policy.parameters())
    t.true((await learner.readGradient(name)).every((one) => one === 0))
  const before = await policy.readParameter('model.embed_tokens.weight')
  const head = await learner.readValueHead()
  const { gradNorm } = await learner.step({ learningRate: 1e-2, maxGradNorm: 1, valueHeadOnly: true })
  t.true(gradNorm > 0)
  t.deepEqual(await policy.readParameter('model.embed_tokens.weight'), before)
  t.is(learner.steps, 0)
  t.notDeepEqual(await learner.readValueHead(), head)
  t.true((await learner.readGradient('value_head.weight')).every((one) => one === 0))
})

test('steps bring the values to their returns, and the state of the head is saved and loaded', async (t) => {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'ssrl-value-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const { policy, learner } = await open(t)
  const losses = []
  for (let i = 0; i < 12; i++) {
    losses.push((await learner.accumulate(batch, value, null)).valueLoss)
    await learner.step({ learningRate: 1e-2, maxGradNorm: 1 })
  }
  t.true(losses.at(-1)! < 0.5 * losses[0]!)
  const file = path.join(folder, 'state.safetensors')
  await learner.saveState(file)
  const again = await loadNative().createLearner(policy, {
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weightDecay: 0,
    activationBudget: 2 ** 30,
    valueHead: true,
  })
  await again.loadState(file)
  t.deepEqual(await again.readValueHead(), await learner.readValueHead())
  t.deepEqual(await again.values(tokens, offsets, null), await learner.values(tokens, offsets, null))
  again.dispose()
})

test('what a learner cannot do is ERR_INVALID_ARG: values without a head, a state without its head', async (t) => {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'ssrl-value-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const { policy, learner } = await open(t)
  const options = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, activationBudget: 0 }
  const plain = await loadNative().createLearner(policy, options)
  t.teardown(() => plain.dispose())
  await t.throwsAsync(plain.values(tokens, offsets, null), { code: 'ERR_INVALID_ARG' })
  await t.throwsAsync(plain.accumulate(batch, value, null), { code: 'ERR_INVALID_ARG' })
  await t.throwsAsync(plain.step({ learningRate: 1, maxGradNorm: 1, valueHeadOnly: true }), {
    code: 'ERR_INVALID_ARG',
  })
  const file = path.join(folder, 'plain.safetensors')
  await plain.saveState(file)
  await t.throwsAsync(learner.loadState(file), { code: 'ERR_MODEL_FORMAT', message: /value_head/ })
})
